"""When an order is closed, its record removed from the state, and what is remembered of it then. Pure.

| the order | is closed |
|---|---|
| settled, nothing of it pending, its personal details erased | at once |
| settled, and nothing of it is pending | `keep_settled` after its newest event was taken, and up to 5 % of that later |
| known by `order.observed` alone | 8 days after its `completed_at`: the statistics count 7 |
| known by what its provider says alone | as one that is settled |
| owed, parked, held, delayed, in doubt, unconfirmed, on hold | never |

Which orders are due is found by a hand that goes around all orders of a partition once a day, a few at a time: an order
that is due needs no appointment, so there is nothing to make at a restore and nothing to keep (a row of due days would
take 16 bytes an order, and each record decoded to its end at every restore). What it costs: each order is decoded once
a day, 2 µs, so 2 s of a day for 1,000,000 orders.

Of a closed order 8 bytes remain, a digest of its subject, for as long again as it was kept; in chunks of a thousand and
a day. So an event that comes too late is told apart from one whose order was never confirmed. 1,000,000 orders that
were closed take 8 MB, over all partitions. To look one up takes a millisecond for each 8 MB: for the first event of an
order, unless it is its confirmation or `order.observed`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice

from msgspec import Struct, msgpack

from schemas.base import parse_time_us
from schemas.events import ObservedData
from schemas.state import CLOSED_PREFIX, OrderRecord, decode_order

DAY_MS = 86_400_000
KEEP_OBSERVED_DAYS = 8
"""Beyond `completed_at`; seQura's statistics count those of the last 7 (docs.sequra.com, 2026-10)."""
AROUND_S = 86_400.0
"""In so long the hand comes to each order once."""
LOOKS_AT_ONCE = 64
LOOK_EVERY_MAX_S, LOOK_EVERY_MIN_S = 3_600.0, 1.0
"""Between two looks, whatever the number of orders."""
DIGEST_BYTES = 8
_JITTER = 20
"""The part of `keep_settled` by which orders are closed later: those of one busy day not all on one day."""

_observed = msgpack.Decoder(ObservedData)


# --- what is due ---------------------------------------------------------------------------------------------------


def may_close(record: OrderRecord, subject: str, now_ms: int, keep_ms: int) -> bool:
    """Whether an order is due that is not in the outbox. `keep_ms`: 0 for ever."""
    if not is_at_rest(record):
        return False
    if record.erased is not None:
        return True
    if is_shown_alone(record) and record.sealed.observed and not record.sealed.provider:
        observed = record.facts.observed
        assert observed is not None  # as it is sealed
        completed_ms = parse_time_us(_observed.decode(observed[1]).completed_at) // 1000
        return now_ms >= completed_ms + KEEP_OBSERVED_DAYS * DAY_MS
    # The end of that day, by our clock; the shop's own time only where it was not noted yet, by a version before this.
    touched_ms = (record.touched_day + 1) * DAY_MS if record.touched_day else record.event_ms
    return bool(keep_ms and touched_ms) and now_ms >= touched_ms + keep_ms + jitter_ms(subject, keep_ms)


def is_at_rest(record: OrderRecord) -> bool:
    """Whether nothing of it is owed, and nothing of it may still happen at the provider."""
    return (
        record.revision == record.acked
        and record.park is None
        and not (record.may_land_late or record.remote_unknown)
        and not (record.not_before_ms or record.unconfirmed_since_ms or record.inconsistent_since_ms)
    )


def is_shown_alone(record: OrderRecord) -> bool:
    """Whether no event of it was one that a provider is told of: such an event notes its time."""
    return not record.event_ms


