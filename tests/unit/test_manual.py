"""The page for operators lists what there is: exit codes, metrics, log events, settings; no more, and no less."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from schemas.reconciliation import Verdict
from tests.model.rules import RULES
from tests.simulation.mutations import MUTATIONS
from worker.config.accounts import ACCOUNT_SECTIONS, AccountSection
from worker.config.sections import SECTIONS
from worker.errors import EXIT_CODES
from worker.metrics import METRICS
from worker.orders.happened import _WARNINGS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "deploy" / "OPERATIONS.md").read_text(encoding="utf-8")
CODE = re.compile(r"`([^`]+)`")
METHODS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "critical": "critical",
}
NO_FIELDS = {"sampled_by", "exc_info"}
"""Arguments that are not shown under their name."""


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of all tables below a heading, up to the next one of its level; heads and rules are left out."""
    level = heading.partition(" ")[0]
    (section,) = re.findall(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    lines = str(section).splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("| ") and before.startswith("|"):
            yield [cell.strip() for cell in line[1:-1].split("|")]


# --- what the code says ------------------------------------------------------------------------------------------------


class Said:
    """An event as the code logs it."""

    def __init__(self) -> None:
        self.levels: set[str] = set()
        self.fields: set[str] = set()


def texts(node: ast.expr, names: dict[str, set[str]]) -> set[str]:
    """What an expression may be; `names`: what was assigned to each name of its module."""
    match node:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=body, orelse=orelse):
            return texts(body, names) | texts(orelse, names)
        case ast.Name(id=name):
            return names.get(name, set())
        case _:
            return set()


