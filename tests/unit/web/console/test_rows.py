"""What the index keeps of a record, and that it keeps nothing of anybody."""

import msgspec
import pytest

from schemas import state
from schemas.facts import seal_facts
from schemas.state import OrderRecord
from tests.shops.events import EventSpec, confirmed, facts_of, goods, payment, shipped
from tests.unit.core.samples import FULL
from tests.unit.web.console.scene import NOW_MS, RULES, nothing_known, owed, parked, record, settled
from worker.web.console.rows import (
    NEVER_MS,
    OrderLine,
    letter_line,
    order_line,
    result_line,
    subject_of,
)


def line(of: OrderRecord, now_ms: int = NOW_MS) -> OrderLine:
    """Its row."""
    return order_line("acme/A", 3, 9, state.encode(of), rules=RULES, now_ms=now_ms, describe=nothing_known)


def test_settled() -> None:
    """An order of which nothing is owed waits for nothing."""
    found = line(settled())
    assert (found.subject, found.account, found.partition, found.offset) == ("acme/A", "acme", 3, 9)
    assert (found.status, found.kind, found.since_ms) == ("settled", "", NEVER_MS)
    assert (found.currency, found.shipped_minor, found.unshipped_minor) == ("EUR", 100, 100)
    assert (found.revision, found.acked, found.changed_ms) == (2, 2, NOW_MS - 60_000)


@pytest.mark.parametrize(
    ("of", "status", "kind", "since_ms"),
    [
        (owed(5), "owed", "", 5),
        (owed(5, reason="503: later"), "owed", "503: later", 5),
        (parked("409: it is gone", 7), "parked", "409: it is gone", 7),
        (
            record(payment("on_hold"), confirmed(goods("A", 1, 1)), owed_since_ms=4),
            "on_hold",
            "the payment is on hold",
            4,
        ),
        (record(shipped("s", A=1), unconfirmed_since_ms=3), "unconfirmed", "no order.confirmed yet", 3),
        (
            record(confirmed(goods("A", 1, 100)), shipped("s", A=2), inconsistent_since_ms=NOW_MS - 1),
            "inconsistent",
            "line A: 2 shipped of 1 ordered",
            NOW_MS - 1,
        ),
        (
            record(confirmed(goods("A", 1, 100)), shipped("s", A=2), inconsistent_since_ms=6),
            "parked",
            "line A: 2 shipped of 1 ordered; inconsistent for too long: only an event can resolve it, no release",
            6,
        ),
    ],
)
def test_what_it_waits_for(of: OrderRecord, status: str, kind: str, since_ms: int) -> None:
    """The status, the reason, and since when, each as the record has it."""
    found = line(of)
    assert (found.status, found.kind, found.since_ms) == (status, kind, since_ms)


def test_held() -> None:
    """An order that is owed while a request may still arrive is held; one that is settled is not."""
    assert line(owed(may_land_late=True)).on_hold
    assert not line(settled(may_land_late=True)).on_hold
    assert not line(owed()).on_hold


def test_differing() -> None:
    """Amounts differ when the adapter says so."""

    def known(account: str, remote: bytes) -> dict[str, object]:
        assert (account, remote) == ("acme", b"r")
        return {"differs_minor": {"shipped": 5}}

    value = state.encode(settled(remote=b"r"))
    found = order_line("acme/A", 0, 0, value, rules=RULES, now_ms=NOW_MS, describe=known)
    assert found.differs
    assert not line(settled()).differs


def test_no_record() -> None:
    """Bytes that are no record are refused."""
    with pytest.raises(msgspec.MsgspecError):
        order_line("acme/A", 0, 0, b"\x01", rules=RULES, now_ms=0, describe=nothing_known)


