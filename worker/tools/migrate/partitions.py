"""`cartsync migrate partitions`: the state, copied for another number of partitions.

What goes where is decided by `core.repartition`; `kafka.migrating` has the theory of operation. In order:

1. a look at everything: nothing is changed while anything stands in the way (`--dry-run` ends here);
2. new topics, and in every new partition a mark that it is not complete;
3. each old partition: fenced, read, marked as moved, its orders copied;
4. what is no order's, merged; a look at the whole input once more; everything read back and compared;
5. in one transaction over all new partitions, their positions: from then on, and not before, workers serve them.

Interrupted anywhere, it is run again: what was copied is copied once more, and nothing counts before step 5.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from hashlib import blake2b

import msgspec
from msgspec import MsgspecError, Struct, field

from schemas import state
from schemas.commands import Migrated
from schemas.state import Deployment, Migration, NextRecord
from worker import __version__
from worker.backend import bounds, open_state_log
from worker.config.console import ConsoleConfig
from worker.core.repartition import Counts, Layout, Part, begun, epoch_after, is_clean, marked, others, problems
from worker.errors import ConfigError, TopicError, UsageError
from worker.jobs.desk import job_partition
from worker.kafka.client import Connection
from worker.kafka.events import KafkaEventLog
from worker.kafka.group import group_members
from worker.kafka.migrating import Filling, create_topics_like, moved, state_entries, unread
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import require_topics, topics_now
from worker.orders.loading import Kept, Loading
from worker.ownership.belonging import identified, migrating, require
from worker.ownership.restore import damaged
from worker.ports import StateEntry
from worker.store.memory import MemoryOrders
from worker.tools.control import who
from worker.tools.patience import for_a_person
from worker.tools.progress import Progress

_PROBLEMS_SHOWN = 20


def _partitioned(settings: KafkaSettings) -> list[str]:
    """The topics that have as many partitions as the input."""
    return [name for name in (settings.event_topic, settings.state_topic, settings.history) if name]


_UNDO = "take the migration back with --undo"
_OURS = (state.NEXT_KEY, state.OWNER_KEY)


class Wishes(Struct, frozen=True):
    """What a person asks for."""

    to: int
    """Partitions."""
    event_topic: str = ""
    state_topic: str = ""
    """Empty: the old one's name and the number."""
    is_dry: bool = False
    undo: bool = False
    as_json: bool = False


def run_migration(config: ConsoleConfig, wishes: Wishes) -> int:
    """Prints what came of it; 0, or 1 when it was done before and events came too late for it. Raises `ConfigError`,
    `UsageError`, `TopicError` with everything that stands in the way, `LogError`.
    """
    progress = Progress()
    moving = Moving(config, wishes, lambda text: progress.say(lambda: text))
    done = asyncio.run(moving.undo() if wishes.undo else moving.run())
    print(json.dumps(msgspec.to_builtins(done), ensure_ascii=False) if wishes.as_json else "\n".join(_told(done)))
    return 1 if done.late else 0


class _Loaded(Struct):
    orders: MemoryOrders
    part: Part


class _Sums(Struct):
    """What a new partition is to hold: how many records, and a digest of all, whatever their order."""

    records: dict[int, int] = field(default_factory=dict)
    digests: dict[int, int] = field(default_factory=dict)

    def add(self, partition: int, key: bytes, value: bytes) -> None:
        """Counts a record."""
        self.records[partition] = self.records.get(partition, 0) + 1
        self.digests[partition] = self.digests.get(partition, 0) ^ _digest(key, value)


def _digest(key: bytes, value: bytes) -> int:
    return int.from_bytes(blake2b(value, key=blake2b(key, digest_size=32).digest(), digest_size=16).digest(), "big")


