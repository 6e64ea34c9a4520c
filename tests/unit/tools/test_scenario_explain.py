"""`cartsync scenario --explain`: what each event changed, where a cent comes from, and what nothing means."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.shops import events as shop
from tests.shops.events import EventSpec, confirmed, envelope, goods, other
from tests.shops.histories import story
from worker.tools.scenario.explain import Explained, Explanation, as_lines, explain, explain_files
from worker.tools.scenario.files import read_scenario

SCENARIOS = Path(__file__).parents[2] / "scenarios"
LINES = [goods("shirt", 3, 1000), goods("hat", 1, 500), other("handling", "post", 300)]
CONFIRMED = confirmed(*LINES)


def explained(tmp_path: Path, *steps: Any) -> list[Explanation]:
    """What is said of these specs, or of steps as they stand in a file."""
    said = [
        {"event": envelope(step, number)} if isinstance(step, EventSpec) else step for number, step in enumerate(steps)
    ]
    file = tmp_path / "S1.json"
    file.write_text(json.dumps({"title": "a story", "steps": said}), encoding="utf-8")
    return explain(read_scenario(file))


def rows(one: Explanation) -> list[tuple[str, str, str | None, int, int, str]]:
    """(cart, change, reference, before, after, why) of the items that changed."""
    carts = (("shipped", one.shipped), ("unshipped", one.unshipped))
    return [
        (name, item.change, item.reference, item.before_minor, item.after_minor, item.why)
        for name, cart in carts
        if cart is not None
        for item in cart.items
    ]


def notes(tmp_path: Path, *steps: Any) -> list[str]:
    """What the last step means."""
    return explained(tmp_path, *steps)[-1].notes


def test_units_and_shares_are_said(tmp_path: Path) -> None:
    """Two of three shipped: the cents of the line and of the delivery are told with where they come from."""
    last = explained(tmp_path, CONFIRMED, shop.shipped("s1", shirt=2))[-1]
    assert (last.event, last.says, last.state) == ("order.items_shipped", "s1: 2 × shirt", "ready")
    assert rows(last) == [
        ("shipped", "new", "shirt", 0, 667, "3 ordered, 2 shipped: 2 kept, 1000 × 2/3"),
        ("shipped", "new", "post", 0, 133, "300, follows goods: 667 ever shipped, 833 pending"),
        (
            "unshipped",
            "changed",
            "shirt",
            1000,
            333,
            "3 ordered, 2 shipped: 1 pending, 1000 × 3/3 less the 667 shipped",
        ),
        ("unshipped", "changed", "post", 300, 167, "300, follows goods: 667 ever shipped, 833 pending"),
    ]
    assert last.shipped is not None
    assert (last.shipped.before_minor, last.shipped.after_minor) == (0, 800)


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        (
            [shop.returned("r1", shirt=1), shop.retracted(return_id="r1")],
            ("shipped", "changed", "shirt", 667, 1000, "3 ordered, 3 shipped: 3 kept, 1000 × 3/3"),
        ),
        (
            [shop.refunded("f1", 100, applies_to=["hat"]), shop.returned("r1", hat=1)],
            (
                "shipped",
                "gone",
                "f1",
                -100,
                0,
                "100 refunded for hat: 0 shipped, 0 pending, 100 with lost units or beyond what the carts have",
            ),
        ),
        (
            [EventSpec("order.items_returned", {"return_id": "r1", "lines": shop.units({"hat": 1}), "refunded_minor": 450})],
            ("shipped", "new", "r1", 0, 50, "450 refunded for returned units, 50 less than their share"),
        ),
        ([shop.returned("r1", fee=70, hat=1)], ("shipped", "new", "r1", 0, 70, "the fee of return r1")),
        ([shop.returned("r1", handling=100)], ("shipped", "changed", "post", 300, 200, "300, 100 of it refunded, follows goods: 1500 ever shipped, 0 pending")),
        (
            [EventSpec("order.fee_charged", {"fee_id": "k1", "amount_minor": 9})],
            ("shipped", "new", "k1", 0, 9, "a fee, due at once"),
        ),
        (
            [EventSpec("order.fee_charged", {"fee_id": "k1", "amount_minor": 9}), shop.retracted(fee_id="k1")],
            ("shipped", "gone", "k1", 9, 0, "the fee was taken back"),
        ),
        (
            [shop.refunded("f1", 9), shop.retracted(refund_id="f1")],
            ("shipped", "gone", "f1", -9, 0, "the refund was taken back"),
        ),
        (
            [
                EventSpec("order.items_returned", {"return_id": "r1", "lines": shop.units({"hat": 1}), "refunded_minor": 0}),
                shop.retracted(return_id="r1"),
            ],
            ("shipped", "gone", "r1", 500, 0, "the return was taken back"),
        ),
        ([shop.stated([goods("hat", 1, 400)], [])], ("shipped", "gone", "shirt", 1000, 0, "not in the statement")),
        ([shop.stated([goods("hat", 1, 400)], [])], ("shipped", "changed", "hat", 500, 400, "as stated")),
    ],
)  # fmt: skip
def test_every_amount_has_a_reason(
    tmp_path: Path, specs: list[EventSpec], expected: tuple[str, str, str | None, int, int, str]
) -> None:
    """Whatever changes an item of what was shipped, its reason names the numbers."""
    last = explained(tmp_path, CONFIRMED, shop.shipped("s1", shirt=3, hat=1), *specs)[-1]
    assert expected in rows(last)


def test_lines_of_every_kind_have_a_reason(tmp_path: Path) -> None:
    """Discounts, vouchers, registrations and charges of some lines, shipped in part, then cancelled."""
    content = confirmed(
        goods("a", 1, 100),
        goods("b", 1, 300),
        other("handling", "post", 40, applies_to=["b"]),
        other("registration", "plate", 20, applies_to=["a"]),
        other("voucher", "credit", 7),
        other("discount", "code", -40),
    )
    shipped, cancelled = explained(tmp_path, content, shop.shipped("s1", a=1), shop.items_cancelled("c1", b=1))[1:]
    assert {(cart, row[1]): row[-1] for cart, *row in rows(shipped)} == {
        ("shipped", "a"): "1 ordered, 1 shipped: 1 kept, 100 × 1/1",
        ("shipped", "plate"): "20 follows its lines: 100 shipped, 0 pending, 0 lost",
        ("shipped", "code"): "40 off all lines: 10 shipped, 30 pending",
        ("unshipped", "a"): "1 ordered, 1 shipped: 0 pending",
        ("unshipped", "plate"): "20 follows its lines: 100 shipped, 0 pending, 0 lost",
        ("unshipped", "code"): "40 off all lines: 10 shipped, 30 pending",
    }
    assert {row[2]: row[-1] for row in rows(cancelled)} == {
        "b": "1 ordered, 1 cancelled: 0 pending",
        "post": "40: gone with its b",
        "code": "40 off all lines: 10 shipped, 0 pending, 30 of lost units",
    }
    free = explained(tmp_path, confirmed(goods("a", 2, 0), other("handling", "post", 9)), shop.shipped("s1", a=1))[-1]
    assert {row[-1] for row in rows(free) if row[2] == "post"} == {"9, follows goods: 1 units ever shipped, 1 pending"}


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ([CONFIRMED], ["the provider is assumed to know what order.confirmed alone gives"]),
        ([shop.shipped("s1", hat=1)], ["kept; nothing is sent to the provider before order.confirmed"]),
        (
            [CONFIRMED, shop.shipped("s1", hat=1), shop.shipped("s1", shirt=1).but(time=shop.time_text(0.5))],
            ["does not count: a newer fact about the same is known"],
        ),
        (
            [CONFIRMED, shop.shipped("s1", hat=1), shop.shipped("s2", hat=1)],
            ["nothing is sent while this contradiction lasts"],
        ),
        ([CONFIRMED, shop.shipped("s2", hat=2), shop.retracted(shipment_id="s2")], ["the contradiction is gone"]),
        ([CONFIRMED, shop.payment("on_hold")], ["nothing is sent: the payment is on hold"]),
        ([CONFIRMED, shop.payment("refused")], ["nothing is sent: the payment was refused"]),
        ([CONFIRMED, shop.payment("approved")], ["no cart depends on the payment"]),
        ([CONFIRMED, shop.details(gift=True)], ["part of the update, not of the carts"]),
        (
            [CONFIRMED, shop.delivered("s1")],
            ["fills in when the shipment's trackings were delivered; no cart depends on it"],
        ),
        ([CONFIRMED, shop.retracted(cancelled=True)], ["there was nothing in the carts to retract"]),
        ([CONFIRMED, shop.retracted(stated=True)], ["there was nothing in the carts to retract"]),
        ([CONFIRMED, shop.cart_updated(*LINES)], ["it counts, and leads to the same carts"]),
        ([CONFIRMED, shop.cancelled(), shop.cancelled(by="shopper")], ["it counts, and leads to the same carts"]),
        (
            [CONFIRMED, shop.stated([], LINES), shop.shipped("s1", hat=1).but(time=shop.time_text(0.5))],
            ["older than the shop's statement of both carts, which alone counts"],
        ),
        (
            [CONFIRMED, shop.details(gift=True).but(id="e0", source="/shops/acme")],
            ["a repetition: an event with this id and source was accepted before"],
        ),
    ],
)  # fmt: skip
def test_what_an_event_means(tmp_path: Path, specs: list[EventSpec], expected: list[str]) -> None:
    """An event that changed nothing says why, and a contradiction says that it holds the order back."""
    assert notes(tmp_path, *specs) == expected


def test_contradictions_are_told(tmp_path: Path) -> None:
    """The reason is told with its numbers, and the carts stay the last that were known."""
    confirmation, wrong, right = explained(
        tmp_path, CONFIRMED, shop.shipped("s1", hat=2), shop.retracted(shipment_id="s1")
    )
    assert (wrong.state, wrong.contradictions) == ("inconsistent", ["line hat: 2 shipped of 1 ordered"])
    assert wrong.shipped is wrong.unshipped is None
    assert right.shipped is right.unshipped is None
    assert confirmation.contradictions == []


def test_what_never_becomes_a_fact(tmp_path: Path) -> None:
    """Refused and skipped records say so, whatever they are made of."""
    bad = shop.shipped("s1", hat=0)
    foreign = EventSpec("com.example.other", {})
    binary = {"record": {"key": "k", "value": "{}", "headers": {"ce_specversion": "1.0", "ce_type": "order.cancelled"}}}
    steps = [bad, foreign, binary, {"record": {"key": "k"}}, {"record": {"key": "k", "value": "[1]"}}]
    said = explained(tmp_path, *steps, {"run": "1s"}, {"record": {"key": "k", "value_base64": "/w=="}})
    assert [(one.step, one.event, one.state) for one in said] == [
        (1, "order.items_shipped", ""),
        (2, "com.example.other", ""),
        (3, "order.cancelled", ""),
        (4, "", ""),
        (5, "", ""),
        (7, "", ""),
    ]
    assert "$.data.lines[0].quantity: expected an integer from 1 to 1000000" in said[0].notes[0]
    assert said[1].notes == said[3].notes == ["skipped: not a known event"]
    assert all(one.notes[0].startswith("refused, it goes to the dead-letter topic: ") for one in (said[2], said[4]))


def test_for_people_and_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One block a file; with `--json` the same as objects; a file that cannot be read is told at the end, exit 2."""
    file = SCENARIOS / "sequra" / "FA04k.json"
    assert explain_files([file]) == 0
    text = capsys.readouterr().out
    assert text.startswith("FA04k  30.00 back for a flaw")
    assert "  3  order.refunded  acme/1001  f1: 3000 for mixer\n     shipped 15000 → 12000\n" in text
    assert "       gone     1 × mixer" in text
    assert explain_files([file, tmp_path / "none.json"], as_json=True) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["unreadable"] == [f"{tmp_path / 'none.json'}: no such file or folder"]
    events = found["scenarios"][0]["events"]
    assert events[0]["shipped"] is None
    assert events[3]["shipped"]["items"][0]["why"].startswith("6000 refunded for returned units")
    assert explain_files([tmp_path / "none.json"]) == 2
    assert capsys.readouterr().out.startswith("ERROR ")


def test_every_history_can_be_explained(tmp_path: Path) -> None:
    """Each change adds up: the items that changed make the difference of the totals."""
    for seed in range(150):
        said = explained(tmp_path, *({"event": one} for one in story(Random(seed))))
        for one in said:
            for cart in (one.shipped, one.unshipped):
                if cart is not None:
                    differences = [item.after_minor - item.before_minor for item in cart.items]
                    assert sum(differences) == cart.after_minor - cart.before_minor
                    assert all(item.why for item in cart.items), (seed, one)
                    assert "not in the newest content" not in [i.why for i in cart.items if i.change != "gone"]
            assert one.notes or one.contradictions or one.shipped or one.unshipped, (seed, one)


def test_every_scenario_can_be_explained() -> None:
    """Those that the project has, also of records that are no events."""
    for file in sorted(SCENARIOS.rglob("*.json")):
        scenario = read_scenario(file)
        said = explain(scenario)
        lines = as_lines(Explained(f"{file}", scenario.name, scenario.title, said))
        assert len(lines) > len(said), file.stem
