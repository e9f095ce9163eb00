"""A runtime that an executor needs, opened only if it does not exist."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cmemu_nb.errors import NotFound, NotRunning
from cmemu_nb.lifecycle.records import app_named
from cmemu_nb.lifecycle.state import DEFAULT_BRANCH
from cmemu_nb.wire.labels import checked_runtime_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmemu_nb.engine.engine import Engine


@contextlib.contextmanager
def opened_runtime(engine: Engine, runtime_id: str) -> Iterator[str]:
    """Yield a runtime's id. A new one is opened and bound to an app of its name; both are undone if the block fails.

    An existing runtime is left as it is.
    """
    runtime_id = checked_runtime_id(runtime_id)
    if engine.lifecycle.has_runtime(runtime_id):
        yield runtime_id
        return
    rid = app_named(runtime_id)
    bound = {(app.deployed_app_rid, app.branch): app for app in engine.lifecycle.deployed_apps()}
    engine.change(lambda lifecycle: lifecycle.open_session(runtime_id, rid))
    try:
        yield runtime_id
    except BaseException:
        # Otherwise a runtime that nothing polls for would receive every call of the app, and every call that names no
        # app if the emulator has no other one.
        with contextlib.suppress(NotRunning, NotFound):
            engine.change(lambda lifecycle: lifecycle.undo_session(runtime_id, bound.get((rid, DEFAULT_BRANCH))))
        raise