def assigned(tree: ast.Module) -> dict[str, set[str]]:
    """The texts that each name of a module gets."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, set()).update(texts(node.value, {}))
    return found


def logged() -> dict[str, Said]:
    """Every event by its name."""
    said: dict[str, Said] = {}
    for path in sorted((ROOT / "worker").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = assigned(tree)
        for node in ast.walk(tree):
            for name, level, fields in _events_of(node, names, where=f"{path.name}:{getattr(node, 'lineno', 0)}"):
                event = said.setdefault(name, Said())
                event.levels.add(level)
                event.fields |= fields
    return said


def _events_of(node: ast.AST, names: dict[str, set[str]], where: str) -> Iterator[tuple[str, str, set[str]]]:
    match node:
        case ast.Call(  # lines that logs.py writes past a logger
            func=ast.Name(id="_line"),
            args=[ast.Constant(value=str(level)), ast.Constant(value=str(name)), ast.Dict(keys)],
        ):
            yield name, level, {str(key.value) for key in keys if isinstance(key, ast.Constant)}
        case _:
            pass
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return
    keywords = {keyword.arg for keyword in node.keywords if keyword.arg is not None} - NO_FIELDS
    match node.func:
        case ast.Attribute(value=ast.Name(id="log"), attr=method) if method in METHODS:
            found = texts(node.args[0], names)
            assert found, f"{where}: an event whose name this test cannot read"
            for name in found:
                yield name, METHODS[method], keywords
        case ast.Attribute(value=ast.Attribute(attr="happened" | "_happened"), attr="note" | "note_of" | "line_of"):
            for name in texts(node.args[0], names):
                for level in _levels(name):
                    yield name, level, keywords | {"order", "revision", "event_id", "partition"}
        case ast.Attribute(value=ast.Attribute(attr="notes" | "_notes"), attr="append"):
            (note,) = node.args  # what is not written out here was made by `note_of` or `line_of`
            for name in texts(note.elts[0], names) if isinstance(note, ast.Tuple) else ():
                for level in _levels(name):
                    yield name, level, {"partition"}
        case _:
            pass


def _levels(name: str) -> list[str]:
    """Of a note: of one, `status` decides."""
    return ["info", "warning"] if name == "order_waiting" else ["warning" if name in _WARNINGS else "info"]


LOGGED = logged()


# --- and the page ------------------------------------------------------------------------------------------------------


def test_verdicts() -> None:
    """The table of `reconcile` has its verdicts, in their order, each with what it means."""
    listed = [cells[0].strip("`") for cells in rows("## 17. Reconciliation") if len(cells) == 3]
    assert listed == list(get_args(Verdict))


def test_exit_codes() -> None:
    """The table has the codes of the program, in their words."""
    listed = {int(code): meaning for code, meaning, _ in rows("## 1. Exit codes")}
    assert listed == EXIT_CODES


def test_metrics() -> None:
    """The table has every metric with type and labels, in the order of the code."""
    listed = [
        (CODE.findall(name)[0], kind, tuple(CODE.findall(labels))) for name, kind, labels, _ in rows("## 4. Metrics")
    ]
    assert listed == [(metric.name, metric.type, metric.labels) for metric in METRICS]


def test_log_events() -> None:
    """The tables have every event that the code logs, each once, with its levels."""
    listed = [(CODE.findall(name)[0], set(levels.split(", "))) for name, levels, *_ in rows("## 5. Log events")]
    assert len(dict(listed)) == len(listed)
    assert dict(listed) == {name: said.levels for name, said in LOGGED.items()}


@pytest.mark.parametrize("name", sorted(LOGGED))
def test_fields_of_log_events(name: str) -> None:
    """What an event says is in its row."""
    (fields,) = [set(CODE.findall(row[2])) for row in rows("## 5. Log events") if CODE.findall(row[0]) == [name]]
    assert LOGGED[name].fields <= fields


def test_events_are_found() -> None:
    """The reading of the code sees each of the ways in which an event is logged."""
    assert {
        "worker_starting",
        "account_slowed",
        "order_held",
        "order_waiting",
        "event_refused",
        "log_lines_sampled",
    } <= (LOGGED.keys())
    assert LOGGED["operator_command"].levels == {"info", "warning"}
    assert LOGGED["order_parked"].levels == {"warning"}


KAFKA = {"bootstrap_servers": "x:1"}
ACCOUNTS: dict[str, dict[str, Any]] = {
    "": {"provider": "x", "base_url": "https://x.example"},
    "atarapay": {"public_key": "x", "private_key": "x"},
    "sequra": {"merchant_id": "x", "username": "x", "password": "x"},
    "qliro": {"api_key": "x", "api_secret": "x"},
}
"""What an account has to have: of every provider, and of each."""


def shown(value: object) -> str:
    """A default as the page has it."""
    if value in (None, "", [], (), {}):
        return "\N{EN DASH}"
    if isinstance(value, list) and any(" " in str(each) for each in value):
        return ", ".join(f"`{each}`" for each in value)
    if isinstance(value, list):
        return f"`{' '.join(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def told_of(heading: str) -> list[tuple[str, str]]:
    """Name and default of each setting in a table of the page."""
    return [(CODE.findall(name)[0], default) for name, default, _ in rows(heading)]


def settings_of(section: type[BaseModel], needed: dict[str, Any], given: dict[str, Any]) -> list[tuple[str, str]]:
    """The same of the code; `needed`: those without a default, all that it takes beside what is `given`."""
    usual = section.model_validate(needed | given).model_dump(mode="json", by_alias=True)
    return [
        (name, "required" if name in needed else shown(value)) for name, value in usual.items() if name not in given
    ]


@pytest.mark.parametrize("name", SECTIONS)
def test_settings(name: str) -> None:
    """Each section has a table of all its settings and their defaults, in the order of the code."""
    assert told_of(f"### [{name}]") == settings_of(SECTIONS[name], KAFKA if name == "kafka" else {}, {})


def test_settings_of_every_account() -> None:
    """What does not depend on the provider has a table."""
    assert told_of("### [accounts.NAME]") == settings_of(AccountSection, ACCOUNTS[""], {})


@pytest.mark.parametrize("provider", ACCOUNT_SECTIONS)
def test_settings_of_accounts(provider: str) -> None:
    """So has each provider, of what only its accounts have."""
    of_all = AccountSection.model_validate(ACCOUNTS[""]).model_dump(mode="json", by_alias=True)
    expected = settings_of(ACCOUNT_SECTIONS[provider], ACCOUNTS[provider], of_all)
    assert told_of(f"### [accounts.NAME] of {provider}") == expected


def test_counts_of_the_guarantee() -> None:
    """What stands there of rules and breaks is counted, not remembered."""
    page = (ROOT / "deploy" / "GUARANTEE.md").read_text(encoding="utf-8")
    assert f"each of {len(RULES)} rules" in page
    assert f"{len(MUTATIONS)} named breaks" in page