class Moving:
    """One migration. `on_step` is told what was done, after each step; what it raises ends the migration there."""

    def __init__(self, config: ConsoleConfig, wishes: Wishes, on_step: Callable[[str], None]) -> None:
        """Raises `ConfigError` without a partitioner."""
        self.old = for_a_person(config.kafka)
        placing = self.old.placing()
        if placing is None:
            raise ConfigError(
                "[kafka] partitioner is not set, so nobody can tell where orders belong: set it to that of the shop's "
                "producers (and event_key to what their keys contain)"
            )
        number = wishes.to
        event_topic = wishes.event_topic or f"{self.old.event_topic}.{number}"
        self.new = moved(self.old, event_topic, wishes.state_topic or f"{self.old.state_topic}.{number}")
        self.new.check()
        if {self.new.event_topic, self.new.state_topic} & {self.old.event_topic, self.old.state_topic}:
            raise UsageError("--event-topic and --state-topic: both have to be other topics than the present ones")
        self._from, self._to = Connection(self.old), Connection(self.new)
        self._configured_epoch = config.worker.topic_epoch
        self._is_dry, self._say = wishes.is_dry, on_step
        self._placing, self._after = placing, number
        self._layout = Layout(placing, 0, number)

    # --- the whole ---

    async def run(self) -> Migrated:
        """Migrates, or says that it was done. Raises like `run_migration`."""
        await self._look_at_topics()
        parts, counts, found = await self._survey()
        target = await self._target()
        epoch = self._epoch(parts)
        if target == "done":
            return self._report(counts, epoch, "done_before", parts, late=[text async for text in self._late(parts)])
        found += [text async for text in self._late(parts)]
        found += await self._look_at_new_input()
        if found:
            raise TopicError(_all(found))
        await self._require_nobody()
        if self._is_dry:
            return self._report(counts, epoch, "planned", parts)
        await self._copy(parts, epoch, is_begun=target == "filling")
        return self._report(counts, epoch, "done", parts)

    async def undo(self) -> Migrated:
        """Makes the old state one that workers take again. Raises `UsageError` when the new one is complete."""
        await self._look_at_topics()
        if await self._target() == "done":
            raise UsageError(f"{self.new.state_topic} is complete, and may have changed since: it cannot be taken back")
        await self._require_nobody()
        parts, counts, _ = await self._survey()
        for number, part in parts.items():
            if part.next is not None and part.next.migration is not None:
                await self._close(number, None)
            self._say(f"partition {number + 1} of {self._layout.before} taken back")
        return self._report(counts, self._epoch(parts), "undone", parts)

    # --- looking ---

    async def _look_at_topics(self) -> None:
        topics = await require_topics(self._from)
        before = topics[self.old.state_topic].partitions
        if before == self._after:
            raise UsageError(f"--to {self._after}: {self.old.state_topic} has as many partitions already")
        self._layout = Layout(self._placing, before, self._after)
        there = await topics_now(self._to)
        for name in _partitioned(self.new):
            if name in there and there[name].partitions != self._after:
                raise TopicError(
                    f"topic {name} has {there[name].partitions} partitions, and is to have {self._after}: delete it, "
                    "or name another one"
                )
        self._topics = topics

    async def _survey(self) -> tuple[dict[int, Part], Counts, list[str]]:
        """Everything that there is, and what stands in the way."""
        ours = await self._ours(self.old)
        parts: dict[int, Part] = {}
        counts = Counts()
        found: list[str] = []
        for number in range(self._layout.before):
            loaded = await _load(number, state_entries(self._from, number))
            parts[number] = loaded.part
            found += self._judged(number, loaded, ours)
            for subject, value in loaded.orders.items():
                _, why = counts.add(self._layout, subject, number, value)
                found += [why] if why else []
            self._say(f"partition {number + 1} of {self._layout.before}: {counts.orders} orders read")
        return parts, counts, found + list(problems(parts))

    def _judged(self, number: int, loaded: _Loaded, ours: Deployment) -> Iterator[str]:
        last = loaded.part.next
        if last is None:
            if loaded.orders:
                yield f"partition {number} has orders, and says not how far its input was taken"
            return
        if last.schema > state.SCHEMA:
            yield f"partition {number} was written by version {last.version}: run that one, or a newer one"
        other = last.migration
        if other is not None and (not other.is_source or other.state_topic != self.new.state_topic):
            yield f"partition {number}: {migrating(other)}"
        try:
            require(ours, msgspec.structs.replace(last, migration=None), adopt=False, topic_epoch=last.topic_epoch)
        except TopicError as error:
            yield f"partition {number}: {error}"

    async def _late(self, parts: dict[int, Part]) -> AsyncIterator[str]:
        """What nobody has taken of the old input."""
        for number, part in parts.items():
            if why := await unread(self._from, number, 0 if part.next is None else part.next.offset):
                yield why

    async def _look_at_new_input(self) -> list[str]:
        there = await topics_now(self._to)
        if self.new.event_topic not in there:
            return []
        begins = [(await bounds(self._to, self.new.event_topic, number))[0] for number in range(self._after)]
        gone = [str(number) for number, begin in enumerate(begins) if begin]
        text = f"{self.new.event_topic} has lost its first events in partition {', '.join(gone)}: name a new topic"
        return [text] if gone else []

    async def _require_nobody(self) -> None:
        if members := await group_members(self.old):
            raise UsageError(
                f"the group has {len(members)} members ({'; '.join(members[:3])}): stop all workers first. "
                "One that was killed counts until its session times out"
            )

    async def _target(self) -> str:
        """What the new state topic is: `empty`, `filling` or `done`. Raises `TopicError` when it is something else."""
        there = await topics_now(self._to)
        if self.new.state_topic not in there:
            return "empty"
        positions: list[NextRecord | None] = []
        records = 0
        for number in range(self._after):
            loaded = await _load(number, state_entries(self._to, number))
            positions.append(loaded.part.next)
            records += len(loaded.orders)
        known = [each for each in positions if each is not None]
        if not known and not records:
            return "empty"
        is_whole = len(known) == self._after
        if is_whole and all(_is_filled_from(self.old, each.migration) for each in known):
            return "filling"
        wanted = self.new.event_topic, self._after
        if is_whole and all(_is_taken(each, *wanted) for each in known):
            return "done"
        raise TopicError(f"{self.new.state_topic} holds the state of something else: delete it, or name another topic")

    # --- copying ---

    async def _copy(self, parts: dict[int, Part], epoch: int, *, is_begun: bool) -> None:
        old = self._topics
        names = dict(zip(_partitioned(self.old), _partitioned(self.new), strict=True))
        await create_topics_like(self._to, [(old[before], after) for before, after in names.items()], self._after)
        await require_topics(self._to)
        self._say("topics created")
        deployment = await self._ours(self.new)
        filling = Filling(self._to, self.old)
        try:
            await filling.open()
            if not is_begun:
                mark = self._migration(self.old, self._layout.before, epoch, is_source=False)
                await filling.write(self._positions(begun(__version__, mark, deployment, 0, clean=False)))
            self._say("begun")
            sums = await self._copy_parts(filling, parts, epoch)
            if late := [text async for text in self._late(parts)]:
                raise TopicError(
                    _all([*late, "take the migration back with --undo, let workers take them, and begin anew"])
                )
            await self._compare(sums)
            await self._require_nobody()
            mark = self._migration(self.old, self._layout.before, epoch, is_source=False)
            last = begun(__version__, mark, deployment, 0, clean=is_clean(parts.values()))
            await filling.write(self._positions(msgspec.structs.replace(last, migration=None)))
        finally:
            await filling.close()
        self._say("done")

    async def _copy_parts(self, filling: Filling, parts: dict[int, Part], epoch: int) -> _Sums:
        sums, counts = _Sums(), Counts()
        mark = self._migration(self.new, self._after, epoch, is_source=True)
        for number in range(self._layout.before):
            loaded = await self._close(number, mark)
            parts[number] = loaded.part
            self._say(f"partition {number + 1} of {self._layout.before} closed")
            for subject, value in loaded.orders.items():
                place, why = counts.add(self._layout, subject, number, value)
                if why:
                    raise TopicError(f"{why}; {_UNDO}")
                key = (state.ORDER_PREFIX + subject).encode()
                sums.add(place, key, value)
                await filling.put((place, key, value))
            await filling.flush()
            self._say(f"partition {number + 1} of {self._layout.before}: {counts.orders} orders copied")
        if found := list(problems(parts)):
            raise TopicError(_all([*found, _UNDO]))
        for place in range(self._after):
            for key, value in others(self._layout, parts, place, job_partition):
                sums.add(place, key, value)
                await filling.put((place, key, value))
        await filling.flush()
        self._say("merged what is of no order")
        return sums

    async def _close(self, number: int, mark: Migration | None) -> _Loaded:
        """Fences an old partition, reads it, and marks it; `None`: takes its mark away."""
        log = open_state_log(self.old)
        await log.start()
        writer = log.partition(number)
        try:
            await writer.fence()
            ours = await self._ours(self.old)
            owner = state.OwnerRecord(state.SCHEMA, f"migration by {who()}", 0, __version__, ours)
            barrier = await writer.write([(state.OWNER_KEY, state.encode(owner))])
            loaded = await _load(number, writer.read(0, barrier))
            last = marked(loaded.part, mark, __version__, ours)
            await writer.write([(state.NEXT_KEY, state.encode(last))])
            return loaded
        finally:
            await writer.close()

    async def _compare(self, sums: _Sums) -> None:
        """Reads everything back. Raises `TopicError` when it is not what was to be written."""
        for number in range(self._after):
            newest: dict[bytes, int] = {}
            async for entries in state_entries(self._to, number):
                for entry in entries:
                    if entry.value is None:
                        newest.pop(entry.key, None)
                    elif entry.key not in _OURS:
                        newest[entry.key] = _digest(entry.key, entry.value)
            digest = 0
            for each in newest.values():
                digest ^= each
            if (len(newest), digest) != (sums.records.get(number, 0), sums.digests.get(number, 0)):
                raise TopicError(
                    f"partition {number} of {self.new.state_topic} does not hold what was copied: somebody else writes "
                    "there, or it holds an earlier attempt that was taken back. Delete the topic, and run this again"
                )
            self._say(f"partition {number + 1} of {self._after} compared")

    def _positions(self, last: NextRecord) -> list[tuple[int, bytes, bytes | None]]:
        return [(number, state.NEXT_KEY, state.encode(last)) for number in range(self._after)]

    # --- small things ---

    async def _ours(self, settings: KafkaSettings) -> Deployment:
        """A deployment with these settings, and what the brokers say of its topics."""
        ours = Deployment(
            event_topic=settings.event_topic, group=settings.group_id, prefix=settings.transactional_id_prefix
        )
        return identified(ours, await KafkaEventLog(settings).describe_topics())

    def _epoch(self, parts: dict[int, Part]) -> int:
        """Of the new state: as it was begun with, if it was begun."""
        positions = [part.next for part in parts.values() if part.next is not None]
        if begun_with := [each.migration.topic_epoch for each in positions if each.migration is not None]:
            return max(begun_with)
        try:
            return epoch_after(parts.values(), self._configured_epoch)
        except ValueError as error:
            raise TopicError(f"{error}: the shop has to write all events again, for a state of its own") from error

    @staticmethod
    def _migration(other: KafkaSettings, partitions: int, epoch: int, *, is_source: bool) -> Migration:
        return Migration(is_source, other.event_topic, other.state_topic, partitions, epoch)

    def _report(
        self, counts: Counts, epoch: int, state_of: str, parts: dict[int, Part], late: list[str] | None = None
    ) -> Migrated:
        return Migrated(
            state_of,  # type: ignore[arg-type]
            self._layout.before,
            self._after,
            self.new.event_topic,
            self.new.state_topic,
            self.new.history,
            epoch,
            counts.orders,
            counts.owed,
            counts.in_doubt,
            [counts.places.get(number, 0) for number in range(self._after)],
            is_clean(parts.values()),
            late or [],
        )


