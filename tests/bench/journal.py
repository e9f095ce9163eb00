"""What a journal costs: whole cycles of a job over HTTP, without one, with one, and with one that survives a power cut.

Emulator and clients are different processes; each round measures all three, one after the other.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.clients import CONTOUR, KeepAlive

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS, CYCLES, CLIENTS = 5, 1_000, (1, 8)
APP = "ri.foundry.main.deployed-app.bench"
SETTINGS: dict[str, dict[str, Any]] = {
    "no journal": {},
    "journal": {"journal": "normal.db"},
    "journal, full": {"journal": "full.db", "journal_sync": "full"},
}

EMULATOR = f"""
import json, resource, sys
from cmemu_nb import Emulator

settings = json.loads(sys.argv[1])
with Emulator(port=0, home="thread", **settings) as emu:
    runtimes = [emu.open_runtime(f"r{{n}}", deployed_app_rid=f"{APP}-{{n}}") for n in range({max(CLIENTS)})]
    print(json.dumps([emu.url, emu.token, [rt.token for rt in runtimes]]), flush=True)
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(used.ru_utime + used.ru_stime, flush=True)
"""

CLIENT = """
import sys
sys.path.insert(0, sys.argv[1])
from bench.journal import cycle, KeepAlive
url, token, module_token, number, cycles = sys.argv[2:]
application = KeepAlive(url, Authorization="Bearer " + token)
runtime = KeepAlive(url, Module_Auth_Token=module_token)
cycle(application, runtime, number)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(cycles)):
    cycle(application, runtime, number)
"""


def cycle(application: KeepAlive, runtime: KeepAlive, number: str) -> None:
    """Submit a job, take it, post its result, ask for its status, fetch the result: five requests."""
    body = json.dumps({"deployedAppRid": f"{APP}-{number}", "queryType": "f", "query": {"text": "x" * 1000}}).encode()
    job_id = json.loads(application.request("POST", f"{CONTOUR}/deployed-apps/jobs", body))["id"]
    base = f"/_emulate/foundry/compute-modules/runtimes/r{number}"
    taken = json.loads(runtime.request("GET", f"{base}/job"))["computeModuleJobV1"]["jobId"]
    assert taken == job_id
    runtime.request("POST", f"{base}/results/{job_id}", b"y" * 1000)
    application.request("GET", f"{CONTOUR}/jobs/{job_id}/status")
    application.request("PUT", f"{CONTOUR}/jobs/result/v2", json.dumps({"id": job_id}).encode())


@contextlib.contextmanager
def emulator(settings: dict[str, Any], folder: str) -> Iterator[tuple[subprocess.Popen[str], list[Any]]]:
    """Run an emulator; gives its process, its URL and its tokens."""
    given = {name: str(Path(folder, value)) if name == "journal" else value for name, value in settings.items()}
    command = [sys.executable, "-c", EMULATOR, json.dumps(given)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, json.loads(_read(process))
        finally:
            process.kill()


def _read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def measure(settings: dict[str, Any], clients: int) -> tuple[float, float]:
    """Return cycles a second, and the emulator's CPU time for one in milliseconds."""
    with tempfile.TemporaryDirectory() as folder, emulator(settings, folder) as (server, (url, token, tokens)):
        arguments = [[url, token, tokens[n], str(n), str(CYCLES // clients)] for n in range(clients)]
        command = [sys.executable, "-c", CLIENT, str(Path(__file__).parent.parent)]
        programs = [
            subprocess.Popen([*command, *each], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for each in arguments
        ]
        for program in programs:
            _read(program)
        _tell(server)
        cpu, start = float(_read(server)), time.perf_counter()
        for program in programs:
            _tell(program)
        assert [program.wait() for program in programs] == [0] * clients
        seconds = time.perf_counter() - start
        _tell(server)
        done = CYCLES // clients * clients
        for program in programs:
            for pipe in (program.stdin, program.stdout):
                assert pipe is not None
                pipe.close()
        return done / seconds, (float(_read(server)) - cpu) * 1000 / done


def main() -> None:
    """Measure and print."""
    for clients in CLIENTS:
        rounds = [{name: measure(settings, clients) for name, settings in SETTINGS.items()} for _ in range(ROUNDS)]
        for name in SETTINGS:
            rate = statistics.median(each[name][0] for each in rounds)
            cpu = statistics.median(each[name][1] for each in rounds)
            ratio = statistics.median(each[name][0] / each["no journal"][0] for each in rounds)
            print(
                f"{clients} clients, {name:<14} {rate:7.0f} cycles/s   {cpu:.3f} ms CPU each   {ratio:.2f} x no journal"
            )


if __name__ == "__main__":
    main()
