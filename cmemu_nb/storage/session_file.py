"""The exported session: everything that an emulator holds as a JSON file, to be inspected later and elsewhere.

Of tokens it contains only the last four characters. Times are Unix nanoseconds. Queries and results are text, or
base64 if they are not UTF-8.
"""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import asdict, replace

from cmemu_nb.errors import SessionFileError
from cmemu_nb.lifecycle.events import Event
from cmemu_nb.lifecycle.records import DeployedApp, FunctionSchema, Job, Runtime
from cmemu_nb.lifecycle.snapshot import SavedSession, SavedState
from cmemu_nb.storage import owner_only
from cmemu_nb.storage.session_check import MAX_INTEGER, check_record, check_unique
from cmemu_nb.storage.session_data import (
    DEFAULT_EXPORT_BYTES,
    DataParts,
    dataset_parts,
    file_pieces,
    record_parts,
    saved_data,
    stream_parts,
    with_data,
)
from cmemu_nb.tokens import last_four
from cmemu_nb.wire.labels import shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cmemu_nb.lifecycle.lifecycle import Lifecycle

FORMAT = "cmemu_nb session"
VERSION = 1
T = TypeVar("T", bound=msgspec.Struct)
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
Time = Count
MAX_REASON = 500
BODIES = ("query", "result", "schema_payload")


class Contents(msgspec.Struct, frozen=True):
    """The content of one session: `state`, `events` with the quiet ones, `logs` by job id, and the time of the export.

    `steady_at` is the same time on the steady clock, for the durations of unfinished jobs. `left_out` names the
    datasets and streams for which there was no room.
    """

    url: str
    exported_at: int
    steady_at: int
    state: SavedState
    events: list[Event]
    logs: dict[str, str]
    left_out: list[str] = []

    @property
    def port(self) -> int:
        """The port of the emulator; 0 if its URL has none."""
        try:
            return urlsplit(self.url).port or 0
        except ValueError:
            return 0


def expanded(path: str | Path) -> Path:
    """Return a path with `~` replaced. Raises `SessionFileError` for a value that can't be a path."""
    try:
        return Path(path).expanduser()
    except (RuntimeError, TypeError) as error:
        raise SessionFileError(f"{path!r} can't be a path: {error}. Choose another one.") from None


def contents(state: Lifecycle, url: str, now: int, steady: int, max_data_bytes: int = DEFAULT_EXPORT_BYTES) -> Contents:
    """Return a snapshot of everything, with at most `max_data_bytes` of datasets and data streams.

    Call it on the thread that changes the lifecycle, so that it is consistent.
    """
    sessions = [
        SavedSession(runtime, state.schemas(runtime.runtime_id), [], state.count_evicted(runtime.runtime_id))
        for runtime in state.runtimes()
    ]
    jobs = sorted(state.jobs(), key=lambda job: job.sequence)
    datasets, streams, subscribers, left_out = saved_data(state, max_data_bytes)
    saved = SavedState(sessions, state.deployed_apps(), jobs, datasets, streams, subscribers)
    return Contents(url, now, steady, saved, state.events.recent(all=True), state.logs(), left_out)


def write(path: Path, taken: Contents, *, overwrite: bool) -> None:
    """Write a session to a file that only its owner can read. Raises `SessionFileError` if it can't be written."""
    with replacing(path, overwrite=overwrite) as file:
        file.writelines(pieces(taken))


