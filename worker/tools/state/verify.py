"""`cartsync state verify`: folds the input again, where it still is, with the worker's own code, and compares.

Partition by partition; memory holds the orders of one partition, as its worker does, and what comes of their events.
Workers may go on: the state is compared as it was when its partition was read, which is between two transactions.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing

import msgspec
from msgspec import Struct

from schemas import state
from schemas.commands import StateDifference, StateVerified
from schemas.state import NextRecord, OrderRecord
from worker.backend import bounds, records
from worker.config.console import ConsoleConfig
from worker.core.letters import read_marker, refused_record
from worker.core.placing import placing_of
from worker.core.retention import ClosedOrders
from worker.core.trust import Trust
from worker.errors import CartsyncError, TopicError, UsageError
from worker.kafka.client import Connection
from worker.kafka.replaying import letters
from worker.kafka.topics import require_topics
from worker.model.provider import Destination
from worker.tools.control import printable
from worker.tools.patience import for_a_person
from worker.tools.progress import Progress
from worker.tools.state.folding import Folding, compare


class _Snapshot(Struct):
    """A partition of the state topic between two transactions."""

    orders: dict[str, bytes] = {}
    closed: dict[str, bytes] = {}
    taken: NextRecord | None = None


class _Tally:
    """Prints differences, and counts."""

    def __init__(self, as_json: bool) -> None:
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []
        self.events = 0
        self._as_json = as_json

    def tell(self, difference: StateDifference) -> None:
        """As soon as it is known."""
        if self._as_json:
            text = msgspec.json.encode(difference).decode()
        else:
            who = printable(difference.subject) or "the input"
            text = f"{who} (partition {difference.partition}): {printable(difference.text)}{_carts(difference)}"
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def conclude(self, partitions: int) -> int:
        """Prints the summary; 1 when something differs."""
        counts = self.counts
        summary = StateVerified(
            partitions,
            self.events,
            counts["agrees"],
            counts["partly"],
            counts["not_checked"],
            counts["differs"],
            self.notes,
        )
        if self._as_json:
            print(msgspec.json.encode(summary).decode())
        else:
            for note in self.notes:
                print(f"note: {printable(note)}")
            print(
                f"{counts['agrees']} orders agree with {self.events} events; of {counts['partly']} only the newest "
                f"events are left, which agree; {counts['not_checked']} could not be checked; "
                f"{counts['differs']} differences"
            )
        return 1 if counts["differs"] else 0


def _carts(of: StateDifference) -> str:
    ours, theirs = (
        (of.state_shipped_minor, of.state_unshipped_minor),
        (of.input_shipped_minor, of.input_unshipped_minor),
    )
    if ours == theirs:
        return ""
    shown = ["none" if None in carts else f"{carts[0]} shipped, {carts[1]} to ship" for carts in (ours, theirs)]
    return f" (minor units: the state has {shown[0]}; the input {shown[1]})"


def run_verify(
    config: ConsoleConfig,
    destinations: Mapping[str, Destination],
    trust: Trust | None,
    *,
    partitions: Sequence[int],
    notes: Sequence[str],
    as_json: bool,
) -> int:
    """Prints what differs; 0, or 1 when something does. `partitions`: none: all. `notes`: what limits it, for the
    summary. Raises `TopicError`, `ConfigError`, `LogError`, `UsageError`.
    """
    tally = _Tally(as_json)
    tally.notes += notes
    return asyncio.run(_verify(config, destinations, trust, partitions, tally))


async def _verify(
    config: ConsoleConfig,
    destinations: Mapping[str, Destination],
    trust: Trust | None,
    partitions: Sequence[int],
    tally: _Tally,
) -> int:
    settings = for_a_person(config.kafka)
    connection = Connection(settings)
    topics = await require_topics(connection)
    count = topics[settings.event_topic].partitions
    if beyond := [each for each in partitions if each >= count]:
        raise UsageError(f"--partition {beyond[0]}: there are {count}, the first is 0")
    if config.worker.start_at == "latest":
        tally.notes.append("[worker] start_at is latest: events of before the first start are missing in the state")
    progress = Progress()
    refused = await _refused(connection, topics[settings.dead_letter_topic].partitions, tally, progress)
    chosen = sorted(set(partitions)) or range(count)
    for partition in chosen:
        snapshot = await _snapshot(connection, partition, tally, progress)
        taken = snapshot.taken
        begin, end = await bounds(connection, settings.event_topic, partition, isolation=settings.input_isolation)
        if taken is None:
            tally.notes.append(f"partition {partition}: no worker has ever taken anything of it")
            continue
        if taken.offset > end:
            raise TopicError(
                f"partition {partition}: the state has taken the input up to offset {taken.offset}, and "
                f"{settings.event_topic} ends at {end}: it was made again, or is another one"
            )
        folding = Folding(
            partition,
            destinations,
            trust,
            placing_of(settings.partitioner, settings.event_key),
            count,
            taken.topic_epoch,
            refused.get(partition, frozenset()),
        )
        reading = records(
            connection, settings.event_topic, partition, begin, taken.offset, isolation=settings.input_isolation
        )
        async with aclosing(reading) as lists:
            async for some in lists:
                for record in some:
                    tally.events += 1
                    folding.take(record)
                at = some[-1].offset
                progress.say(lambda: f"partition {partition}: offset {at} of {taken.offset} of the input")  # noqa: B023
        if begin:
            tally.notes.append(f"partition {partition}: the input begins at offset {begin}: older events are gone")
        if folding.unjudged:
            tally.notes.append(
                f"partition {partition}: {len(folding.unjudged)} orders have events of providers, which only those can "
                "believe who have [callbacks] record_secrets"
            )
        _compare(snapshot, folding, tally, is_whole=begin == 0 and not taken.topic_epoch)
    return tally.conclude(len(chosen))


def _compare(snapshot: _Snapshot, folding: Folding, tally: _Tally, *, is_whole: bool) -> None:
    closed = ClosedOrders(snapshot.closed)
    for surprise in folding.surprises:
        tally.counts["differs"] += 1
        tally.tell(surprise)
    for subject in {**snapshot.orders, **folding.orders}:
        value = snapshot.orders.get(subject)
        stored: OrderRecord | None = None
        try:
            if value is not None:
                stored = state.decode_whole(value)
        except msgspec.MsgspecError:
            tally.counts["differs"] += 1
            text = "its record was not written by cartsync, or by a newer version"
            tally.tell(StateDifference("record", subject, folding.partition, text))
            continue
        was_closed = stored is None and bool(closed.closed_on(subject))
        verdict, difference = compare(subject, stored, folding, is_whole=is_whole, was_closed=was_closed)
        tally.counts[verdict] += 1
        if difference is not None:
            tally.tell(difference)


async def _snapshot(connection: Connection, partition: int, tally: _Tally, progress: Progress) -> _Snapshot:
    """What the state topic has now."""
    topic, found = connection.settings.state_topic, _Snapshot()
    taken: bytes | None = None
    prefix = state.ORDER_PREFIX.encode()
    begin, end = await bounds(connection, topic, partition)
    async with aclosing(records(connection, topic, partition, begin, end)) as lists:
        async for some in lists:
            at = some[-1].offset
            progress.say(lambda: f"partition {partition}: offset {at} of {end} of the state")  # noqa: B023
            for record in some:
                key = record.key or b""
                name = key.decode(errors="backslashreplace")
                if key.startswith(prefix):
                    _put(found.orders, name.removeprefix(state.ORDER_PREFIX), record.value)
                elif name.startswith(state.CLOSED_PREFIX):
                    _put(found.closed, name, record.value)
                elif key == state.NEXT_KEY:
                    taken = record.value
    try:
        found.taken = None if taken is None else state.decode_next(taken)
    except msgspec.MsgspecError:
        tally.counts["differs"] += 1
        text = "the record that says how far the input was taken was not written by cartsync"
        tally.tell(StateDifference("record", "", partition, text))
    return found


def _put(held: dict[str, bytes], name: str, value: bytes | None) -> None:
    if value is None:
        held.pop(name, None)
    else:
        held[name] = value


async def _refused(
    connection: Connection, partitions: int, tally: _Tally, progress: Progress
) -> Mapping[int, Collection[int]]:
    """By partition of the event topic, the offsets that dead letters name."""
    found: dict[int, set[int]] = {}
    try:
        for partition in range(partitions):
            async with aclosing(letters(connection, partition)) as all_letters:
                async for record in all_letters:
                    progress.say(lambda: f"partition {partition} of the dead letters: offset {record.offset}")  # noqa: B023
                    if read_marker(record.headers) is not None:
                        continue
                    try:
                        refused = refused_record(record.key, record.value, record.headers)
                    except UsageError:
                        continue
                    if refused.topic == connection.settings.event_topic and refused.offset >= 0:
                        found.setdefault(refused.partition, set()).add(refused.offset)
    except CartsyncError as error:
        tally.notes.append(f"the dead letters could not be read, so what was refused is not known: {error}")
    return found
