"""What operators' commands do to an order's record and to an account's (`core.commands`), and how an operator event is
taken: in the order of the log, once, with a note of who did it and what came of it. Pure.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import UNSET, Struct
from msgspec.structs import replace

from schemas import operator_events as o
from schemas.base import shallow_copy
from schemas.envelope import Data
from schemas.events import OPERATOR_TYPES, OrderEvent, data_of, event_type
from schemas.facts import Stamp
from schemas.state import OPERATED_MAX, SCHEMA, AccountRecord, Delay, Erased, Operated, OrderRecord
from schemas.views import Status
from worker.core.commands import COMMANDS, Command
from worker.core.order import assess
from worker.core.record import acknowledge, erase_words, known_digest, release_by_operator, resend
from worker.core.reducer import has_seen, with_seen, without_person
from worker.model.order import reference_of
from worker.model.provider import Destination

OPERATOR_KINDS: Mapping[type[Data], Command] = {
    data_of(event): COMMANDS[event_type(event).removeprefix("operator.")] for event in OPERATOR_TYPES
}
"""The command of an operator event, by the type of its `data`."""


class Asked(Struct, frozen=True):
    """What an operator asks, and of which order."""

    subject: str
    now_ms: int
    """UTC, by our clock."""
    destination: Destination | None = None
    """`None`: the account is not configured."""
    stamp: Stamp = (-1, 0, 0)
    """Of the event."""


Change = Callable[[OrderRecord, Asked], OrderRecord]
"""The record as an operator wants it; the very same one: there is nothing to change."""


def _adopt(record: OrderRecord, asked: Asked) -> OrderRecord:
    """What its provider has counts as told, as somebody who has looked there says."""
    destination = asked.destination
    assessment = assess(record.facts, reference_of(asked.subject))
    if destination is None or assessment.state != "ready" or assessment.order is None:
        return record
    if record.revision == record.acked and not record.remote_unknown:
        return record
    after = acknowledge(record, destination.provider.digest(assessment.order))
    # A request that is on its way may still land: then what is there is not what was looked at.
    after.remote_unknown = record.may_land_late
    after.not_before_ms, after.not_found_delay, after.delay, after.delay_ms = 0, False, Delay.OWN, 0
    return after


def _forget(record: OrderRecord, asked: Asked) -> OrderRecord:
    """Personal details are erased, and what may repeat them. What is owed stays owed, and nothing else becomes so: who
    was told the order with its details was told all of it that is left.
    """
    after = shallow_copy(record)
    after.sealed, members = without_person(record.sealed, asked.stamp)
    erase_words(after)
    after.operated = tuple([replace(each, why="") for each in record.operated])
    before, now = _digests(record, after, asked)
    erased = record.erased
    if erased is not None and not members:  # what was rendered before the first time may still be on its way
        after.erased = erased
    else:
        after.erased = Erased(asked.now_ms, members, before, now)
    if before:
        if after.park is not None and after.park.digest == before:
            after.park = replace(after.park, digest=now)
        if after.attempts.digest == before:
            after.attempts = replace(after.attempts, digest=now)
    return after


def _digests(record: OrderRecord, after: OrderRecord, asked: Asked) -> tuple[bytes, bytes]:
    """Of the payload with its details, and without; empty: there is none. Changes `after`: what was told is renamed."""
    destination, reference = asked.destination, reference_of(asked.subject)
    order, left = assess(record.facts, reference).order, assess(after.facts, reference).order
    if destination is None or order is None or left is None:
        return b"", b""
    before, now = destination.provider.digest(order), destination.provider.digest(left)
    if known_digest(record, order, reference, destination) == before:
        after.acked_digest = now
    return before, now


def _note(record: OrderRecord, _asked: Asked) -> OrderRecord:
    """Its text is kept with who wrote it."""
    return shallow_copy(record)


EFFECTS: Mapping[str, Change] = {
    "release": lambda record, asked: release_by_operator(record, asked.now_ms),
    "resend": lambda record, asked: resend(record, asked.now_ms),
    "note": _note,
    "adopt": _adopt,
    "forget": _forget,
}
"""By command that is done to an order."""


# --- an event ---


def is_repeat(record: OrderRecord | AccountRecord, event: OrderEvent) -> bool:
    """Whether the event was taken before."""
    seen = record.sealed.seen if isinstance(record, OrderRecord) else record.seen
    return has_seen(seen, event.uid)


def operate(record: OrderRecord, event: OrderEvent, asked: Asked) -> tuple[OrderRecord, bool]:
    """The record after an operator event that is no repeat, and whether there was anything to do. The revision stays:
    the order's facts are what they were.
    """
    changed = EFFECTS[OPERATOR_KINDS[type(event.data)].name](record, asked)
    after = shallow_copy(changed)
    after.schema = SCHEMA
    after.sealed = shallow_copy(changed.sealed)
    after.sealed.seen = with_seen(changed.sealed.seen, event.uid)
    after.touched_day = asked.now_ms // _DAY_MS
    return after, changed is not record


_DAY_MS = 86_400_000


def operated(event: OrderEvent, now_ms: int, status: Status | None, *, done: bool) -> Operated:
    """What is kept of it. `status`: how the order stands after it."""
    command, data = OPERATOR_KINDS[type(event.data)], event.data
    assert isinstance(data, o.OperatorData)
    why = "" if data.why is UNSET else data.why
    return Operated(command.name, data.by, why, now_ms, done, command.words(done, status), event.uid)


def newest(known: Sequence[Operated], one: Operated) -> tuple[Operated, ...]:
    """The newest of what operators did, with one more."""
    return (*known, one)[-OPERATED_MAX:]


def operate_account(
    record: AccountRecord, event: OrderEvent, now_ms: int, *, is_paused: bool
) -> tuple[AccountRecord, Operated]:
    """The account's record after an operator event that is no repeat, and what came of it. `is_paused`: by itself,
    because its credentials or many of its orders were rejected.
    """
    pauses = isinstance(event.data, o.PauseData)
    done = record.paused is None if pauses else is_paused or record.paused is not None
    one = operated(event, now_ms, None, done=done)
    paused = (one if done else record.paused) if pauses else None
    seen = with_seen(record.seen, event.uid)[-_ACCOUNT_SEEN_BYTES:]
    return AccountRecord(SCHEMA, paused, newest(record.operated, one), seen), one


_ACCOUNT_SEEN_BYTES = 8 * 100
