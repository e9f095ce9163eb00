"""One emulator for a whole test run, cleared after each test, and what must hold after every test."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from client import RUNTIMES, Api, Wire, eventually
from dashboard_page import Dashboard
from jupyter_core.utils import ensure_event_loop
from leaks import Leaks

from cmemu_nb import Emulator
from cmemu_nb.server.openapi import examples

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator
    from concurrent.futures import Future
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cmemu_nb.lifecycle.events import Event
    from cmemu_nb.server.long_polls import LongPolls

TOKEN = "the-bearer-token"
FAULTS = {"internal_error", "listener_failed", "log"}


def waiting_of(emulator: Emulator) -> LongPolls:
    """Return the emulator's held requests."""
    return emulator.application.context.long_polls


def idle(emulator: Emulator) -> bool:
    waiting = waiting_of(emulator)
    return not waiting._polls and not waiting._jobs  # noqa: SLF001


def faults(emulator: Emulator, since: int = 0) -> list[str | None]:
    recent = emulator.lifecycle.events.recent()
    return [event.detail for event in recent if event.kind in FAULTS and event.sequence > since]


@contextmanager
def serving(**settings: Any) -> Iterator[Emulator]:
    with Emulator(**{"port": 0, "home": "thread", "token": TOKEN, **settings}) as emulator:
        yield emulator
        eventually(lambda: idle(emulator), "the emulator holds no request any more")
        assert faults(emulator) == []


def end_programs(emulator: Emulator) -> None:
    """Delete all runtimes, and wait until the programs that were launched for them have ended."""
    emulator.reset()
    eventually(lambda: not emulator.modules.any_running(), "every program has ended")


def without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {key: without_surrogates(each) for key, each in value.items()}
    if not isinstance(value, list | tuple):
        return value
    # A tuple stays one: pytest reads from it where a test was skipped.
    return (tuple if isinstance(value, tuple) else list)(map(without_surrogates, value))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Let what tests of broken Unicode have logged pass from pytest-xdist's workers, which send UTF-8."""
    return without_surrogates((yield))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, kinds in turn, so that the workers end at about the same time."""
    marks: dict[Path, set[str]] = {}
    for item in items:
        marks.setdefault(item.path, set()).update(mark.name for mark in item.iter_markers())
    places: dict[Path, tuple[bool, int]] = {}
    turns = Counter[str | None]()
    for path, names in marks.items():
        kind = next((kind for kind in ("browser", "kernels", "once") if kind in names), None)
        places[path] = kind is None, turns[kind]
        turns[kind] += 1
    items.sort(key=lambda item: places[item.path])


@pytest.fixture(scope="session")
def shared_emulator(runtime_folder: Path) -> Iterator[Emulator]:  # noqa: ARG001 - where its file is
    with serving(redirect_uris=[examples.SIGN_IN["redirect_uri"]]) as emulator:
        yield emulator


@pytest.fixture(scope="session", autouse=True)
def runtime_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Let the emulators of the tests write their files elsewhere than those of the person at this machine."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("runtime")
        patch.setenv("JUPYTER_RUNTIME_DIR", str(path))
        yield path


@pytest.fixture(scope="session", autouse=True)
def jupyter_loop() -> None:
    """Make the event loop that Jupyter's clients keep for the whole process."""
    ensure_event_loop()


