"""The members of the facts: each is in the table that says what follows from it, or with those of which nothing does."""

import ast
from pathlib import Path

import pytest

from schemas.facts import MEMBERS, NOTHING_FOLLOWS, REGISTERS, FactMap, Facts
from tests.shops.events import (
    EventSpec,
    cancelled,
    cart_updated,
    confirmed,
    delivered,
    details,
    facts_of,
    fee_charged,
    fold,
    goods,
    items_cancelled,
    log,
    observed,
    payment,
    refunded,
    retracted,
    returned,
    said,
    shipped,
    stated,
)
from worker.core.order import assess
from worker.core.reconciling import _changed_ms
from worker.core.record import _tells

ROOT = Path(__file__).resolve().parents[3]
N1 = confirmed(goods("A", 2, 200), goods("B", 1, 100))

BY_ONE: dict[str, list[EventSpec]] = {
    "confirmation": [N1],  # which is a content, too
    "content": [cart_updated(goods("A", 1, 100))],
    "details": [details(delivery_method={"name": "Home"})],
    "shipments": [shipped("s1", A=1)],
    "deliveries": [delivered("s1")],
    "returns": [returned("r1", A=1, origin="unshipped")],
    "item_cancellations": [items_cancelled("c1", A=1)],
    "refunds": [refunded("f1", 50)],
    "fees": [fee_charged("k1", 50)],
    "cancellation": [cancelled()],
    "statements": [stated([goods("A", 2, 200)], [])],
    "statement_retraction": [retracted(stated=True)],
}
"""Events that bring about this member of the table (and maybe others)."""
BESIDE_THE_CARTS = ("details", "deliveries", "statement_retraction")
"""From these no cart follows."""
BESIDE_A_STATEMENT = ("confirmation", *BESIDE_THE_CARTS, "cancellation", "statements")
"""These do not contradict one that is older."""
TAKEN_BACK = {
    "shipments": retracted(shipment_id="s1"),
    "returns": retracted(return_id="r1"),
    "item_cancellations": retracted(cancellation_id="c1"),
    "refunds": retracted(refund_id="f1"),
    "fees": retracted(fee_id="k1"),
}


MAPS = frozenset(name for name, register in REGISTERS.items() if isinstance(register, FactMap))
"""The members that are facts by id, which events of their own add to."""
PLACES = "says where units are, and this is about money"
MONEY = "money alone, and this is about units"
READERS: dict[str, dict[str, str]] = {
    "worker/core/carts.py": {"deliveries": "no cart follows from them"},
    "worker/core/shares.py": {"deliveries": "no cart follows from them", "refunds": MONEY, "fees": MONEY},
    "worker/core/refunds.py": {
        "shipments": PLACES,
        "deliveries": PLACES,
        "fees": "part of the shipped cart, which it is given",
    },
    "worker/core/order.py": {},
    "worker/core/deliveries.py": {
        "item_cancellations": "they take nothing from what was shipped",
        "fees": "part of the carts in between",
    },
    "worker/model/delivery.py": {
        "deliveries": "what left, not what arrived",
        "returns": "nothing leaves with them",
        "item_cancellations": "nothing leaves with them",
        "refunds": MONEY,
        "fees": MONEY,
    },
    "worker/providers/qliro/wanted.py": {"deliveries": "Qliro is not told of them"},
    "worker/providers/atarapay/checks.py": {
        "shipments": "by the carts",
        "deliveries": "by parcels.py",
        "returns": "by the carts",
        "item_cancellations": "by the carts",
        "fees": "by the carts",
    },
    "worker/providers/atarapay/parcels.py": {
        "item_cancellations": "they are in no parcel",
        "refunds": MONEY,
        "fees": MONEY,
    },
    "worker/providers/atarapay/meaning.py": {
        "deliveries": "by parcels.py",
        "refunds": "by checks.py",
        "fees": "by checks.py",
    },
    "worker/providers/sequra/report.py": {
        "shipments": "by `departures`",
        "deliveries": "by `deliveries_of`",
        "refunds": "by the carts",
        "fees": "by the carts",
    },
    "worker/providers/sequra/jobs.py": {
        "deliveries": "nothing was shipped by them",
        "returns": "nothing was shipped by them",
        "item_cancellations": "nothing was shipped by them",
        "refunds": "nothing was shipped by them",
        "fees": "nothing was shipped by them",
    },
    "worker/tools/scenario/explain.py": {},
}
"""Who reads such maps, and which of them it has no use for."""