def jitter_ms(subject: str, keep_ms: int) -> int:
    """How much later than others an order is closed: the same each time."""
    return int.from_bytes(digest_of(subject)[:4], "big") * (keep_ms // _JITTER) >> 32


class DueOrder(Struct, frozen=True, gc=False):
    """An order that is to be closed, unless something comes before that is written."""

    subject: str
    basis: bytes
    """The record that says so."""
    is_shown_alone: bool
    """Nobody asks for it later."""
    entries: int = 0
    """Of its history, that were written."""


def find_due(
    subjects: Sequence[str], record_of: Callable[[str], bytes | None], now_ms: int, keep_ms: int
) -> Iterator[DueOrder]:
    """Those that are due of a partition's orders, which are not owed."""
    for subject in subjects:
        value = record_of(subject)
        if value is None:
            continue
        record = decode_order(value)
        if may_close(record, subject, now_ms, keep_ms):
            yield DueOrder(subject, value, is_shown_alone(record), record.entries)


# --- the hand ------------------------------------------------------------------------------------------------------


class Hand:
    """Goes around the orders of a partition, a few at a time."""

    def __init__(self, chance: float) -> None:
        """`chance`: where it begins, in [0, 1): a worker that is restarted every few hours comes to all orders, too."""
        self._chance = chance
        self._round: Iterator[str] = iter(())
        """What is left of it."""

    def next(self, subjects: Callable[[float], Iterator[str]], count: int = LOOKS_AT_ONCE) -> list[str]:
        """The next orders to look at, `subjects` being all but the first part that it is given; some may be gone
        meanwhile.
        """
        found = list(islice(self._round, count))
        if not found:
            self._round, self._chance = subjects(self._chance), 0.0
            found = list(islice(self._round, count))
        return found


def look_every_s(orders: int) -> float:
    """How often `LOOKS_AT_ONCE` of so many orders are looked at."""
    return min(LOOK_EVERY_MAX_S, max(LOOK_EVERY_MIN_S, AROUND_S * LOOKS_AT_ONCE / max(orders, 1)))


# --- what is remembered of closed orders ------------------------------------------------------------------------------


def digest_of(subject: str) -> bytes:
    """What is kept of the subject of a closed order."""
    return blake2b(subject.encode(), digest_size=DIGEST_BYTES).digest()


CHUNK_BYTES = 8 * 1024
"""Of one record of them: each transaction that closes orders writes one."""


class ClosedOrders(Struct):
    """Digests of the orders of a partition that were closed."""

    chunks: dict[str, bytes] = {}
    """By key of the state topic: `c:<day>.<number>`."""

    def with_more(self, now_ms: int, subjects: Sequence[str]) -> tuple[str, bytes]:
        """The record that is to be written once these are closed, too, at most `LOOKS_AT_ONCE` of them; key and value.
        Changes nothing.
        """
        day = now_ms // DAY_MS
        number = sum(_day_of(key) == day for key in self.chunks)
        kept = self.chunks.get(_key(day, max(0, number - 1)), b"")
        if not number or len(kept) + len(subjects) * DIGEST_BYTES > CHUNK_BYTES:
            kept = b""
        else:
            number -= 1
        return _key(day, number), kept + b"".join(map(digest_of, subjects))

    def closed_on(self, subject: str) -> int:
        """The newest day (since 1970 UTC) on which an order was closed; 0: it was not, as far as is remembered."""
        digest = digest_of(subject)
        return max((_day_of(key) for key, kept in self.chunks.items() if _holds(kept, digest)), default=0)

    def apply(self, changes: Mapping[str, bytes | None]) -> None:
        """Once they are committed; `None`: nobody needs to know of these any more."""
        for key, kept in changes.items():
            if kept is None:
                del self.chunks[key]
            else:
                self.chunks[key] = kept

    def outdated(self, now_ms: int, keep_ms: int) -> list[str]:
        """Keys of what nobody needs to know of any more."""
        return [key for key in self.chunks if keep_ms and _day_of(key) * DAY_MS < now_ms - keep_ms - DAY_MS]


def _key(day: int, number: int) -> str:
    return f"{CLOSED_PREFIX}{day}.{number}"


def _day_of(key: str) -> int:
    return int(key.removeprefix(CLOSED_PREFIX).partition(".")[0])


def _holds(kept: bytes, digest: bytes) -> bool:
    at = kept.find(digest)
    while at % DIGEST_BYTES and at >= 0:
        at = kept.find(digest, at + 1)
    return at >= 0
