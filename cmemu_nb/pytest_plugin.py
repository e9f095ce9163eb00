"""The pytest plugin: fixtures with an emulator for tests. `%cmemu help testing` has examples.

Test runs that use none of the fixtures lose no time: the first fixture imports the large modules.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from cmemu_nb.calls.handles import RuntimeHandle
    from cmemu_nb.emulator import Emulator
    from cmemu_nb.executors.modules.modules import LaunchedModule
    from cmemu_nb.testing import EmulatorForTests, Watch

OPTION = "cmemu_export_on_failure"
HELP = "directory to which the session of a failed test's emulator is exported, for Emulator.from_export"
RUNTIME = "test"
RUNTIME_APP = "ri.foundry.main.deployed-app.test"
WATCH: pytest.StashKey[Watch] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of pytest's command line, and that of its configuration."""
    group = parser.getgroup("cmemu", "cmemu_nb, an emulator of compute modules")
    group.addoption("--cmemu-export-on-failure", metavar="DIR", help=HELP)
    parser.addini(OPTION, f"{HELP}; relative to the root directory", default="")


@pytest.fixture(scope="session")
def cmemu_settings() -> dict[str, Any]:
    """Return the emulator's settings, by name; override this fixture, with scope "session", to change them.

    The settings are those of `cmemu_nb.Emulator`; its `datasets` and `streams` may be among them. The default `port` is
    a free one, so that several runs don't clash.
    """
    return {}


@pytest.fixture(scope="session")
def _cmemu_of_the_session(cmemu_settings: dict[str, Any]) -> Iterator[EmulatorForTests]:
    from cmemu_nb.testing import EmulatorForTests  # noqa: PLC0415 - imported only where a fixture is used

    with EmulatorForTests(**{"port": 0, **cmemu_settings}) as emulator:
        emulator.clear()
        yield emulator


@pytest.fixture
def cmemu(_cmemu_of_the_session: EmulatorForTests, request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """Return an empty, running emulator; one serves the whole test session, or each worker of pytest-xdist.

    After the test it is emptied: runtimes, jobs, apps, schemas, datasets, streams, events and listeners are deleted,
    faults ended, launched programs stopped, functions removed and settings restored; if it was stopped it is started
    again. The `datasets` and `streams` of `cmemu_settings` are made again.
    A function that is still running then can't be ended, but its result is ignored.
    """
    from cmemu_nb.testing import Watch  # noqa: PLC0415

    if _cmemu_of_the_session.stuck:  # by an earlier test
        _cmemu_of_the_session.clear()
    watch = request.node.stash[WATCH] = Watch(_cmemu_of_the_session, _folder(request.config))
    yield _cmemu_of_the_session
    try:
        watch.keep()
    finally:
        _cmemu_of_the_session.clear()


@pytest.fixture
def cmemu_runtime(cmemu: Emulator) -> RuntimeHandle:
    """Return an open runtime, `test`, bound to the app `ri.foundry.main.deployed-app.test`. No executor polls yet."""
    return cmemu.open_runtime(RUNTIME, RUNTIME_APP)


@pytest.fixture
def cmemu_launch(cmemu: Emulator) -> Callable[..., LaunchedModule]:
    """Return a function that launches a program as a module, such as `cmemu_launch("python app.py")`.

    It has the parameters of `emu.launch`, and returns when every replica polls for jobs. If that takes longer than
    `timeout` seconds (30), it raises `LaunchFailed`. The replicas are stopped after the test. The report of a failed
    test shows the last 200 lines of the program's output.
    """

    def launch(command: Any, runtime: Any = None, *, timeout: float = 30.0, **options: Any) -> LaunchedModule:
        return cmemu.launch(command, runtime, **options).wait_until_responsive(timeout)

    return launch


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the sections about the emulator to the report of a failed test, setup or teardown."""
    report = yield
    watch = item.stash.get(WATCH, None)
    if watch is not None and report.failed:
        report.sections.extend(watch.sections(item.nodeid, call.when))
    if watch is not None and call.when == "teardown":
        del item.stash[WATCH]
    return report


def _folder(config: pytest.Config) -> Path | None:
    """Return the folder to export to: the command line's, relative to its directory, or else the configured one."""
    given = config.getoption(OPTION)
    if given is None:
        configured = config.getini(OPTION)
        return config.rootpath / configured if configured else None
    return Path(config.invocation_params.dir, given) if given else None