@contextlib.contextmanager
def replacing(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Open a file that gets its path when it is completely written; after an error nothing of it is left."""
    if path.is_dir():
        raise SessionFileError(f"{path} is a directory. Give a file's name, such as {path / 'run.json'}.")
    with owner_only.replacing(path, SessionFileError, overwrite=overwrite) as file:
        yield file


def pieces(taken: Contents) -> Iterator[bytes]:
    """Yield a session as JSON text in pieces, because it may be large. Each record is on a line of its own."""
    state = taken.state
    head = {"format": FORMAT, "version": VERSION, "url": taken.url, "exported_at": taken.exported_at}
    head |= {"steady_at": taken.steady_at}
    yield msgspec.json.encode(head)[:-1]
    yield from _array("runtimes", map(_session, state.sessions))
    yield from _array("deployed_apps", map(_fields, state.apps))
    yield from _array("jobs", map(_fields, state.jobs))
    yield from _array("events", map(_fields, taken.events))
    yield from _data_pieces(taken)
    before = b',\n"logs":{'
    for job_id, log in taken.logs.items():
        yield before + msgspec.json.encode(job_id) + b":" + msgspec.json.encode(_text(log))
        before = b","
    yield b"}}\n" if before == b"," else before + b"}}\n"


def _data_pieces(taken: Contents) -> Iterator[bytes]:
    state = taken.state
    yield from _array("datasets", dataset_parts(state.datasets))
    yield b',\n"files":['
    before = b"\n"
    for piece in file_pieces(state.datasets):
        yield before + piece if piece.startswith(b"{") else piece
        before = b",\n"
    yield b"]"
    yield from _array("streams", stream_parts(state.streams))
    yield from _array("records", record_parts(state.streams))
    yield from _array("subscribers", state.subscribers)
    yield from _array("left_out", taken.left_out)


def _array(name: str, records: Iterable[object]) -> Iterator[bytes]:
    before = f',\n"{name}":['.encode()
    for record in records:
        yield before + b"\n" + msgspec.json.encode(record)
        before = b","
    yield b"]" if before == b"," else before + b"]"


def _session(session: SavedSession) -> dict[str, Any]:
    runtime = replace(session.runtime, module_auth_token=last_four(session.runtime.module_auth_token))
    return {
        **_fields(runtime),
        "evicted": session.evicted,
        "schemas": [_fields(schema) for schema in session.schemas],
    }


def _fields(record: msgspec.Struct) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in asdict(record).items():
        if isinstance(value, bytes):
            try:
                fields[name] = value.decode()
            except UnicodeDecodeError:
                fields[f"{name}_base64"] = base64.b64encode(value).decode()
        else:
            fields[name] = _text(value) if isinstance(value, str) else value
    return fields


def _text(value: str) -> str:
    # msgspec can't write lone surrogates, which programs may have printed.
    return value.encode(errors="replace").decode()


def read(path: Path) -> Contents:
    """Read a session. Raises `SessionFileError`, which says what is wrong with the file."""
    try:
        document = _decoded(path.read_bytes())
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise SessionFileError(f"{path} is not an exported session. The emulator's export('run.json') writes one.")
        with _at(""):
            version = msgspec.convert(document, _Version).version
        if version > VERSION:
            newer = f"its version is {version}, this one knows {VERSION}"
            raise SessionFileError(f"{path} was written by a newer cmemu_nb ({newer}). Upgrade cmemu_nb.")
        return _read(document)
    except OSError as error:
        raise SessionFileError(f"{path} can't be read: {error.strerror}. Check the path.") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        reason = shortened(str(error).replace("`", "'"), MAX_REASON)
        raise SessionFileError(f"{path} is damaged: {reason}. Export it again.") from None


def _decoded(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        text.decode()  # its error names the byte
        raise


class _Version(msgspec.Struct):
    version: Count


class _Session(msgspec.Struct):
    schemas: list[dict[str, Any]]
    evicted: Count


class _Document(msgspec.Struct):
    url: str
    exported_at: Time
    runtimes: list[dict[str, Any]]
    deployed_apps: list[dict[str, Any]]
    jobs: list[dict[str, Any]]
    events: list[dict[str, Any]]
    logs: dict[str, str]
    steady_at: Time | None = None


def _read(document: dict[str, Any]) -> Contents:
    with _at(""):
        found = msgspec.convert(document, _Document)
    sessions = [_session_of(fields, f"runtimes[{number}]") for number, fields in enumerate(found.runtimes)]
    check_unique("runtimes", (each.runtime.runtime_id for each in sessions))
    apps = _records(DeployedApp, found.deployed_apps, "deployed_apps")
    check_unique("bindings of", ((each.deployed_app_rid, each.branch) for each in apps))
    jobs = _records(Job, found.jobs, "jobs")
    check_unique("jobs", (each.job_id for each in jobs))
    check_unique("jobs with the number", (each.sequence for each in jobs))
    strays = found.logs.keys() - {job.job_id for job in jobs}
    if strays:
        raise ValueError(f"at logs: it has the output of job {min(strays)!r}, but not the job")
    events = _records(Event, found.events, "events")
    steady_at = found.exported_at if found.steady_at is None else found.steady_at
    with _at(""):
        parts = msgspec.convert(document, DataParts)
        state = with_data(SavedState(sessions, apps, jobs), parts)
    return Contents(found.url, found.exported_at, steady_at, state, events, found.logs, parts.left_out)


def _session_of(fields: dict[str, Any], where: str) -> SavedSession:
    runtime = _record(Runtime, fields, where)
    with _at(where):
        parts = msgspec.convert(fields, _Session)
    schemas = _records(FunctionSchema, parts.schemas, f"{where}.schemas")
    with _at(where):
        check_unique("schemas of", (each.function_name for each in schemas))
        if any(each.runtime_id != runtime.runtime_id for each in schemas):
            raise ValueError("it has a schema of another runtime")
    return SavedSession(runtime, schemas, [], parts.evicted)


def _records(kind: type[T], records: list[dict[str, Any]], where: str) -> list[T]:
    return [_record(kind, fields, f"{where}[{number}]") for number, fields in enumerate(records)]


def _record(kind: type[T], fields: dict[str, Any], where: str) -> T:
    """Make a record from its fields; bodies are text or base64."""
    with _at(where):
        given = dict(fields)
        for name in BODIES:
            if isinstance(given.get(name), str):
                given[name] = given[name].encode()
            elif f"{name}_base64" in given:
                encoded = msgspec.convert(given.pop(f"{name}_base64"), str)
                given[name] = base64.b64decode(encoded, validate=True)
        record = msgspec.convert(given, kind)
        check_record(record)
    return record


@contextlib.contextmanager
def _at(where: str) -> Iterator[None]:
    """Add the path in the document to errors."""
    try:
        yield
    except (msgspec.MsgspecError, ValueError) as error:
        what, _, inside = str(error).partition(" - at `$")
        place = f"{where}{inside.rstrip('`')}".lstrip(".")
        raise ValueError(f"at {place}: {what}" if place else what) from None
