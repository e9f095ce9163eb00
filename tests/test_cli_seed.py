"""`cmemu serve --seed`, as a real process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests
from cli_processes import run, serving
from client import MODULE_HEADER, RUNTIMES
from test_cli import submit

if TYPE_CHECKING:
    from pathlib import Path

SEED = """
foundry:
  compute_modules:
    runtimes:
      - {runtime_id: my-runtime, module_auth_token: of-the-seed-file}
tokens:
  token-of-alice: {login: alice}
settings: {port: 1, home: kernel, token: another-token}
"""


def test_serve_begins_with_a_seed_file_and_its_options_win(tmp_path: Path) -> None:
    path = tmp_path / "seed.yaml"
    path.write_text(SEED, "utf-8")
    with serving("--seed", str(path)) as server:
        poll = requests.get(
            f"{server.url}{RUNTIMES}/my-runtime/job", headers={MODULE_HEADER: "of-the-seed-file"}, timeout=10
        )
        assert poll.status_code == 204
        assert [submit(server.url, token) for token in ("token-of-alice", "another-token", "x")] == [404, 404, 401]
        assert server.end() == ("", "")


def test_a_seed_file_that_can_t_be_is_told_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "seed.yaml"
    path.write_text("settings:\n  prot: 1\n", "utf-8")
    done = run("serve", "--seed", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"cmemu serve: {path}, line 2: unknown key 'prot' in settings. Did you mean 'port'? The keys are "
    )
    assert done.stderr.endswith("See 'cmemu serve --help'.\n")
