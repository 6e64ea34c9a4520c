"""Folds the input of a partition again, and says where the state differs from what comes of it. Pure.

Two questions are asked of an order. Does the input alone come to its facts? That can be told while all of its events
are still in the topic. And does the state have every event that is still there? That can be told of any order: facts
are registers in which the newest wins, so to take the same events once more changes nothing, or something was missing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct, field

from schemas import state
from schemas.base import shallow_copy
from schemas.commands import StateDifference
from schemas.events import OrderEvent
from schemas.facts import PROVIDER, REGISTERS, Facts, SealedFacts, open_facts
from schemas.state import OrderRecord
from worker.core import record as records
from worker.core.effects import OPERATOR_KINDS, Asked, is_repeat, operate
from worker.core.intake import decode, identify, shown_id
from worker.core.order import assess
from worker.core.placing import Placing
from worker.core.provider_facts import found_cancelled
from worker.core.reducer import SEEN_MAX
from worker.core.retention import is_shown_alone
from worker.core.trust import Trust
from worker.errors import MalformedEventError
from worker.model.order import account_of, reference_of
from worker.model.provider import Destination
from worker.ports import InputRecord, UndecodableRecord

_UID_BYTES = 8
_IDS_SHOWN = 5

Verdict = Literal["agrees", "differs", "partly", "not_checked"]


class Taken(Struct, frozen=True):
    """An event of the input that some owner must have taken."""

    event: OrderEvent
    offset: int
    key: bytes | None


class Folded(Struct):
    """An order as the input alone has it."""

    record: OrderRecord
    events: list[Taken]


class Folding(Struct):
    """The input of one partition, folded as far as its owners have taken it."""

    partition: int
    destinations: Mapping[str, Destination]
    """By account, of those that are configured: what some events mean depends on the provider."""
    trust: Trust | None
    placing: Placing | None
    partitions: int
    """Of the event topic."""
    epoch: int
    """`topic_epoch` of the state."""
    refused: Collection[int]
    """Offsets of the input that owners have refused, as the dead letters say."""
    orders: dict[str, Folded] = field(default_factory=dict)
    unjudged: set[str] = field(default_factory=set)
    """Orders with an event that only those can believe who have the secrets."""
    surprises: list[StateDifference] = field(default_factory=list)
    """Events that were refused now, and were not then."""

    def take(self, record: InputRecord) -> None:
        """The next record of the input."""
        if record.offset in self.refused or type(record) is UndecodableRecord:
            return
        headers = _given(record.headers)
        try:
            event = decode(record.key, record.value, headers, record.timestamp, trust=self.trust or Trust())
            if event is not None and _is_of_account(event):
                return  # it is in every partition, and about no order
            if event is not None and self.placing is not None:
                self.placing.check(record.key or b"", event.subject, self.partition, self.partitions)
        except MalformedEventError as error:
            self._surprise(record, error)
            return
        if event is not None:
            self._apply(event, record)

    def _surprise(self, record: InputRecord, error: MalformedEventError) -> None:
        if error.reason == "not_trusted" and self.trust is None:
            subject = _subject_in(record)
            if reference_of(subject):  # otherwise it is about an account
                self.unjudged.add(subject)
            return
        text = f"the event at offset {record.offset} would be refused now ({error}), and there is no dead letter of it"
        do = "a setting or the version has changed since, or retention has taken the letter"
        self.surprises.append(StateDifference("event", "", self.partition, f"{text}: {do}"))

    def _apply(self, event: OrderEvent, record: InputRecord) -> None:
        if type(event.data) in OPERATOR_KINDS and event.subject not in self.orders:
            return  # nobody knew the order, or the input no longer has its events
        found = self.orders.setdefault(event.subject, Folded(OrderRecord(), []))
        found.events.append(Taken(event, record.offset, record.key))
        found.record = applied(found.record, found.events[-1], self.epoch, self.destinations)


def _given(headers: Sequence[tuple[str, Any]]) -> dict[str, bytes]:
    """The last of each name, without those that are null."""
    return {name: content for name, content in headers if content is not None}


def _subject_in(record: InputRecord) -> str:
    """The order of an event that nobody here can believe."""
    return identify(record.value, {})[1]


def applied(record: OrderRecord, taken: Taken, epoch: int, destinations: Mapping[str, Destination]) -> OrderRecord:
    """The record after an event, by the code of the worker."""
    destination = destinations.get(account_of(taken.event.subject))
    if type(taken.event.data) in OPERATOR_KINDS:
        if is_repeat(record, taken.event):
            return record
        asked = Asked(taken.event.subject, 1, destination, (-1, taken.event.time_us, taken.offset))
        return operate(record, taken.event, asked)[0]
    return records.apply_event(
        record,
        taken.event,
        position=taken.offset,
        revision=epoch << state.TOPIC_EPOCH_BITS | (taken.offset + 1),
        now_ms=1,  # times of ours are not compared
        destination=destination,
    )


def _is_of_account(event: OrderEvent) -> bool:
    command = OPERATOR_KINDS.get(type(event.data))
    return command is not None and command.about == "account"


# --- comparing -------------------------------------------------------------------------------------------------------


def compare(
    subject: str, stored: OrderRecord | None, folding: Folding, *, is_whole: bool, was_closed: bool
) -> tuple[Verdict, StateDifference | None]:
    """How an order stands. `is_whole`: the topic still has all of the partition's input. `was_closed`: its record was
    removed in order.
    """
    folded = folding.orders.get(subject)
    if subject in folding.unjudged or (stored is not None and stored.closed_day):
        return "not_checked", None  # of one that was closed, only what came since is there
    if stored is None:
        assert folded is not None  # it is in one of the two
        return _missing(subject, folded, folding, was_closed=was_closed)
    if folded is None:
        if is_whole:
            text = "the input, which is still there as a whole, has no event of it"
            return "differs", _difference(subject, folding, text, stored, None)
        return "not_checked", None
    if _is_same(stored, folded.record):
        return "agrees", None
    lacking = [each for each in folded.events if _lacks(stored.sealed.seen, each.event.uid)]
    if lacking:
        names = ", ".join(f"{shown_id(each.event.id, each.event.uid)} at offset {each.offset}" for each in lacking[:5])
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        text = f"the state does not have {len(lacking)} of its events: {names}{more}"
        return "differs", _difference(subject, folding, text, stored, folded.record)
    if is_whole:
        members = list(_members(stored, folded.record))
        if members:
            text = "its events come to something else than the state has: " + "; ".join(members)
            return "differs", _difference(subject, folding, text, stored, folded.record)
        return "agrees", None
    return _once_more(subject, stored, folded, folding)


def _missing(
    subject: str, folded: Folded, folding: Folding, *, was_closed: bool
) -> tuple[Verdict, StateDifference | None]:
    if was_closed or is_shown_alone(folded.record):
        return "not_checked", None
    text = f"the state has no such order, though the input has {len(folded.events)} events of it"
    return "differs", _difference(subject, folding, text, None, folded.record)


def _once_more(
    subject: str, stored: OrderRecord, folded: Folded, folding: Folding
) -> tuple[Verdict, StateDifference | None]:
    """Takes the events that are still there into what is stored: nothing may change."""
    again = shallow_copy(stored)
    again.sealed = shallow_copy(stored.sealed)
    again.sealed.seen = b""
    for each in folded.events:
        again = applied(again, each, folding.epoch, folding.destinations)
    members = list(_members(stored, again, without=_NOT_ONCE_MORE))
    if members:
        text = "its newest events, taken once more, change what the state has: " + "; ".join(members)
        return "differs", _difference(subject, folding, text, stored, again)
    return "partly", None


_NOT_ONCE_MORE = ("provider", "confirmation", "former_lines", "former_worth")
"""What was paid is summed up in part; the others follow from the contents that there were, in the order of arrival."""


def _is_same(stored: OrderRecord, folded: OrderRecord) -> bool:
    return stored.revision == folded.revision and stored.sealed == folded.sealed


def _lacks(seen: bytes, uid: bytes) -> bool:
    """Whether an event is not among those that are remembered, though it would be."""
    uids = {seen[at : at + _UID_BYTES] for at in range(0, len(seen), _UID_BYTES)}
    return uid not in uids and len(uids) < SEEN_MAX


def _members(stored: OrderRecord, folded: OrderRecord, without: Collection[str] = ()) -> Iterator[str]:
    """What differs, in words; ids and names of members, never what may be personal."""
    ours, theirs = open_facts(stored.sealed), open_facts(_as_found(stored.sealed, folded.sealed))
    for name in REGISTERS:
        if name in without:
            continue
        left, right = getattr(ours, name), getattr(theirs, name)
        if left == right:
            continue
        if isinstance(left, dict) and isinstance(right, dict):
            yield f"{_words(name)} ({', '.join(_ids(left, right))})"
        else:
            yield _words(name)
    if ours.content_total_max_minor != theirs.content_total_max_minor:
        yield "the largest total that it had"


def _ids(left: Mapping[Any, Any], right: Mapping[Any, Any]) -> Iterator[str]:
    differing = [each for each in {**left, **right} if left.get(each) != right.get(each)]
    for each in differing[:_IDS_SHOWN]:
        shown = each.hex() if isinstance(each, bytes) else f"{each}"
        how = "is missing" if each not in left else "is not in the input" if each not in right else "differs"
        yield f"{shown} {how}"
    if len(differing) > _IDS_SHOWN:
        yield f"{len(differing) - _IDS_SHOWN} more"


def _as_found(stored: SealedFacts, folded: SealedFacts) -> SealedFacts:
    """With a cancellation that the worker itself found at the provider: no event told it."""
    known = PROVIDER.open(stored.provider)
    told = PROVIDER.open(folded.provider)
    if known is None or known.cancelled is None or (told is not None and told.cancelled is not None):
        return folded
    after = shallow_copy(folded)
    after.provider = PROVIDER.seal(found_cancelled(told, known.cancelled[0]))
    return after


def _words(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " "))


_NAMES = {
    "content": "lines, prices or currency",
    "confirmation": "what was confirmed at checkout",
    "item_cancellations": "cancelled items",
    "former_lines": "lines that it had before",
    "former_worth": "what former lines were worth",
    "statements": "stated carts",
    "provider": "what the provider said",
    "payment": "the state of the payment",
    "cancellation": "whether it is cancelled",
}


def _difference(
    subject: str, folding: Folding, text: str, stored: OrderRecord | None, folded: OrderRecord | None
) -> StateDifference:
    return StateDifference(
        "order",
        subject,
        folding.partition,
        text,
        *_carts(subject, None if stored is None else stored.facts),
        *_carts(subject, None if folded is None else folded.facts),
    )


def _carts(subject: str, facts: Facts | None) -> tuple[int | None, int | None]:
    try:
        order = None if facts is None else assess(facts, reference_of(subject)).order
    except AssertionError:  # facts that no events lead to
        order = None
    return (None, None) if order is None else (order.shipped.total_minor, order.unshipped.total_minor)
