"""The input folded again: what agrees, and each way in which the state may lack or change something."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.commands import StateDifference
from schemas.facts import open_facts, seal_facts
from schemas.state import TOPIC_EPOCH_BITS, OrderRecord
from tests.shops.events import START_MS, SUBJECT, TRUST, confirmed, envelope, goods, mac_of, shipped
from tests.shops.histories import stories
from worker.core.commands import COMMANDS
from worker.core.operator_event import operator_event
from worker.core.placing import Placing
from worker.core.record import apply_found
from worker.core.trust import Trust
from worker.tools.state.folding import Folding, Verdict, compare

NOW_MS = START_MS + 10**9


class Input(NamedTuple):
    """A record of the event topic."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def record(offset: int, body: Any) -> Input:
    """An event as it stands in the topic."""
    value = msgspec.json.encode(body)
    return Input(offset, NOW_MS, b"k", value, list(mac_of(body, value).items()))


def folded(
    records: Sequence[Input], refused: Sequence[int] = (), trust: Trust | None = TRUST, **members: Any
) -> Folding:
    """What comes of them."""
    found = Folding(0, {}, trust, None, 3, 0, refused)
    for name, value in members.items():
        setattr(found, name, value)
    for each in records:
        found.take(each)
    return found


def stored(records: Sequence[Input]) -> OrderRecord:
    """The order as its owner keeps it."""
    found = folded(records).orders.get(SUBJECT)
    return (
        OrderRecord()
        if found is None
        else replace(found.record, acked=found.record.revision, reason="", acked_digest=b"x")
    )


def said(state: OrderRecord | None, folding: Folding, *, is_whole: bool = True) -> tuple[Verdict, str]:
    """The verdict on the order, and the words."""
    verdict, difference = compare(SUBJECT, state, folding, is_whole=is_whole, was_closed=False)
    assert (verdict == "differs") == (difference is not None)
    return verdict, "" if difference is None else difference.text


def numbered(story: Sequence[Any]) -> list[Input]:
    """In a partition, one after the other."""
    return [record(offset, body) for offset, body in enumerate(story)]


STORY = [envelope(confirmed(goods("A", 3, 300)), 1), envelope(shipped("s1", A=1), 2), envelope(shipped("s2", A=2), 3)]


@given(stories(ties=True))
def test_what_was_taken_agrees(story: list[Any]) -> None:
    """Whatever happened: what comes of all events again is the state; of the newest alone, nothing is missing."""
    records = numbered(story)
    state, whole = stored(records), folded(records)
    assert whole.surprises == []
    if SUBJECT in whole.orders:
        assert said(state, whole) == ("agrees", "")
    for at in range(1, len(records)):
        rest = folded(records[at:])
        if SUBJECT in rest.orders:
            assert said(state, rest, is_whole=False)[0] in ("partly", "agrees")


@given(stories(), st.data())
def test_event_that_was_lost_is_named(story: list[Any], data: st.DataObject) -> None:
    """An event that the state never had is found, whether older events are still there or not."""
    records = numbered(story)
    lost = data.draw(st.sampled_from(records))
    whole = folded(records)
    if not any(each.offset == lost.offset for each in whole.orders[SUBJECT].events):
        return
    if sum(each.event.uid == _uid(whole, lost.offset) for each in whole.orders[SUBJECT].events) > 1:
        return  # it was told twice
    state = stored([each for each in records if each is not lost])
    for is_whole in (True, False):
        verdict, text = said(state, whole, is_whole=is_whole)
        assert (verdict, f" at offset {lost.offset}" in text) == ("differs", True)


def _uid(folding: Folding, offset: int) -> bytes:
    (uid,) = {each.event.uid for each in folding.orders[SUBJECT].events if each.offset == offset}
    return uid


def changed(state: OrderRecord, **members: Any) -> OrderRecord:
    """The record with other facts."""
    facts = open_facts(state.sealed)
    for name, value in members.items():
        setattr(facts, name, value)
    return replace(state, sealed=seal_facts(facts))


def test_facts_that_differ_are_named() -> None:
    """Which kind, and which of them; ids, and no more."""
    records = numbered(STORY)
    state, whole = stored(records), folded(records)
    shipments = open_facts(state.sealed).shipments
    one = changed(state, shipments={"s1": shipments["s1"]})
    assert said(one, whole) == (
        "differs",
        "its events come to something else than the state has: shipments (s2 is missing)",
    )
    _, difference = compare(SUBJECT, one, whole, is_whole=True, was_closed=False)
    assert difference is not None
    assert (difference.state_shipped_minor, difference.input_shipped_minor) == (100, 300)
    assert (difference.state_unshipped_minor, difference.input_unshipped_minor) == (200, 0)
    more = changed(state, shipments=shipments | {f"x{number}": shipments["s1"] for number in range(7)})
    assert "x4 is not in the input, 2 more" in said(more, whole)[1]
    other = changed(state, shipments=shipments | {"s1": shipments["s2"]}, content_total_max_minor=7)
    assert "shipments (s1 differs); the largest total that it had" in said(other, whole)[1]
    assert "lines, prices or currency" in said(changed(state, content=None), whole)[1]