def read_by(module: str) -> set[str]:
    """The maps that a module names, of anything that is called `facts`, or of what came before and after an event."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in MAPS]
    return {node.attr for node in attributes if ast.unparse(node.value).rpartition(".")[2] == "facts"}


@pytest.mark.parametrize("module", READERS)
def test_readers_know_every_map(module: str) -> None:
    """Whoever adds a map of facts decides for each of them what it means there: it is read, or has no place there."""
    found = read_by(module)
    assert found | READERS[module].keys() == MAPS
    assert not found & READERS[module].keys(), "it is read after all"


def test_no_other_module_reads_maps() -> None:
    """Who begins to read them joins that table: the pure part first of all."""
    files = [*ROOT.glob("worker/core/*.py"), *ROOT.glob("worker/model/*.py"), *ROOT.glob("worker/providers/*/*.py")]
    found = {path for file in files if read_by(path := file.relative_to(ROOT).as_posix())}
    assert found - READERS.keys() == {"worker/core/reducer.py"}, "which writes them"


def test_every_member_of_the_facts_is_accounted_for() -> None:
    """Who adds one says here what follows from it; the core has no other list."""
    assert MEMBERS.keys() | NOTHING_FOLLOWS.keys() == set(Facts.__struct_fields__)
    assert not MEMBERS.keys() & NOTHING_FOLLOWS.keys()
    assert BY_ONE.keys() == MEMBERS.keys()


@pytest.mark.parametrize("name", MEMBERS)
def test_what_is_told_is_owed(name: str) -> None:
    """Of an order that is not confirmed yet, too: what its provider was told of may be this."""
    facts = facts_of(*BY_ONE[name])
    assert facts.stamped(name)
    assert _tells(facts)


def test_the_others_are_not_told() -> None:
    """Neither a payment, nor a provider's word, nor what is observed for statistics."""
    facts = facts_of(payment("approved"), said("risk", level="low"), observed())
    assert None not in (facts.payment, facts.provider, facts.observed)
    assert not _tells(facts)


@pytest.mark.parametrize("name", [name for name in MEMBERS if name not in BESIDE_THE_CARTS])
def test_the_carts_are_as_new_as_their_newest_fact(name: str) -> None:
    """Each of them counts."""
    before, after = facts_of(N1), facts_of(*([] if name == "confirmation" else [N1]), *BY_ONE[name])
    assert _changed_ms(after) - _changed_ms(before) == (0 if name == "confirmation" else 1_000)


@pytest.mark.parametrize("name", BESIDE_THE_CARTS)
def test_the_carts_are_as_old_as_they_were(name: str) -> None:
    """Whatever else was told."""
    assert _changed_ms(facts_of(N1, *BY_ONE[name])) == _changed_ms(facts_of(N1))


@pytest.mark.parametrize("name", [name for name in MEMBERS if name not in BESIDE_A_STATEMENT])
def test_what_is_newer_than_a_statement_contradicts_it(name: str) -> None:
    """In words that name it; not once it was taken back."""
    statement = stated([goods("A", 2, 200)], [goods("B", 1, 100)])
    reasons = assess(facts_of(N1, statement, *BY_ONE[name]), "1").reasons
    assert [reason for reason in reasons if reason.endswith("is newer than the statement")]
    assert any(reason.startswith(MEMBERS[name].contradicts) for reason in reasons)
    if name in TAKEN_BACK:
        reasons = assess(facts_of(N1, statement, *BY_ONE[name], TAKEN_BACK[name]), "1").reasons
        assert reasons == []


@pytest.mark.parametrize("name", BESIDE_A_STATEMENT)
def test_what_may_be_newer_than_a_statement(name: str) -> None:
    """It says nothing of the carts, or is to be combined with the statement."""
    events = log(N1, stated([goods("A", 2, 200)], [goods("B", 1, 100)]), *BY_ONE[name])
    facts = fold(events[:2] if name == "confirmation" else events)  # a second one is a content
    assert not [reason for reason in assess(facts, "1").reasons if reason.endswith("is newer than the statement")]
