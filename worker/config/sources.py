"""Where settings come from: a TOML file < environment variables < secret files. Each remembers its name there."""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.errors import ConfigError

SettingPath = tuple[str, ...]
"""The path of a setting: `("worker", "lease")`, `("accounts", "acme", "password")`."""
Tree = dict[str, Any]
Wanted = Callable[[SettingPath], bool]
"""Whether the reader uses a setting."""

DEFAULT_FILE = "cartsync.toml"
PREFIX = "CARTSYNC_"
_NOT_SETTINGS = frozenset({"CARTSYNC_CONFIG", "CARTSYNC_SECRETS_DIR"})
_EXAMPLE = "CARTSYNC_WORKER__LEASE"
SECRETS = ("password", "token", "secret", "secrets", "public_key", "private_key")
"""Suffixes of the names of secrets; each may be in a file instead: `password_file`."""
_FILES = tuple(f"{name}_file" for name in SECRETS)
_VARIABLE = re.compile(r"[A-Z0-9_]+", re.ASCII)
_SECRET_MAX_BYTES = 65_536
_UNREADABLE = "unreadable"
"""Replaces a secret that could not be read, so that it is not also reported as missing."""


class Layer:
    """Settings from one source, and the name of each in that source."""

    def __init__(self, label: str = "", tree: Tree | None = None) -> None:
        self.tree: Tree = tree or {}
        self.origins: dict[SettingPath, str] = {}
        self.problems: list[str] = []
        for path, value in walk(self.tree) if label else ():
            name = f"[{'.'.join(path)}]" if isinstance(value, dict) else setting_name(path)
            self.origins[path] = f"{label}: {name}"

    def put(self, path: SettingPath, value: str, origin: str) -> None:
        """Sets one value and creates its tables. A value in place of a table is a problem."""
        table = self.tree
        for step, part in enumerate(path[:-1]):
            inner = table.setdefault(part, {})
            if not isinstance(inner, dict):
                self.problems.append(f"{origin}: {setting_name(path[: step + 1])} is also set, and is not a table")
                return
            table = inner
        table[path[-1]] = value
        self.origins[path] = origin

    def pop_file_settings(self, folder: Path, wanted: Wanted) -> dict[SettingPath, tuple[Path, str]]:
        """Removes `…password_file` and similar settings; returns for each secret its file, and where that was set.

        Relative paths are relative to `folder`.
        """
        files = {}
        for path, value in list(walk(self.tree)):
            if path[-1].endswith(_FILES) and isinstance(value, str):
                table = self.tree
                for part in path[:-1]:
                    table = table[part]
                del table[path[-1]]
                target, origin = path[-1].removesuffix("_file"), self.origins.pop(path)
                if not wanted((*path[:-1], target)):
                    continue
                files[(*path[:-1], target)] = (folder / value, origin)
                if target in table:
                    self.problems.append(f"{origin}: {target} is also set; keep one of the two")
        return files


def _all(_path: SettingPath) -> bool:
    return True


def read_layers(file: Path | None, environ: Mapping[str, str], wanted: Wanted = _all) -> list[Layer]:
    """File, environment, secret files: later ones take precedence. Secret files of settings that are not `wanted` are
    not read.

    Raises `ConfigError` if a file or folder cannot be read at all; other problems are stored in the layers.
    """
    from_file = Layer() if file is None else Layer(str(file), _read_toml(file))
    accounts = from_file.tree.get("accounts")
    names = list(accounts) if isinstance(accounts, dict) else []
    from_environ = _from_variables(environ, names)
    folder = Path() if file is None else file.parent
    files = from_file.pop_file_settings(folder, wanted) | from_environ.pop_file_settings(Path(), wanted)
    return [from_file, from_environ, _from_secrets(files, environ.get("CARTSYNC_SECRETS_DIR", ""), names, wanted)]


