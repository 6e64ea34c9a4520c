"""A new status of an order: what depends on it reads its row, and what cannot is asked for it here."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from msgspec.structs import fields

from schemas.console import IndexView
from schemas.events import PaymentState
from schemas.state import OrderHeader
from schemas.views import STATUS_RULES, NotReady, PartitionView, Status, Waiting
from worker import metrics
from worker.core.order import Assessment
from worker.core.outbox import Outbox
from worker.core.plan import wait_of
from worker.core.policy import DeliveryPolicy
from worker.core.view import why_not_ready
from worker.web.console.overview import Counted, make_overview

ROOT = Path(__file__).resolve().parents[3]
STATUSES: tuple[Status, ...] = get_args(Status)
FIGURES: Any = get_args(get_type_hints(Outbox.figures)["return"])[1]
"""What an outbox counts with."""
COUNTED = {name for name in STATUSES if STATUS_RULES[name].is_counted}


# --- what workers count --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("struct", [FIGURES, Waiting, PartitionView])
def test_members_that_count(struct: type) -> None:
    """One for each status that workers count, and none for the others."""
    assert {one.name for one in fields(struct) if one.name in STATUSES} == COUNTED


@pytest.mark.parametrize("name", sorted(COUNTED))
def test_orders_are_counted(name: Status) -> None:
    """By the reason for which they wait; for none, they are owed."""
    outbox = Outbox(lambda _subject: b"", {}, DeliveryPolicy())
    outbox.committed("acme/1", OrderHeader(revision=1), now=0.0, now_ms=0)
    outbox._entries["acme/1"].waiting = "" if name == "owed" else name
    count = FIGURES()
    count.add(outbox.figures({"acme"}, 0.0)["acme"])
    assert {one: getattr(count, one) for one in COUNTED} == {one: int(one == name) for one in COUNTED}


def test_gauges() -> None:
    """Each count is shown."""
    shown = {*metrics._ACCOUNT_GAUGES.values(), *metrics._PARTITION_GAUGES.values()}
    assert shown >= COUNTED


# --- what people are told ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STATUSES)
def test_what_needs_a_person(name: Status) -> None:
    """The overview asks for one because of an order's status alone, or it does not."""
    counted = Counted(["acme"], {"acme": {name: (1, 0)}}, {}, {}, {}, {}, [], [], 0)
    found = make_overview(counted, (), {"acme": "sequra"}, None, IndexView("following", 0, 0, "", 0, 0, 1), 0)
    assert bool(found.needs_person) == STATUS_RULES[name].needs_person


def test_states_of_the_payment() -> None:
    """An order waits for its payment in each state but the one in which it may be paid."""
    assert {name for name in STATUSES if STATUS_RULES[name].is_of_payment} == {*get_args(PaymentState)} - {"approved"}


@pytest.mark.parametrize("page", ["worker/core/DOMAIN.md", "schemas/SCENARIOS.md", "deploy/OPERATIONS.md"])
def test_pages_name_every_status(page: str) -> None:
    """The definition, how scenarios expect it, and what an operator does about it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [name for name in STATUSES if f"`{name}`" not in text and STATUS_RULES[name].in_overview] == []


# --- what an assessment says ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", get_args(NotReady))
@pytest.mark.parametrize("reasons", [[], ["why"]])
def test_what_is_not_ready_has_a_reason(state: NotReady, reasons: list[str]) -> None:
    """Whatever an assessment says beside its state, somebody reads why the order waits, and all that it says."""
    told = why_not_ready(state, reasons, state)
    assert told
    assert all(reason in told for reason in reasons)
    assert (STATUS_RULES[state].meaning in told) == (STATUS_RULES[state].is_of_payment or not reasons)


@pytest.mark.parametrize("state", get_args(NotReady))
def test_what_counts_as_a_contradiction(state: NotReady) -> None:
    """The reasons of the states whose rows say so: these alone are announced as contradictions, and grow old."""
    assessment = Assessment(state, ["why"])
    assert assessment.contradictions == (["why"] if STATUS_RULES[state].has_contradictions else [])
    assert wait_of(assessment).contradicts is STATUS_RULES[state].has_contradictions
    assert not wait_of(Assessment(state, [])).contradicts


def test_ready_order_has_no_contradictions() -> None:
    """It has no row among the statuses."""
    assert Assessment("ready", []).contradictions == []


# --- nothing else lists them ---------------------------------------------------------------------------------------


def lists(text: str) -> Iterator[str]:
    """Where a module spells more than three statuses in one literal."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            elements = node.elts
        elif isinstance(node, ast.Dict):
            elements = [key for key in node.keys if key is not None]
        else:
            continue
        values = [one.value for one in elements if isinstance(one, ast.Constant)]
        named = [name for name in STATUSES if name in values]
        if len(named) > 3:
            yield f"{node.lineno}: {', '.join(named)}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('NAMES = ["owed", "parked", "settled", "refused"]', ["1: refused, parked, owed, settled"]),
        ('X = {"owed": 1, "parked": 2, "settled": 3, "refused": 4}', ["1: refused, parked, owed, settled"]),
        ('status: Literal["owed", "parked", "settled", "refused"]', ["1: refused, parked, owed, settled"]),
        ('status: Literal["owed", "parked", "settled"]', []),
    ],
)
def test_list_is_found(text: str, found: list[str]) -> None:
    """Each way of spelling them."""
    assert list(lists(text)) == found


def test_nothing_lists_them_again() -> None:
    """A list of statuses is made from the table, in modules and in the templates of pages."""
    modules = [*ROOT.glob("schemas/*.py"), *ROOT.glob("worker/**/*.py")]
    found = [
        f"{file.relative_to(ROOT)}:{where}"
        for file in modules
        if file != ROOT / "schemas" / "views.py"
        for where in lists(file.read_text(encoding="utf-8"))
    ]
    for page in ROOT.glob("worker/web/console/pages/*.html"):
        listed = re.findall(r"\[[^\[\]]*\]", page.read_text(encoding="utf-8"))
        found += [f"{page.name}: {one}" for one in listed if sum(f"'{name}'" in one for name in STATUSES) > 3]
    assert not found, "\n".join(found)