def test_newest_events_alone() -> None:
    """Older ones are gone: what is left has to be in the state, and to change nothing."""
    records = numbered(STORY)
    state, rest = stored(records), folded(records[2:])
    assert said(state, rest, is_whole=False) == ("partly", "")
    shipments = open_facts(state.sealed).shipments
    verdict, text = said(changed(state, shipments={"s1": shipments["s1"]}), rest, is_whole=False)
    assert (verdict, text) == (
        "differs",
        "its newest events, taken once more, change what the state has: shipments (s2 is missing)",
    )


def test_order_that_one_side_lacks() -> None:
    """Of a whole input, an order without events is odd; of a part, nothing can be said."""
    records = numbered(STORY)
    state, whole = stored(records), folded(records)
    assert said(None, whole) == ("differs", "the state has no such order, though the input has 3 events of it")
    assert compare(SUBJECT, None, whole, is_whole=True, was_closed=True) == ("not_checked", None)
    assert said(state, folded([])) == ("differs", "the input, which is still there as a whole, has no event of it")
    assert said(state, folded([]), is_whole=False) == ("not_checked", "")
    assert said(replace(state, closed_day=7), whole) == ("not_checked", "")


def test_cancellation_that_was_found_at_the_provider() -> None:
    """No event told it, so the input does not have it."""
    records = numbered(STORY)
    assert said(apply_found(stored(records), NOW_MS), folded(records)) == ("agrees", "")


def test_what_was_refused_is_left_out() -> None:
    """As its owner has, by the dead letters; what is refused now alone is odd."""
    records = [*numbered(STORY), record(3, {"specversion": "1.0"})]
    assert folded(records, refused=[3]).surprises == []
    (surprise,) = folded(records).surprises
    assert isinstance(surprise, StateDifference)
    assert "offset 3 would be refused now (not_cloudevents: $.id: expected a member id" in surprise.text
    (surprise,) = folded(records[:1], placing=Placing("murmur2")).surprises
    assert "wrong_partition" in surprise.text
    assert folded([Input(0, NOW_MS, b"k", None, [])]).orders == {}


@pytest.mark.parametrize(("trust", "verdict"), [(TRUST, "agrees"), (None, "not_checked")])
def test_whom_nobody_here_can_believe(trust: Trust | None, verdict: str) -> None:
    """Without the secrets, orders of which a provider said something are left out."""
    risk = json.loads(msgspec.json.encode(STORY[0])) | {"type": "provider.cancel_asked", "data": {}, "id": "p1"}
    records = [*numbered(STORY), record(3, risk)]
    assert said(stored(records), folded(records, trust=trust))[0] == verdict


def operated(offset: int, name: str, subject: str = SUBJECT) -> Input:
    """What an operator did, as the command line writes it."""
    written = operator_event(
        COMMANDS[name],
        subject,
        event_id=f"{name} {offset}",
        by="ana",
        why="a test",
        now_ms=NOW_MS,
        trust=TRUST,
        placing=None,
    )
    return Input(offset, NOW_MS, written.key, written.value, list(written.headers))


def test_what_operators_did_is_folded_too() -> None:
    """It is no fact of the shop: the order agrees after a note, twice the same, a resend, and a forgetting."""
    acts = [operated(3, "note"), operated(4, "resend"), operated(3, "note"), operated(5, "forget")]
    records = [*numbered(STORY), *acts]
    folding = folded(records)
    assert not folding.surprises
    assert said(stored(records), folding) == ("agrees", "")
    assert said(stored(records[:-1]), folding)[0] == "differs", "the state has not forgotten"


def test_what_operators_did_to_nobody() -> None:
    """An account's pause is in every partition, whatever its key; a release of an unknown order changes nothing."""
    elsewhere = Placing("crc32")
    records = [operated(0, "pause", "acme"), operated(1, "release")]
    assert not folded(records).orders
    assert not folded(records[:1], placing=elsewhere).surprises
    assert folded(records, trust=None).unjudged == {SUBJECT}


def test_epochs() -> None:
    """Revisions are those of the epoch; so facts of another one are the same all the same."""
    records = numbered(STORY)
    later = folded(records, epoch=2)
    assert later.orders[SUBJECT].record.revision == 2 << TOPIC_EPOCH_BITS | 3
    assert said(stored(records), later) == ("agrees", "")
