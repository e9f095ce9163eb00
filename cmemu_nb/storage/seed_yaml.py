"""A small YAML document as a tree of nodes that know their lines; invalid content raises `SeedError` with the line."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cmemu_nb.errors import InvalidRequest, SeedError
from cmemu_nb.phrases import closest
from cmemu_nb.tokens import Token, can_be_sent, last_four
from cmemu_nb.wire.labels import trimmed

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_BYTES = 1_000_000
MAX_NESTING = 20
MIN_SIMILARITY = 0.75
STANDARD = "tag:yaml.org,2002:"
KINDS = {
    "str": "text",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
    "map": "a mapping",
    "seq": "a list",
    "timestamp": "a date",
}


def read_bytes(path: str | Path, what: str) -> bytes:
    """Return the content of a file; `SeedError` says that `what` can't be read or has more than `MAX_BYTES`."""
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SeedError(f"{what} {path} can't be read: {reason}. Check the path.") from None
    if len(content) > MAX_BYTES:
        raise SeedError(f"{what} {path} has more than {MAX_BYTES:,} bytes, too many for one. Use another file.")
    return content


class _Refused(yaml.YAMLError):
    """Content that YAML allows and these files do not."""

    def __init__(self, event: yaml.Event, what: str) -> None:
        super().__init__(what)
        self.mark, self.what = event.start_mark, what


