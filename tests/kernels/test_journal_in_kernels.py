"""A notebook with a journal: after a restart, or kill -9, its start cell has everything again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from kernels.driver import wait_until
from kernels.notebooks import APP, WHERE, start_executor

if TYPE_CHECKING:
    from kernels.notebooks import Notebook

pytestmark = pytest.mark.kernels

STATE = "import json; print(json.dumps([emu.url, emu.platform_url, emu.token, emu.home.kind]))"
FUNCTION = "@emu.function\ndef double(context, event):\n    import time; time.sleep(event['s']); return 2 * event['s']"
# A kernel that is killed does nothing at its end, whichever it is.
ENDS = [*((where, False) for where in WHERE), (WHERE[0], True)]
OTHER_APP = "ri.foundry.main.deployed-app.notebook"


def start(notebook: Notebook) -> list[str]:
    home = " --thread" if notebook.home == "thread" else ""
    notebook.kernel.run(f"%load_ext cmemu_nb\n%cmemu start --port 0 --journal lifecycle.db{home}")
    found: list[str] = json.loads(notebook.kernel.run(STATE).splitlines()[-1])
    notebook.url, notebook.token = found[0], found[2]
    return found


@pytest.mark.parametrize(
    ("fresh", "kill"),
    ENDS,
    ids=[f"{'-'.join(where)}-{'kill -9' if kill else 'restart'}" for where, kill in ENDS],
    indirect=["fresh"],
)
def test_the_start_cell_has_everything_again(fresh: Notebook, *, kill: bool) -> None:
    kernel = fresh.kernel
    kernel.run("%cmemu stop")
    before = start(fresh)
    kernel.run(f"rt = emu.open_runtime('outside', {APP!r})")
    opened = kernel.run("print(json.dumps([rt.get_job_uri[:-4], rt.token]))")
    base, token = json.loads(opened)
    kernel.run(FUNCTION)
    jobs = "ids = [emu.submit('double', {'s': s}, %r).id for s in (0, 600)]; emu.job(ids[0]).result()"
    kernel.run(jobs % OTHER_APP)
    kernel.run(f"ids.append(emu.submit('echo', 5, {APP!r}).id)")
    fresh.wait_for_job("running", "notebook")
    done, running, queued = json.loads(kernel.run("print(json.dumps(ids))"))
    kernel.restart(kill=kill)
    assert start(fresh) == before
    statuses = f"print(*[emu.job(each).status for each in {[done, running, queued]}])"
    assert kernel.run(statuses) == "succeeded failed queued"
    reason = kernel.run(f"print(emu.job({running!r}).record.error_message)")
    assert reason == (
        "the kernel or process that ran it ended" if kill else "the emulator was stopped while the function ran"
    )
    assert kernel.run(f"print(emu.job({done!r}).result())") == "0"
    with start_executor(base, token):  # with the token of the time before
        wait_until(lambda: kernel.run(f"print(emu.job({queued!r}).status)") == "succeeded", "the job that was queued")
        assert fresh.execute() == 1
    kernel.run(FUNCTION)
    assert kernel.run(f"print(emu.call('double', {{'s': 0.5}}, {OTHER_APP!r}))") == "1.0"


@pytest.mark.parametrize("fresh", WHERE[:1], ids="-".join, indirect=True)
def test_a_journal_that_another_kernel_has_is_one_sentence(fresh: Notebook) -> None:
    fresh.kernel.run("%cmemu stop")
    start(fresh)
    code = "%cmemu start --name other --journal lifecycle.db"
    said = fresh.kernel.run(f"print(get_ipython().run_cell({code!r}).error_in_exec)")
    assert "%cmemu start: The journal /" in said
    assert "lifecycle.db is in use by another emulator (process" in said