def test_nothing_personal() -> None:
    """Of an order with every detail that there may be, the row has nothing of the shopper."""
    facts = facts_of(EventSpec("order.confirmed", FULL["order.confirmed"]))
    of = OrderRecord(sealed=seal_facts(facts), revision=2, reason="422: ana@example.org lives in Calle Mayor 1")
    text = repr(line(of))
    for personal in ("Ana", "García", "ana@example", "Barcelona", "12345678Z", "1980"):
        assert personal not in text


def test_keys() -> None:
    """Orders are told from other records by their keys, whatever bytes they hold."""
    assert subject_of(b"o:acme/A") == "acme/A"
    assert subject_of(b"m:next") is None
    assert subject_of(b"o:acme/\xff") == "acme/\\xff"


SAID = [("x-dlq-reason", b"invalid_data"), ("x-dlq-detail", b"$.x: no"), ("x-dlq-topic", b"t")]


@pytest.mark.parametrize(
    ("value", "headers", "expected"),
    [
        (b'{"subject":"acme/A","type":"order.x","id":"e1"}', [], ("acme/A", "order.x", "e1")),
        (b'{"subject":"no subject","type":5}', [], ("", "", "")),
        (b'{"subject":"acme/a\\nb"}', [], ("", "", "")),
        (b"{", [], ("", "", "")),
        (b"\xff", [], ("", "", "")),
        (None, [], ("", "", "")),
        (b"{}", [("ce_specversion", b"1.0"), ("ce_subject", b"acme/B"), ("ce_type", b"t")], ("acme/B", "t", "")),
    ],
)
def test_letters(value: bytes | None, headers: list[tuple[str, bytes | None]], expected: tuple[str, str, str]) -> None:
    """What can be told of an event is told, and whatever was written there does no harm."""
    found = letter_line(1, 2, 3, value, [*headers, *SAID])
    assert (found.subject, found.type, found.event_id) == expected
    assert (found.reason, found.detail, found.source) == ("invalid_data", "$.x: no", "t/?/?")


def test_results() -> None:
    """Results about a status take turns in their slots; what a provider says has one by its type, without a status."""
    value = b'{"type":"cartsync.order_changed","subject":"acme/A","sequence":"23","data":{"status":"owed","acked":1}}'
    found = result_line(5, value)
    assert found is not None
    assert (found.subject, found.slot, found.at_ms, found.status, found.acked) == ("acme/A", "3", 5, "owed", 1)
    said = result_line(5, b'{"type":"provider.delivery","subject":"acme/A","data":{"status":"sent","revision":"x"}}')
    assert said is not None
    assert (said.slot, said.status, said.revision) == ("provider.delivery", "", None)
    assert result_line(5, b"{") is None
    assert result_line(5, None) is None
    assert result_line(5, b"\xff") is None


@pytest.mark.parametrize(
    "members",
    [
        *('"data":{"status":{"a":1},"revision":1}', '"data":{"revision":12345678901234567890}'),
        *('"data":{"acked":9223372036854775808}', '"data":{"currency":[]}', '"data":{"shipped_minor":"1"}'),
        *(
            '"data":{"status":"\\ud800"}',
            '"data":' + "[" * 100_000,
            '"data":' + '{"a":' * 100_000 + "1" + "}" * 100_000,
        ),
    ],
)
def test_odd_results(members: str) -> None:
    """Anybody may write to the topic: a result that cannot be stored is passed over, whatever its members are."""
    text = '{"type":"cartsync.order_changed","subject":"acme/A1","sequence":"1",' + members + "}"
    assert result_line(5, text.encode()) is None


@pytest.mark.parametrize("sequence", ["9" * 5_000, "²", "٣", "-1", ""])
def test_odd_sequences(sequence: str) -> None:
    """A sequence that is not one of ours is not a number to us."""
    body = {"type": "cartsync.order_changed", "subject": "acme/A1", "sequence": sequence, "data": {"status": "owed"}}
    found = result_line(5, msgspec.json.encode(body))
    assert found is not None
    assert found.slot == "cartsync.order_changed"
