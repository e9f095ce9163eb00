"""The datasets of an emulator: `emu.datasets`, and each of them as an object."""

# ruff: noqa: PLC0415 - what reads and writes tables, such as pyarrow and pandas, is imported when it is used

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from cmemu_nb.display.html import card, mimebundle, table, two_lines
from cmemu_nb.display.text import MISSING, when
from cmemu_nb.errors import CmemuError, InvalidRequest
from cmemu_nb.foundry.summaries import committed_rid, dataset_schema, dataset_summary, histories
from cmemu_nb.lifecycle.datasets import MASTER, TransactionType, dataset_not_found
from cmemu_nb.phrases import plural, quoted

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from cmemu_nb.engine.engine import Engine
    from cmemu_nb.foundry.dataset_writes import Content
    from cmemu_nb.lifecycle.datasets import DatasetHistory
    from cmemu_nb.lifecycle.lifecycle import Lifecycle


class Datasets(MutableMapping[str, "DatasetHandle"]):
    """The datasets by name, or by RID. They are in memory, at most `max_data_bytes` of them.

    Assigning data creates a dataset, or replaces all files of one in a `SNAPSHOT` transaction: a DataFrame, an Arrow
    table, a list of dicts, or the path of a CSV, Parquet or Avro file. `create(name)` makes an empty one, for a module
    to write into.

    >>> import pandas as pd
    >>> emu.datasets["in"] = pd.DataFrame({"id": [1, 2], "name": ["one", None]})
    >>> emu.datasets["in"].schema
    {'id': 'LONG', 'name': 'STRING'}
    >>> emu.datasets["in"].frame()["name"].to_list()
    ['one', nan]
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._state = engine.lifecycle

    def __getitem__(self, name: str) -> DatasetHandle:
        history = self._state.find_dataset(name)
        if history is None:
            raise dataset_not_found(name, self)
        return DatasetHandle(self._engine, history.dataset.rid)

    def __setitem__(self, name: str, data: object) -> None:
        from cmemu_nb.foundry.dataset_writes import content_of

        content = content_of(data)

        def change(lifecycle: Lifecycle) -> None:
            history = lifecycle.find_dataset(name)
            found = history or lifecycle.dataset(lifecycle.create_dataset(name).rid)
            try:
                _replace(self._engine, found, MASTER, content)
            except CmemuError:
                if history is None:
                    lifecycle.delete_dataset(found.dataset.rid)
                raise

        self._engine.change(change, content.body)

    def __delitem__(self, name: str) -> None:
        rid = self[name].rid
        self._engine.change(lambda lifecycle: lifecycle.delete_dataset(rid))

    def __iter__(self) -> Iterator[str]:
        return (dataset.name for dataset in self._state.datasets())

    def __len__(self) -> int:
        return len(self._state.datasets())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._state.find_dataset(name) is not None

    def create(self, name: str, rid: str | None = None) -> DatasetHandle:
        """Create an empty dataset without a schema, and return it. Raises an error if the name or the RID is in use.

        The `rid` is a new one by default; that of a dataset on the platform lets a program with this RID in its source
        run unchanged.

        >>> emu.datasets.create("out").files.empty
        True
        """
        created = self._engine.change(lambda lifecycle: lifecycle.create_dataset(name, rid=rid))
        return DatasetHandle(self._engine, created.rid)

    @property
    def overview(self) -> pd.DataFrame:
        """The datasets as a DataFrame, indexed by name: what they consist of, without reading them.

        >>> emu.datasets["names"] = [{"name": "Ada"}, {"name": "Grace"}]
        >>> emu.datasets.overview.loc["names", "schema"], int(emu.datasets.overview.loc["names", "rows"])
        ('name STRING', 2)
        """
        from cmemu_nb.display.frames import datasets_frame

        return datasets_frame([dataset_summary(each) for each in histories(self._state)])

    def __repr__(self) -> str:
        if not self:
            return f"<Datasets: none. Try: {self._engine.name}.datasets['in'] = a DataFrame>"
        return "\n".join(map(repr, self.values()))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        rows = [_row(dataset_summary(each)) for each in histories(self._state)]
        hint = f"No datasets. `{self._engine.name}.datasets['in'] = a DataFrame` makes one."
        return mimebundle(repr(self), table(plural(len(rows), "dataset"), _COLUMNS, rows, hint, compact=True))


_COLUMNS = ("name", "schema", "rows", "files", "bytes", "branches", "transactions", "open", "RID")


def _row(summary: dict[str, Any]) -> dict[str, object]:
    counts = {"branches": len(summary["branches"]), "open": len(summary["open_transactions"])}
    return {**summary, **counts, "schema": two_lines(summary["schema"] or MISSING), "RID": summary["rid"]}


class DatasetHandle:
    """A dataset, by its `rid`. It always shows the current state; `frame()` reads it."""

    def __init__(self, engine: Engine, rid: str) -> None:
        self._engine = engine
        self.rid = rid

    @property
    def history(self) -> DatasetHistory:
        """The records of the dataset; an error that lists the known datasets after its deletion."""
        return self._engine.lifecycle.dataset(self.rid)

    @property
    def name(self) -> str:
        """The name of the dataset."""
        return self.history.dataset.name

    @property
    def branches(self) -> list[str]:
        """The names of its branches."""
        return list(self.history.branches)

    @property
    def schema(self) -> dict[str, str]:
        """The columns on the branch `master` with their types in Foundry; empty without a schema.

        >>> emu.datasets["prices"] = [{"price": 2.5, "tags": ["new"]}]
        >>> emu.datasets["prices"].schema
        {'price': 'DOUBLE', 'tags': 'ARRAY<STRING>'}
        """
        return dataset_schema(self.history, committed_rid(self.history))

    @property
    def files(self) -> pd.DataFrame:
        """The files of the newest view of the branch `master`, indexed by path."""
        from cmemu_nb.display.frames import files_frame

        return files_frame(list(self._view(MASTER).values()))

    @property
    def transactions(self) -> pd.DataFrame:
        """The transactions of all branches in the order in which they were opened, indexed by RID."""
        from cmemu_nb.display.frames import transactions_frame

        return transactions_frame(list(self.history.transactions.values()))

    def frame(self, branch: str = MASTER) -> pd.DataFrame:
        """Return the committed files of a branch as one DataFrame: Parquet, CSV and Avro.

        Integers and booleans with nulls have pandas' nullable types, decimals and dates are those of Python, nested
        values are lists, dicts, and lists of pairs for maps. Without a schema the types are those of the files.
        """
        from cmemu_nb.foundry.tables import frame_of, reading

        with reading(self.rid, f"The dataset {quoted(self.name)}"):
            return frame_of(self.table(branch))

    def table(self, branch: str = MASTER) -> pa.Table:
        """Return the same as an Arrow table."""
        from cmemu_nb.foundry.tables import read_table

        return read_table(self.rid, self._view(branch).values(), self._schema(branch))

    def write(self, data: object, branch: str = MASTER) -> None:
        """Replace all files of a branch by this data, in a `SNAPSHOT`, as assigning to `emu.datasets[name]` does."""
        from cmemu_nb.foundry.dataset_writes import content_of

        content = content_of(data)
        self._engine.change(lambda _: _replace(self._engine, self.history, branch, content), content.body)

    def append(self, data: object, branch: str = MASTER) -> None:
        """Add rows to a branch, in an `APPEND` transaction; its columns keep their types, and new ones are added."""
        from cmemu_nb.foundry.dataset_writes import content_to_append, write

        content, append = content_to_append(data, self.history, branch), TransactionType.APPEND
        self._engine.change(lambda lifecycle: write(lifecycle, self.history, append, branch, content), content.body)

    def abort(self, branch: str = MASTER) -> None:
        """Abort the open transaction of a branch, which a module has left open for instance."""
        opened = [each.rid for each in self.history.open_transactions() if each.branch == branch]
        if not opened:
            raise InvalidRequest(f"The branch {quoted(branch)} of the dataset {self.name!r} has no open transaction.")
        self._engine.change(lambda lifecycle: lifecycle.abort_transaction(self.rid, opened[0]))

    def _view(self, branch: str) -> dict[str, Any]:
        history = self.history
        return history.view(history.branch(branch).committed_rid)

    def _schema(self, branch: str) -> Any:
        history = self.history
        return history.schema(history.branch(branch).committed_rid)

    def __repr__(self) -> str:
        if self._engine.lifecycle.find_dataset(self.rid) is None:
            return f"<Dataset {self.rid}: deleted>"
        shown = dataset_summary(self.history)
        rows = "" if shown["rows"] is None else f"{plural(shown['rows'], 'row')}, "
        files = f"{plural(shown['files'], 'file')} with {plural(shown['bytes'], 'byte')}"
        size = f"{rows}{plural(shown['columns'], 'column')}, {files}"
        opened = f", {len(shown['open_transactions'])} open" if shown["open_transactions"] else ""
        transactions = f"{plural(shown['transactions'], 'transaction')}{opened}"
        return f"<Dataset {shown['name']!r}: {size}, {transactions}; {self.rid}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        if self._engine.lifecycle.find_dataset(self.rid) is None:
            return mimebundle(repr(self), card("Dataset", {"RID": self.rid, "state": "deleted"}))
        shown = dataset_summary(self.history)
        facts = {
            "schema": shown["schema"] or "none",
            "rows": MISSING if shown["rows"] is None else f"{shown['rows']:,}",
            "files": f"{shown['files']:,} with {plural(shown['bytes'], 'byte')}",
            "branches": ", ".join(shown["branches"]),
            "transactions": f"{shown['transactions']:,}",
            "open transactions": ", ".join(shown["open_transactions"]) or "none",
            "created": when(self.history.dataset.created_at),
            "committed": when(shown["committed_at"]),
            "RID": self.rid,
        }
        hint = f"`{self._engine.name}.datasets[{self.name!r}].frame()` is the data."
        return mimebundle(repr(self), card(f"Dataset {shown['name']}", facts, hint=hint))


def _replace(engine: Engine, history: DatasetHistory, branch: str, content: Content) -> None:
    """Replace the files of a branch by one, on the event loop. Its table is kept, so that nobody has to decode it."""
    from cmemu_nb.foundry.dataset_writes import write

    write(engine.lifecycle, history, TransactionType.SNAPSHOT, branch, content)
    end = history.branch(branch).committed_rid
    schema = history.schema(end)
    if content.table is not None and schema is not None:
        engine.application.context.tables.keep(history.dataset.rid, history.view(end), schema, content.table)