def find_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The configuration file: `path`, else `CARTSYNC_CONFIG`, else `./cartsync.toml` if it exists."""
    named = environ.get("CARTSYNC_CONFIG")
    if path is not None or named:
        return path or Path(str(named))
    return Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None


def _read_toml(file: Path) -> Tree:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML: {error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}; name another with --config") from None


_SERVICE_LINK = re.compile(r"(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$", re.ASCII)


def _is_service_link(variable: str, value: str) -> bool:
    """Kubernetes sets such variables in each pod for every service; a service `cartsync…` gets some like settings."""
    return "__" not in variable and ("://" in value or _SERVICE_LINK.search(variable) is not None)


def _from_variables(environ: Mapping[str, str], accounts: Sequence[str]) -> Layer:
    layer = Layer()
    for variable in sorted(name for name in environ if name.startswith(PREFIX) and name not in _NOT_SETTINGS):
        value = environ[variable]
        if not value or _is_service_link(variable, value):
            continue
        if "__" in variable:
            layer.put(_path_of(variable, accounts), value, variable)
        else:
            layer.problems.append(
                f"{variable}: not a setting; settings are called {PREFIX}SECTION__NAME, such as {_EXAMPLE}"
            )
    return layer


def _path_of(variable: str, accounts: Sequence[str]) -> SettingPath:
    """`CARTSYNC_ACCOUNTS__MY_SHOP__PASSWORD` → accounts, my-shop, password, if the file has an account `my-shop`."""
    section, *rest = variable.removeprefix(PREFIX).lower().split("__")
    if section == "accounts" and rest:
        written = {_spelt(name): name for name in accounts}
        rest[0] = written.get(rest[0], rest[0])
    return (section, *rest)


def _spelt(name: str) -> str:
    """An account's name as variables spell it, in lower case."""
    return name.lower().replace("-", "_").replace(".", "_")


def variable_of(path: SettingPath) -> str:
    """The environment variable of a setting; empty if that would not be a valid variable name."""
    name = PREFIX + "__".join(_spelt(part).upper() for part in path)
    return name if _VARIABLE.fullmatch(name) else ""


def _from_secrets(
    files: Mapping[SettingPath, tuple[Path, str]], folder: str, accounts: Sequence[str], wanted: Wanted
) -> Layer:
    layer = Layer()
    named = dict(files)
    for file in _files_in(folder):
        path = _path_of(file.name.upper(), accounts)
        if wanted(path):
            named.setdefault(path, (file, str(file)))
    for path, (file, origin) in named.items():
        try:
            layer.put(path, read_secret(file), origin)
        except ConfigError as error:
            layer.problems.append(str(error) if origin == str(file) else f"{origin}: {error}")
            layer.put(path, _UNREADABLE, origin)
    return layer


def _files_in(folder: str) -> list[Path]:
    """The files named like variables; a folder mounted by Kubernetes also contains links of its own."""
    if not folder:
        return []
    try:
        return sorted(file for file in Path(folder).iterdir() if file.name.upper().startswith(PREFIX))
    except OSError as error:
        raise ConfigError(f"CARTSYNC_SECRETS_DIR: {folder}: cannot be read: {error.strerror}") from None


def read_secret(file: Path) -> str:
    """A file's content, without the newline that editors append. Raises `ConfigError`."""
    try:
        with file.open("rb") as stream:
            content = stream.read(_SECRET_MAX_BYTES + 1)
        if len(content) > _SECRET_MAX_BYTES:
            raise ConfigError(f"{file}: larger than {_SECRET_MAX_BYTES} bytes: not a secret file")
        return content.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8") from None


def walk(tree: Mapping[str, Any], above: SettingPath = ()) -> Iterator[tuple[SettingPath, Any]]:
    """Every table and value with its path, outer tables first."""
    for name, value in tree.items():
        yield (*above, name), value
        if isinstance(value, dict):
            yield from walk(value, (*above, name))


def setting_name(path: SettingPath) -> str:
    """A setting's name in the file: `[worker] lease`."""
    return f"[{path[0]}]" if len(path) == 1 else f"[{'.'.join(path[:-1])}] {path[-1]}"
