"""The datasets and streams with which an emulator starts, from `Emulator(datasets=..., streams=...)` or a seed file."""

# ruff: noqa: PLC0415 - what reads tables, such as pyarrow, and what reads YAML, is imported when it is used

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cmemu_nb.data.stream_frames import as_records, inferred_schema
from cmemu_nb.data.streams import read_records
from cmemu_nb.errors import CmemuError, InvalidRequest, SeedError
from cmemu_nb.lifecycle.data_streams import StreamOptions
from cmemu_nb.lifecycle.datasets import check_dataset_name, check_rid
from cmemu_nb.lifecycle.snapshot import DATASET_KEYS, STREAM_KEYS, Seed, SeededDataset, SeededFile, SeededStream
from cmemu_nb.phrases import abbreviated, closest, quoted
from cmemu_nb.wire.labels import checked_text
from cmemu_nb.wire.stream_schemas import parse
from cmemu_nb.wire.stream_values import RecordReader

if TYPE_CHECKING:
    from cmemu_nb.wire.stream_schemas import StreamSchema

FILE = "part-0.parquet"
"""The file of a dataset that is made of rows; a dataset of a file has that."""


def seed_of(datasets: Mapping[str, Any] | None, streams: Mapping[str, Any] | None) -> Seed:
    """Return the seed of the datasets and streams that an emulator is given by name. Raises `SeedError`."""
    both = sorted((datasets or {}).keys() & (streams or {}).keys())
    if both:
        raise SeedError(f"A dataset and a stream can't both be named {quoted(both[0])}. Rename one of them.")
    of_datasets = [_explained("datasets", seeded_dataset, *each) for each in (datasets or {}).items()]
    of_streams = [_explained("streams", seeded_stream, *each) for each in (streams or {}).items()]
    return Seed("", {}, [], [], {}, of_datasets, of_streams)


def _explained(what: str, make: Any, name: str, value: object) -> Any:
    try:
        return make(name, value, Path())
    except CmemuError as error:
        raise SeedError(f"{what}[{quoted(str(name))}]: {error}") from None


def read_seed(path: str | Path, settings: dict[str, Any]) -> Seed:
    """Read a seed file; the given settings override its own. Raises `SeedError`, which names the line."""
    from cmemu_nb.storage import seed_file

    return seed_file.read(path, settings, seeded_dataset, seeded_stream)


def seeded_dataset(name: str, value: object, folder: Path) -> SeededDataset:
    """Return a dataset that an emulator starts with: of data, of a file, or empty for None.

    A mapping has the keys `path`, relative to the folder, or `rows`, and `rid`. Raises `InvalidRequest` or `ApiError`.
    """
    check_dataset_name(checked_text("name of a dataset", name))
    options = _options(value, DATASET_KEYS, "rows")
    rows = options.get("rows")
    if "path" in options:
        rows = _path(options, folder, "rows")
    if "rid" in options:
        check_rid(options["rid"])
    return SeededDataset(name, options.get("rid"), None if rows is None else _file(rows))


def _file(rows: object) -> SeededFile:
    from cmemu_nb.foundry.dataset_writes import content_of

    content = content_of(rows)
    return SeededFile(FILE if content.table is not None else content.path, content.body, content.fields, content.reader)


def seeded_stream(name: str, value: object, folder: Path) -> SeededStream:
    """Return a stream that an emulator starts with: of records, or empty with a schema.

    A mapping has the keys `schema`, `records` or `path`, `partitions`, `keys` and `rid`; records without a schema have
    that of their values. Raises `InvalidRequest` or `ApiError`.
    """
    if not checked_text("name of a stream", name).strip():
        raise InvalidRequest("A stream needs a name that is not blank.")
    options = _options(value, STREAM_KEYS, "records")
    records = options.get("records")
    if "path" in options:
        records = _rows_of_file(_path(options, folder, "records"))
    if records is None and "schema" not in options:
        raise InvalidRequest("a stream needs a schema, records, or both.")
    rows = [] if records is None else as_records(records)
    schema = _schema(options, records, rows)
    if "rid" in options:
        check_rid(options["rid"])
    return SeededStream(
        name, options.get("rid"), schema, _partitions(options), read_records(RecordReader(schema), rows)
    )


def _schema(options: Mapping[str, Any], records: object, rows: list[Any]) -> StreamSchema:
    keys = options.get("keys", [])
    if not isinstance(keys, list | tuple) or not all(isinstance(each, str) for each in keys):
        raise InvalidRequest(f"keys must be a list of names of fields, not {abbreviated(keys)}.")
    if "schema" in options:
        return parse(options["schema"], tuple(keys))
    inferred = inferred_schema(records, rows)
    with_keys = msgspec.structs.replace(inferred, key_field_names=tuple(keys) or None)
    return parse(msgspec.to_builtins(with_keys))


def _partitions(options: Mapping[str, Any]) -> StreamOptions:
    partitions = options.get("partitions", 1)
    if not isinstance(partitions, int) or isinstance(partitions, bool):
        raise InvalidRequest(f"partitions must be a number, not {abbreviated(partitions)}.")
    made = StreamOptions(partitions)
    made.check()
    return made


def _rows_of_file(path: Path) -> list[dict[str, Any]]:
    from cmemu_nb.foundry.tables import read_path, read_table
    from cmemu_nb.lifecycle.datasets import DatasetFile

    name, body = read_path(path)
    rows: list[dict[str, Any]] = read_table(name, [DatasetFile(name, "", 0, body)], None).to_pylist()
    return rows


def _options(value: object, keys: tuple[str, ...], data: str) -> dict[str, Any]:
    """Return the keys and values of a mapping; those that stand for other data, a path or None."""
    if value is None:
        return {}
    if isinstance(value, str | Path):
        return {"path": value}
    if not isinstance(value, Mapping):
        return {data: value}
    for key in value:
        if key not in keys:
            similar = closest(str(key), keys)
            raise InvalidRequest(f"unknown key {quoted(str(key))}.{similar} The keys are {', '.join(keys)}.")
    return {key: each for key, each in value.items() if each is not None}


def _path(options: Mapping[str, Any], folder: Path, data: str) -> Path:
    path = options["path"]
    if not isinstance(path, str | Path):
        raise InvalidRequest(f"path must be text, not {abbreviated(path)}.")
    if data in options:
        raise InvalidRequest(f"it has both a path and {data}. Give one of them.")
    return folder / Path(path).expanduser()