def _is_filled_from(old: KafkaSettings, mark: Migration | None) -> bool:
    return mark is not None and not mark.is_source and mark.state_topic == old.state_topic


def _is_taken(last: NextRecord, event_topic: str, partitions: int) -> bool:
    """Whether workers take a partition of this input, or have."""
    found, mark = last.deployment, last.migration
    return (found.event_topic, found.partitions) == (event_topic, partitions) and (mark is None or mark.is_source)


def _all(found: list[str]) -> str:
    more = len(found) - _PROBLEMS_SHOWN
    return "\n".join(found[:_PROBLEMS_SHOWN] + ([f"and {more} more"] if more > 0 else []))


async def _load(number: int, lists: AsyncIterator[list[StateEntry]]) -> _Loaded:
    """A partition of the state, as its owner would load it. Raises `DamagedStateError`, `TopicError`."""
    table = MemoryOrders()
    loading = Loading(number, Kept(table))
    position: StateEntry | None = None
    async for entries in lists:
        for entry in entries:
            if loading.load(entry) or entry.key == state.OWNER_KEY:
                continue
            if entry.key != state.NEXT_KEY:
                raise TopicError(
                    f"partition {number} has a record of a kind that this version does not know: {entry.key!r}"
                )
            position = entry
    part = Part(None, loading.targets(), loading.jobs, loading.accounts, loading.closed)
    if position is not None and position.value is not None:
        try:
            part.next = state.decode_next(position.value)
        except MsgspecError as error:
            raise damaged(number, position.offset, position.key, error) from error
    return _Loaded(table, part)