class _Loader(yaml.SafeLoader):
    """Composes nodes into a tree of limited depth without aliases, so that walking through it is fast."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(event, "aliases (*name) are not allowed: write it out")
        if self.depth == MAX_NESTING:
            raise _Refused(event, "this is nested too deeply")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class Document:
    """One file and methods to read its parts; `keys` are all keys that such files can have.

    `root` is None for an empty file.
    """

    def __init__(self, name: str, content: bytes, keys: Sequence[str]) -> None:
        self._name = name
        self._keys = keys
        self._loader, self.root = self._composed(self._decoded(content))

    def _decoded(self, content: bytes) -> str:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise SeedError(f"{self._name}, line {line}: this is not UTF-8. Save the file as UTF-8.") from None

    def _composed(self, text: str) -> tuple[_Loader, yaml.Node | None]:
        try:
            loader = _Loader(text)
            return loader, loader.get_single_node()
        except _Refused as error:
            raise self.error(error.mark, error.what) from None
        except yaml.MarkedYAMLError as error:
            reason = ", ".join(filter(None, [error.context, error.problem]))
            # Quoted text of the file is removed, because it may be a token.
            reason = re.sub(r"'[^'<]{2,}'", "'…'", reason)
            raise self.error(error.problem_mark, f"this is not YAML ({reason})") from None
        except (yaml.YAMLError, ValueError, OverflowError):  # the last two: an escape beyond Unicode
            raise self.error(None, "this is not YAML: it has characters that YAML does not allow") from None

    def pairs(self, node: yaml.Node | None, where: str, what: str) -> list[tuple[yaml.Node, yaml.Node]]:
        """Return the keys and values of a mapping; none if it is absent."""
        if node is None or self.absent(node):
            return []
        if _kind(node) != "map":
            raise self.error(node.start_mark, f"{where} must be a mapping of {what}, not {_called(node)}")
        pairs: list[tuple[yaml.Node, yaml.Node]] = node.value
        return pairs

    def fields(self, node: yaml.Node | None, where: str, keys: tuple[str, ...]) -> dict[str, yaml.Node]:
        """Return the values of a mapping by their keys, without null values. Other keys than these are refused."""
        found: dict[str, yaml.Node] = {}
        lines: dict[str, yaml.Node] = {}
        for key, value in self.pairs(node, where, ", ".join(keys)):
            name = key.value if _kind(key) == "str" else None
            if name not in keys:
                similar = closest(name, keys) if name is not None and self._is_similar(name) else ""
                known = f".{similar} The keys are" if similar else "; the keys are"
                raise self.error(key.start_mark, f"unknown key{self._shown(name)} in {where}{known} {', '.join(keys)}")
            self.once(lines, name, key, f"{where} has the key {name!r}")
            if not self.absent(value):
                found[name] = value
        return found

    def items(self, node: yaml.Node | None, where: str) -> list[tuple[str, yaml.Node]]:
        """Return the items of a list, each with its path, such as `runtimes[0]`."""
        if node is None:
            return []
        if _kind(node) != "seq":
            raise self.error(node.start_mark, f"{where} must be a list, each begun with '- ', not {_called(node)}")
        return [(f"{where}[{position}]", each) for position, each in enumerate(node.value)]

    def once(self, seen: dict[Any, yaml.Node], key: Any, node: yaml.Node, what: str) -> None:
        """Record the node of a key; refuse a key that was recorded before."""
        if key in seen:
            raise self.error(node.start_mark, f"{what} that line {seen[key].start_mark.line + 1} has already")
        seen[key] = node

    def required(self, parent: yaml.Node, fields: dict[str, yaml.Node], where: str, name: str) -> str:
        """Return a text that is required."""
        value = self.text(fields.get(name), f"{where}.{name}")
        if value is None:
            raise self.error(parent.start_mark, f"{where} needs a {name}")
        return value

    def text(self, node: yaml.Node | None, where: str) -> str | None:
        """Return a text without surrounding spaces; None if it is blank."""
        if node is None:
            return None
        try:
            return trimmed(where, self._exact_text(node, where))
        except InvalidRequest:  # half of a surrogate pair
            raise self.error(node.start_mark, f"{where} must be text that JSON can hold") from None

    def _exact_text(self, node: yaml.Node, where: str) -> str:
        if _kind(node) != "str":
            quotes = "; put it in quotes" if isinstance(node, yaml.ScalarNode) else ""
            raise self.error(node.start_mark, f"{where} must be text, not {_called(node)}{quotes}")
        return str(node.value)

    def token(self, node: yaml.Node, where: str) -> Token:
        """Return a token that a header can hold."""
        token = Token(self._exact_text(node, where))
        if not (token and can_be_sent(token)):
            raise self.error(
                node.start_mark,
                f"{where} can't be sent in a header: use printable ASCII, at least one character, without leading or "
                "trailing spaces",
            )
        return token

    def flag(self, node: yaml.Node | None, where: str) -> bool:
        """Return true or false; true if it is absent."""
        if node is None:
            return True
        if _kind(node) != "bool":
            raise self.error(node.start_mark, f"{where} must be true or false, not {_called(node)}")
        return bool(self.value(node, where))

    def value(self, node: yaml.Node, where: str) -> Any:
        """Return any plain value."""
        try:
            return self._loader.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, OverflowError):
            raise self.error(node.start_mark, f"{where} is not a value that is valid here") from None

    def _shown(self, key: str | None) -> str:
        """Return a key as it may be shown: completely only if it is similar to a valid key, as it may be a token."""
        return "" if key is None else f" {key if self._is_similar(key) else last_four(key)!r}"

    def _is_similar(self, key: str) -> bool:
        similar = re.fullmatch("[a-z_]+", key) and difflib.get_close_matches(key, self._keys, 1, MIN_SIMILARITY)
        return bool(similar)

    def absent(self, node: yaml.Node) -> bool:
        """Return whether a value is null, as for a key without a value."""
        return _kind(node) == "null"

    def error(self, mark: Any, what: str) -> SeedError:
        """Return an error with the name of the file and the line."""
        line = f", line {mark.line + 1}" if mark is not None else ""
        return SeedError(f"{self._name}{line}: {what}{'' if what.endswith('.') else '.'}")


def _kind(node: yaml.Node) -> str:
    return str(node.tag).removeprefix(STANDARD)


def _called(node: yaml.Node) -> str:
    return KINDS.get(_kind(node), "this")
