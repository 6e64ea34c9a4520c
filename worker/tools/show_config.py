"""`cartsync config print`: the settings in force, and where each comes from."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from worker.config import Config

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def config_text(config: Config) -> str:
    """As TOML, with masked secrets, and the origin after each setting."""
    return "\n".join(_lines(config)) + "\n"


def _lines(config: Config) -> Iterator[str]:
    shown = config.redacted()
    accounts = shown.pop("accounts")
    tables: dict[tuple[str, ...], Any] = {(name,): table for name, table in shown.items()}
    tables |= {("accounts", name): table for name, table in accounts.items()}
    for index, (path, table) in enumerate(tables.items()):
        if index:
            yield ""
        yield f"[{'.'.join(_key(part) for part in path)}]"
        settings = [f"{_key(name)} = {_value(value)}" for name, value in table.items()]
        width = max(map(len, settings))
        for setting, name in zip(settings, table, strict=True):
            yield f"{setting:<{min(width, 60)}}  # {config.origin(*path, name)}"


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_value(each)}" for name, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    # TOML reads JSON's texts, numbers and booleans.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
