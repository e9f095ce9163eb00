"""What can't go to a cluster is refused in one sentence, and changes nothing."""

from __future__ import annotations

import os
import subprocess
import textwrap
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from client import eventually
from environments import kernel_python

from cmemu_nb import Emulator
from cmemu_nb.errors import FunctionRefused, InvalidRequest, LaunchFailed, SettingError
from cmemu_nb.executors.cluster.clusters import address_for

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client


from scale.cluster import nobody_serves, pids

pytestmark = [pytest.mark.once, pytest.mark.long_lived]
LOCK = threading.Lock()


def guarded(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG001
    with LOCK:
        return 1


def test_functions_that_cannot_be_shipped_are_refused_by_name_before_anything_starts(
    emu: Emulator, client: Client, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("w") as log:
        emu.function(guarded)

        @emu.function
        def logs(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
            log.write("called")

        with pytest.raises(FunctionRefused) as refused:
            emu.scale(client, replicas=2)
        assert "guarded can't be shipped" in str(refused.value)
        assert "because of its variable 'LOCK'" in str(refused.value)
        assert "logs can't be shipped" in str(refused.value)
        assert "because of its variable 'log'" in str(refused.value)
        assert "where can't" not in str(refused.value)
    assert nobody_serves(client)
    assert emu.lifecycle.replicas("notebook") == []
    assert emu.call("where", {}) == os.getpid()


def test_without_dask_it_is_said_what_to_install() -> None:
    code = """
        from cmemu_nb import Emulator
        from cmemu_nb.errors import LaunchFailed
        with Emulator(port=0) as emu:
            try:
                emu.scale("tcp://scheduler:8786")
            except LaunchFailed as error:
                print(error)
    """
    said = subprocess.check_output([kernel_python("7.4"), "-c", textwrap.dedent(code)], text=True)
    assert said == "scale() needs Dask, which is not installed here. Type: pip install 'cmemu_nb[dask]'\n"


def test_a_new_version_that_cannot_be_shipped_leaves_the_old_one(emu: Emulator, client: Client) -> None:
    emu.scale(client, replicas=1).wait_until_responsive()

    def where(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        with LOCK:
            return "new"

    with pytest.raises(FunctionRefused, match="where can't be shipped"):
        emu.function(where)
    assert emu.call("where", {}) in pids(client).values()
    assert emu.functions["where"].version == 1


def test_what_can_not_be_is_refused_in_one_sentence(emu: Emulator, client: Client) -> None:
    wrong: Any = "tcp://127.0.0.1:8786"
    with pytest.raises(InvalidRequest, match=r"needs a dask\.distributed\.Client, not 'tcp://127\.0\.0\.1:8786'"):
        emu.scale(wrong)
    for number in (0, "8", 2.5, None):
        with pytest.raises(InvalidRequest, match="replicas must be a whole number of at least 1, not"):
            emu.scale(client, replicas=cast("Any", number))
    with pytest.raises(InvalidRequest, match="max_concurrent_tasks must be a whole number"):
        emu.scale(client, max_concurrent_tasks=0)
    with pytest.raises(InvalidRequest, match="names none"):
        emu.scale(client, functions=[])
    with pytest.raises(FunctionRefused, match="guarded can't be shipped"):
        emu.scale(client, functions=guarded)
    assert [each.runtime_id for each in emu.lifecycle.runtimes()] == ["notebook"]
    with pytest.raises(InvalidRequest, match="No functions are served on runtime 'other'"):
        emu.scale(client, runtime="other")
    with Emulator(port=0, home="thread") as without, pytest.raises(InvalidRequest, match="No functions are served"):
        without.scale(client)


def address_for_workers(emu: Emulator, workers: list[str]) -> str:
    return address_for(emu._engine, workers)  # noqa: SLF001


def test_workers_on_other_machines_need_an_emulator_that_they_can_reach(emu: Emulator) -> None:
    workers = ["tcp://127.0.0.1:1", "tcp://192.0.2.7:34567"]
    with pytest.raises(SettingError, match=r"workers on 192\.0\.2\.7 can't reach .* --allow-remote --local-hostnames"):
        address_for_workers(emu, workers)
    assert address_for_workers(emu, workers[:1]) == emu.platform_url


@pytest.mark.filterwarnings("ignore::cmemu_nb.errors.ExposedWarning")
def test_the_address_for_workers_on_other_machines_is_the_first_of_this_machines_names() -> None:
    with Emulator(port=0, home="thread", host="0.0.0.0", allow_remote=True) as emu:
        with pytest.raises(SettingError, match="need a name or address of this machine"):
            address_for_workers(emu, ["tcp://192.0.2.7:34567"])
        emu.settings.local_hostnames = ["notebook.example"]
        port = emu.platform_url.rpartition(":")[2]
        assert address_for_workers(emu, ["tcp://192.0.2.7:34567"]) == f"https://notebook.example:{port}"


def test_replicas_that_are_stopped_say_so(emu: Emulator, client: Client) -> None:
    cluster = emu.scale(client, replicas=2)
    cluster.stop()
    eventually(lambda: nobody_serves(client), "those that were to begin have left", seconds=10)
    with pytest.raises(LaunchFailed, match=r"are stopped. emu.scale\(client\) starts new ones"):
        cluster.scale(2)
    with pytest.raises(LaunchFailed, match="are stopped"):
        cluster.wait_until_responsive()
    emu.stop()
    cluster.stop()
    emu.start()
    assert emu.call("where", {}) == os.getpid()


def test_a_new_version_that_the_workers_cannot_read_is_told_and_the_old_one_goes_on(
    emu: Emulator, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emu.scale(client, replicas=2).wait_until_responsive()
    (tmp_path / "only_here.py").write_text("def f():\n    return 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here  # type: ignore[import-not-found]  # noqa: PLC0415 - no worker has it

    def where(context, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        return only_here.f()

    with pytest.raises(FunctionRefused, match=r"keep the previous one: .* Install only_here on the workers"):
        emu.function(where)
    assert emu.call("where", {}) in pids(client).values()
    client.upload_file(str(tmp_path / "only_here.py"))
    emu.function(where)
    assert emu.call("where", {}) == 7