@pytest.fixture(scope="module", autouse=True)
def no_leaks_of_the_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """Look for what a `long_lived` module has left behind when its own fixtures are gone."""
    leaks = Leaks(None) if request.node.get_closest_marker("long_lived") else None
    yield
    assert leaks is None or leaks.left() == []


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave no thread, file, socket, child process or task of the shared emulator behind, whatever the test."""
    if request.node.get_closest_marker("long_lived"):
        yield
        return
    shared = "shared_emulator" in request.fixturenames
    leaks = Leaks(request.getfixturevalue("shared_emulator") if shared else None)
    yield
    assert leaks.left() == []


@pytest.fixture
def emu(shared_emulator: Emulator) -> Iterator[Emulator]:
    """The emulator, empty. Afterwards nothing may be held and no fault logged."""
    events = shared_emulator.lifecycle.events.recent()
    since = events[-1].sequence if events else 0
    yield shared_emulator
    eventually(lambda: idle(shared_emulator), "the emulator holds no request any more")
    api = Api(shared_emulator.url, TOKEN)
    assert api.contour("DELETE", RUNTIMES).status_code == 204
    assert faults(shared_emulator, since) == []


@pytest.fixture
def api(emu: Emulator) -> Api:
    return Api(emu.url, emu.token)


@pytest.fixture
def sdk_connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the connections that the official client SDK keeps for the whole process."""
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    yield
    from foundry_sdk._core import http_client  # noqa: PLC0415 - few tests need it

    http_client._get_transport(verify=True, proxy_url=None).close()  # noqa: SLF001
    http_client._get_transport.cache_clear()  # type: ignore[attr-defined]  # noqa: SLF001


@pytest.fixture(scope="session")
def arrow_pipe() -> None:
    """Let pyarrow make the pipe that it keeps for the whole process, for interrupts while it reads a CSV file."""
    from pyarrow import BufferReader, csv  # noqa: PLC0415 - few tests need it

    csv.read_csv(BufferReader(b"a\n1\n"))


@pytest.fixture
def serve() -> Callable[..., AbstractContextManager[Emulator]]:
    """Start an emulator with settings of its own."""
    return serving


@pytest.fixture
def serve_functions() -> Callable[..., AbstractContextManager[Emulator]]:
    """Start an emulator with settings of its own whose functions' threads must all have ended when it has stopped."""

    @contextmanager
    def serve(**settings: Any) -> Iterator[Emulator]:
        threads = set(threading.enumerate())
        with serving(**settings) as emulator:
            yield emulator
            emulator.reset()
        eventually(lambda: set(threading.enumerate()) <= threads, "every thread has ended")

    return serve


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What functions wait at; it opens at the end of the test at the latest."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def wire(emu: Emulator) -> Iterator[Callable[[], Wire]]:
    """Open connections that are closed after the test."""
    opened: list[Wire] = []

    def connect() -> Wire:
        opened.append(Wire(emu.port))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


@pytest.fixture
def background(emu: Emulator) -> Iterator[Callable[..., Future[Any]]]:  # noqa: ARG001 - they end before emu is emptied
    """Call functions on threads, for requests that are held."""
    with ThreadPoolExecutor(32) as pool:
        yield pool.submit


@pytest.fixture
def until_held(emu: Emulator) -> Callable[..., None]:
    """Wait until the emulator holds so many polls and so many requests that wait for a job to be done."""
    waiting = waiting_of(emu)

    def count(held: Iterable[Collection[Any]]) -> int:
        return sum(map(len, list(held)))

    def wait(*, polls: int = 0, jobs: int = 0) -> None:
        eventually(
            lambda: (count(waiting._polls.values()), count(waiting._jobs.values())) == (polls, jobs),  # noqa: SLF001
            f"{polls} polls and {jobs} waits for jobs are held",
        )

    return wait


@pytest.fixture
def at_once(emu: Emulator, background: Callable[..., Future[Any]]) -> Callable[[], AbstractContextManager[None]]:
    """Keep the emulator busy while the block runs, so that all that is sent in it is read in one moment."""

    @contextmanager
    def busy() -> Iterator[None]:
        entered, leave = threading.Event(), threading.Event()

        def block(event: Event) -> None:
            if event.runtime_id == "busy" and not entered.is_set():
                entered.set()
                leave.wait()

        unsubscribe = emu.lifecycle.events.subscribe(block)
        opened = background(Api(emu.url, emu.token).open, "busy")
        try:
            entered.wait()
            yield
        finally:
            unsubscribe()
            leave.set()
            opened.result()

    return busy


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Print what a dashboard shows when a test that uses it has failed."""
    report = yield
    shown = getattr(item, "funcargs", {}).get("dashboard")
    if report.when == "call" and report.failed and isinstance(shown, Dashboard):
        report.sections.append(("The dashboard", shown.root.inner_text()))
    return report