def _told(done: Migrated) -> Iterator[str]:
    said = {
        "planned": "would be copied; nothing was changed",
        "done": "were copied, and compared with what was to be written",
        "done_before": "were copied before",
        "undone": "are taken by workers again, as before",
    }
    yield f"{done.orders} orders ({done.owed} owed, {done.in_doubt} in doubt) {said[done.state]}"
    if done.state == "undone":
        yield f"delete {done.state_topic} before you migrate again"
        return
    least, most = min(done.orders_by_partition, default=0), max(done.orders_by_partition, default=0)
    yield f"{done.partitions_before} -> {done.partitions} partitions, {least} to {most} orders each"
    if not done.clean:
        yield "a worker did not leave in order: what is owed is held for `lease` + `settle` at the next start"
    if done.state != "planned":
        yield "set, for workers, receivers and consoles, and let the shop's producers write to the new event topic:"
    else:
        yield "afterwards, set for workers, receivers and consoles:"
    yield f'  [kafka]\n  event_topic = "{done.event_topic}"\n  state_topic = "{done.state_topic}"'
    if done.history_topic:
        yield f'  history_topic = "{done.history_topic}"'
    yield f"  [worker]\n  topic_epoch = {done.topic_epoch}"
    for text in done.late:
        yield f"too late: {text}. Nobody reads them there: write them to {done.event_topic} again"
