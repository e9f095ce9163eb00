"""The seed file: the sessions, bindings, tokens, data and settings with which an emulator starts, as YAML.

`docs/seed.md` describes it. Invalid content raises a `SeedError` with the line in the file, and never with a token.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cmemu_nb.errors import InvalidRequest, SeedError, SettingError, WireError
from cmemu_nb.lifecycle.configuration import KEYS
from cmemu_nb.lifecycle.snapshot import DATASET_KEYS, STREAM_KEYS, Seed, SeededApp, SeededRuntime
from cmemu_nb.lifecycle.state import DEFAULT_BRANCH
from cmemu_nb.settings import Settings, hide_tokens, make_settings
from cmemu_nb.storage.configuration_file import read_mapping
from cmemu_nb.storage.seed_yaml import Document, read_bytes
from cmemu_nb.wire.labels import checked_runtime_id
from cmemu_nb.wire.masking import Mask

if TYPE_CHECKING:
    from collections.abc import Callable

    import yaml

    from cmemu_nb.lifecycle.snapshot import SeededDataset, SeededStream
    from cmemu_nb.tokens import Token

    AsDataset = Callable[[str, object, Path], SeededDataset]
    AsStream = Callable[[str, object, Path], SeededStream]

T = TypeVar("T")

FILE_KEYS = ("foundry", "tokens", "settings")
FOUNDRY_KEYS = ("compute_modules", "datasets", "streams")
MODULE_KEYS = ("runtimes", "deployed_apps")
RUNTIME_KEYS = ("runtime_id", "module_auth_token", "configuration")
APP_KEYS = ("deployed_app_rid", "runtime_id", "branch", "display_name", "active")
TOKEN_KEYS = ("login",)
SETTINGS = tuple(sorted(Settings.class_trait_names(config=True)))
ALL_KEYS = (*FILE_KEYS, *FOUNDRY_KEYS, *MODULE_KEYS, *RUNTIME_KEYS, *APP_KEYS, *TOKEN_KEYS, *SETTINGS, *KEYS)
ALL_KEYS += (*DATASET_KEYS, *STREAM_KEYS)


def read(path: str | Path, given: dict[str, Any], as_dataset: AsDataset, as_stream: AsStream) -> Seed:
    """Read a seed file; the settings `given` override its own.

    `as_dataset` and `as_stream` make datasets and streams of their names, their plain values and the folder of the
    file. Raises `SeedError` for a file that can't be read or whose content is invalid.
    """
    hide_tokens(given)
    try:
        return _read(path, given, as_dataset, as_stream)
    except SeedError as error:
        refusal = str(error)
    # Raised here, because a traceback from inside _read can show local variables with the file's text and its tokens.
    raise SeedError(refusal)


def _read(path: str | Path, given: dict[str, Any], as_dataset: AsDataset, as_stream: AsStream) -> Seed:
    document = Document(str(path), read_bytes(path, "The seed file"), ALL_KEYS)
    if document.root is None or document.absent(document.root):
        raise SeedError(
            f"The seed file {path} is empty. Give it one of {', '.join(FILE_KEYS)}; %cmemu help seed has one."
        )
    found = Path(path).expanduser().resolve()
    return _Sections(document, found.parent, as_dataset, as_stream).seed(str(found), given)


class _Sections:
    """Reads the sections of one file."""

    def __init__(self, file: Document, folder: Path, as_dataset: AsDataset, as_stream: AsStream) -> None:
        self._file = file
        self._folder = folder
        self._as_dataset = as_dataset
        self._as_stream = as_stream
        self._names: dict[str, yaml.Node] = {}

    def seed(self, path: str, given: dict[str, Any]) -> Seed:
        sections = self._file.fields(self._file.root, "the file", FILE_KEYS)
        foundry = self._file.fields(sections.get("foundry"), "foundry", FOUNDRY_KEYS)
        modules = self._file.fields(foundry.get("compute_modules"), "compute_modules", MODULE_KEYS)
        runtimes = self._runtimes(modules.get("runtimes"))
        apps = self._apps(modules.get("deployed_apps"))
        known = {each.runtime_id for each in runtimes}
        named = dict.fromkeys(each.runtime_id for each in apps if each.runtime_id not in known)
        runtimes += [SeededRuntime(name) for name in named]
        settings = self._settings(sections.get("settings"), given)
        logins = self._logins(sections.get("tokens"))
        datasets = self._data(foundry.get("datasets"), "datasets", DATASET_KEYS, self._as_dataset)
        streams = self._data(foundry.get("streams"), "streams", STREAM_KEYS, self._as_stream)
        return Seed(path, settings, runtimes, apps, logins, datasets, streams)

    def _runtimes(self, node: yaml.Node | None) -> list[SeededRuntime]:
        runtimes: list[SeededRuntime] = []
        ids: dict[str, yaml.Node] = {}
        tokens: dict[str, yaml.Node] = {}
        for where, each in self._file.items(node, "runtimes"):
            fields = self._file.fields(each, where, RUNTIME_KEYS)
            runtime_id = self._runtime_id(each, fields, where)
            self._file.once(ids, runtime_id, each, f"{where} has the runtime_id {runtime_id!r}")
            token = None
            if "module_auth_token" in fields:
                token = self._file.token(fields["module_auth_token"], f"{where}.module_auth_token")
                self._file.once(tokens, token, each, f"{where} has the module_auth_token")
            configuration = None
            if "configuration" in fields:
                configuration = read_mapping(self._file, fields["configuration"], f"{where}.configuration")
            runtimes.append(SeededRuntime(runtime_id, token, configuration))
        return runtimes

    def _apps(self, node: yaml.Node | None) -> list[SeededApp]:
        apps: list[SeededApp] = []
        places: dict[tuple[str, str], yaml.Node] = {}
        for where, each in self._file.items(node, "deployed_apps"):
            fields = self._file.fields(each, where, APP_KEYS)
            rid = self._file.required(each, fields, where, "deployed_app_rid")
            branch = self._file.text(fields.get("branch"), f"{where}.branch") or DEFAULT_BRANCH
            self._file.once(
                places, (rid, branch), each, f"{where} has the deployed_app_rid {rid!r} on branch {branch!r}"
            )
            name = self._file.text(fields.get("display_name"), f"{where}.display_name")
            active = self._file.flag(fields.get("active"), f"{where}.active")
            apps.append(SeededApp(rid, self._runtime_id(each, fields, where), branch, name, active))
        return apps

    def _data(self, node: yaml.Node | None, what: str, keys: tuple[str, ...], make: Callable[..., T]) -> list[T]:
        made: list[T] = []
        for key, value in self._file.pairs(node, what, "names, each with its data"):
            name = self._file.text(key, f"a name of {what}") or ""
            self._file.once(self._names, name, key, f"{what} has the name {name!r}")
            where = f"{what}.{name}"
            plain = self._file.value(value, where)
            if isinstance(plain, dict):
                self._file.fields(value, where, keys)  # names an unknown key, which may be a token, as elsewhere
            try:
                made.append(make(name, plain, self._folder))
            except WireError as error:
                raise self._file.error(value.start_mark, f"{where}: {error}") from None
        return made

    def _logins(self, node: yaml.Node | None) -> dict[Token, str]:
        logins: dict[Token, str] = {}
        lines: dict[str, yaml.Node] = {}
        for key, value in self._file.pairs(node, "tokens", "bearer tokens, each with its login"):
            token = self._file.token(key, "a bearer token")
            self._file.once(lines, token, key, "tokens has the bearer token")
            where = f"tokens[{len(logins)}]"
            logins[token] = self._file.required(value, self._file.fields(value, where, TOKEN_KEYS), where, "login")
        return logins

    def _runtime_id(self, parent: yaml.Node, fields: dict[str, yaml.Node], where: str) -> str:
        try:
            return checked_runtime_id(self._file.required(parent, fields, where, "runtime_id"))
        except InvalidRequest as error:
            raise self._file.error(fields["runtime_id"].start_mark, str(error)) from None

    def _settings(self, node: yaml.Node | None, given: dict[str, Any]) -> dict[str, Any]:
        fields = self._file.fields(node, "settings", SETTINGS)
        values = {name: self._file.value(value, f"settings.{name}") for name, value in fields.items()}
        settings = {**values, **given}
        for name, value in values.items():
            if name not in given:
                self._check_setting(fields[name], name, value, settings)
        hide_tokens(settings)
        return settings

    def _check_setting(self, node: yaml.Node, name: str, value: Any, settings: dict[str, Any]) -> None:
        alone = {name: value}
        if name == "host":
            alone["allow_remote"] = bool(settings.get("allow_remote"))
        try:
            make_settings(alone)
        except SettingError as error:
            raise self._file.error(node.start_mark, f"settings.{name}: {Mask()(str(error))}") from None
