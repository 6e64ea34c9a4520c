"""Messages about invalid settings: where, what and what to do. Secrets are never quoted."""

import unicodedata
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, SecretStr, ValidationError

from schemas.base import ACCOUNT_MAX
from worker.config.accounts import section_for
from worker.config.sections import SECTIONS
from worker.config.sources import SECRETS, Layer, SettingPath, setting_name, variable_of, walk


def _where(path: SettingPath, origins: Mapping[SettingPath, str]) -> str:
    """Where a setting was set, or the table in which it is missing."""
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    below = (origin for known, origin in origins.items() if known[: len(path)] == path)
    return next(below, setting_name(path))


def explained(
    error: ValidationError, model: type[BaseModel], origins: Mapping[SettingPath, str], above: SettingPath = ()
) -> list[str]:
    """One line per mistake: where, the value, what is wrong, what to do."""
    problems = []
    for each in error.errors(include_url=False):
        path = above + tuple(str(part) for part in each["loc"])
        section = model
        if path[0] == "accounts" and len(path) > 2 and not above:
            section = section_for(path[2])
            path = path[:2] + path[3:]  # pydantic inserts the tag of the union
        elif not above:
            section = SECTIONS.get(path[0], model)
        section = _inner(section, path[2 if path[0] == "accounts" else 1 : -1])
        where = _where(path, origins)
        problems.append(f"{where}{_given(each, path, where)}: {_advice(each, path, section)}")
    return problems


def _inner(section: type[BaseModel], parts: SettingPath) -> type[BaseModel]:
    """The section of a nested table, as deep as `parts` name one."""
    for part in parts:
        for name, member in section.model_fields.items():
            if part in (name, member.alias):
                kinds = [member.annotation, *get_args(member.annotation)]
                section = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), section)
    return section


_HIDDEN = (*SECRETS, "username", "client_id", "extensions", "proxy", "platform", "reasons")


def _given(error: Any, path: SettingPath, where: str) -> str:
    """The value, unless it is missing, long, or possibly a secret."""
    value = error["input"]
    if error["type"] in {"missing", "extra_forbidden"} or isinstance(value, (dict, SecretStr)):
        return ""
    if any(name.endswith(_HIDDEN) for name in path) or not _may_be_shown(path, where):
        return ""
    shown = repr(value)
    return f" = {shown}" if len(shown) <= 80 and "@" not in shown else ""


def _may_be_shown(path: SettingPath, where: str) -> bool:
    """Not a value in place of a table, which may contain all its settings; for accounts, only values from a file."""
    if len(path) == 1 or path[0] == "accounts":
        return len(path) == 3 and ": [" in where
    return True


def _advice(error: Any, path: SettingPath, section: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        names = _names(section)
        near = get_close_matches(path[-1], names, 1, 0.6)
        hint = f"did you mean {near[0]}?" if near else f"known settings: {', '.join(names)}"
        return f"unknown setting {setting_name(path)}; {hint}"
    if error["type"] == "missing":
        name = f"{path[-1]}_file" if path[-1] in SECRETS else path[-1]
        variable = variable_of((*path[:-1], name))
        also = f" or {variable}" if variable else ""
        return f"{path[-1]} is missing; set {setting_name((*path[:-1], name))}{also}"
    if error["type"] in {"dict_type", "model_type"}:
        return 'should be a table: [SECTION] above its settings, or { name = "…" }'
    message = str(error["msg"]).removeprefix("Value error, ")
    return message.replace("Input should be", "should be")


def _names(section: type[BaseModel]) -> list[str]:
    """The names that a table may contain, secret files included."""
    names = [field.alias or name for name, field in section.model_fields.items()]
    return names + [f"{name}_file" for name in names if name.endswith(SECRETS)]


def provider_problems(layer: Layer, providers: Collection[str]) -> Iterator[str]:
    """One line per account with an unknown provider."""
    for path, value in walk(layer.tree):
        is_provider = len(path) == 3 and path[0] == "accounts" and path[2] == "provider"
        if is_provider and isinstance(value, str) and value and value not in providers:
            near = get_close_matches(value, providers, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"known providers: {', '.join(sorted(providers))}"
            where = _where(path, layer.origins)
            shown = f" = {value!r}" if _may_be_shown(path, where) else ""
            yield f"{where}{shown}: unknown provider; {hint}"


def account_name_problems(name: str) -> Iterator[str]:
    """One line if no event could name the account."""
    if len(name) > ACCOUNT_MAX:
        yield f"[accounts.{name[:20]}…]: an account's name must be at most {ACCOUNT_MAX} characters long"
    elif not name or "/" in name or any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
        yield (
            f"[accounts.{name!r}]: an account's name must not contain a slash or a control character: "
            "it is the part of an event's subject before the first slash"
        )
