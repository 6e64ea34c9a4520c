"""An in-memory broker: one event topic, one compacted state topic, topics for dead letters and results, and a group.

It models Kafka 4.3 as aiokafka 0.14 shows it, and what the protocol leans on: epochs, transactions that are seen at
once or never, markers that take offsets, the last stable offset, compaction, eager rebalances. Whatever waits, waits
in the caller's own time: so it serves the simulation in virtual and the demo in real time. Faults are off until
asked for.
"""

import zlib
from collections.abc import Callable, Sequence
from functools import partial

from worker.ports import Clock, DeadLetter, EventLog, Result, StateEntry, StateLog, StateScan, UndecodableRecord
from worker.sim.group import Broker, EventTopicPartition, Group, MemoryEventLog, MemoryRecord
from worker.sim.process import Gate, Process
from worker.sim.scan import MemoryStateScan
from worker.sim.states import MemoryStateLog, StateSettings, StateTopicPartition

DAY_S = 86_400.0


class MemoryLog:
    """The brokers. Worker processes are told apart by their names."""

    def __init__(
        self,
        partitions: int,
        clock: Clock,
        *,
        value_max_bytes: int = 1_000_000,
        letter_max_bytes: int = 1_000_000,
        result_max_bytes: int = 1_000_000,
        transaction_timeout_s: float = 60.0,
        rebalance_timeout_s: float = 45.0,
        tombstone_s: float = 2 * DAY_S,
    ) -> None:
        self.partitions = partitions
        self.dead_letters: list[DeadLetter] = []
        """Of committed transactions."""
        self.results: list[Result] = []
        """The same."""
        self.gate: Gate | None = None
        """Awaited at each step of each operation: it may delay, and raise `LogError`.

        `fence`, `write`, `commit_group`, `stop`: before it has any effect; raising leaves it undone.
        `write:open`: its records are written and block readers, and raising leaves them so until the partition is
        fenced anew or the transaction is too old. `fence:done`, `write:done`, `commit_group:done`: after it took
        effect; raising makes the outcome unknown to the caller. `start`, `start_states`, `start_offset`,
        `group_offset`, `read` (before each list), `poll`, `poll:done` (before records are taken). `close`: raising
        changes nothing. `revoke`, `join`, `join:done` must only delay: before the listener hears of a rebalance,
        before the member joins again, and before it knows its share.
        """
        self.broker = Broker(clock)
        self._clock = clock
        self._inputs = [EventTopicPartition() for _ in range(partitions)]
        settings = StateSettings(
            value_max_bytes, transaction_timeout_s, tombstone_s, letter_max_bytes, result_max_bytes
        )
        self.settings = settings
        """Of the state topic; may be changed while workers run, as an operator does."""
        self._states = [self._state_partition() for _ in range(partitions)]
        self._group = Group(partitions, clock, rebalance_timeout_s)
        self._processes: dict[str, Process] = {}
        self._members: list[MemoryEventLog] = []

    # For workers

    def events(self, member: str) -> EventLog:
        """The event topic for a process; after a crash, for its next life."""
        log = MemoryEventLog(self._process(member), self._inputs, self._group, self._clock, self.broker, self._states)
        self._members = [each for each in self._members if not each.is_over]
        self._members.append(log)
        return log

    def states(self, member: str) -> StateLog:
        """The state topic for a process; after a crash, for its next life."""
        return MemoryStateLog(self._process(member), self._states)

    def scan(self, wanted: Callable[[str], bool]) -> StateScan:
        """The orders of the state topic, for somebody who owns nothing."""
        return MemoryStateScan(self._states, wanted)

    # The event topic

    def append(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> tuple[int, int]:
        """Writes an event; its partition (by the CRC of the key unless given, without a key 0) and offset."""
        if partition is None:
            partition = 0 if key is None else zlib.crc32(key) % self.partitions
        here = self._inputs[partition]
        timestamp = self._clock.wall_ms() if timestamp_ms is None else timestamp_ms
        record = MemoryRecord(here.end, key, value, tuple(headers), timestamp)
        self._add(partition, record)
        return partition, record.offset

    def append_undecodable(
        self,
        partition: int,
        detail: str,
        *,
        count: int = 1,
        key: bytes | None = None,
        value: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        names: Sequence[bytes] = (),
    ) -> int:
        """Writes what no client can decode: a record (with a key), or a batch of so many; its first offset."""
        first = self._inputs[partition].end
        is_batch = key is None
        self._add(
            partition,
            UndecodableRecord(
                first, first + count - 1, self._clock.wall_ms(), detail, key, value, headers, names, is_batch
            ),
        )
        return first

    def damage_last(self, partition: int, count: int) -> None:
        """A disk damages the batch of the last record, which turns out to have had so many records from there on."""
        here = self._inputs[partition]
        here.end = here.records.pop().offset
        self.append_undecodable(partition, "batch: expected its checksum", count=count, value=b"raw")

    def _add(self, partition: int, record: MemoryRecord | UndecodableRecord) -> None:
        self._inputs[partition].append(record)
        self._ring()

    def _ring(self) -> None:
        for log in self._members:
            log.arrived.set()

    def hang_input(self, partition: int) -> None:
        """Somebody opens a transaction on the input: what comes from now on is read after `end_input` only."""
        here = self._inputs[partition]
        here.stable = here.end
        here.end += 1  # a record of it

    def end_input(self, partition: int) -> None:
        """Aborts it."""
        self._inputs[partition].stable = None
        self.skip(partition, 1)
        self._ring()

    def skip(self, partition: int, count: int) -> None:
        """Uses up offsets without records, as markers of a shop's transactions do."""
        self._inputs[partition].end += count

    def truncate(self, partition: int, before_offset: int) -> None:
        """Retention: forgets events below an offset."""
        self._inputs[partition].truncate(before_offset)

    def remake_events(self) -> None:
        """Deletes the event topic and makes it again under its name: offsets begin anew."""
        for here in self._inputs:
            here.start = here.end = 0
            here.records.clear()
        self.broker.event_topic_id += "'"

    def grow_events(self) -> None:
        """One more partition. The group gives it to nobody: its members would hear of it later than of the topic."""
        self._inputs.append(EventTopicPartition())

    def end_offset(self, partition: int) -> int:
        """The offset that the next event gets."""
        return self._inputs[partition].end

    def group_offset(self, partition: int) -> int | None:
        """What the group was told of a partition."""
        return self._group.committed.get(partition)

    def records(self, partition: int) -> Sequence[MemoryRecord | UndecodableRecord]:
        """The events that are still held."""
        return self._inputs[partition].records

    # The state topic

    def remake_states(self) -> None:
        """Deletes the state topic and makes it again under its name: offsets begin anew, epochs go on."""
        for here in self._states:
            here.remake()
        self.broker.state_topic_id += "'"

    def fence(self, partition: int) -> None:
        """Somebody takes the owner's id who writes to another state topic."""
        self._states[partition].fence()

    def grow_states(self) -> None:
        """One more partition."""
        self._states.append(self._state_partition())

    def _state_partition(self) -> StateTopicPartition:
        return StateTopicPartition(self._clock, self.settings, self.dead_letters, self.results)

    def entries(self, partition: int) -> list[StateEntry]:
        """What a restore would read now."""
        here = self._states[partition]
        return here.read(0, here.end, here.end)[0]

    def write_foreign(self, partition: int, key: bytes, value: bytes | None) -> int:
        """Somebody else writes to the state topic; the offset."""
        here = self._states[partition]
        here.commit(here.begin(None, [(key, value)]))
        return here.end - 2

    def limit_letters(self, max_bytes: int) -> None:
        """Lets a gateway in front of the brokers refuse larger dead letters, whatever the topic's settings say."""
        for here in self._states:
            here.letter_takes_bytes = max_bytes

    def limit_results(self, max_bytes: int) -> None:
        """The same for results."""
        for here in self._states:
            here.result_takes_bytes = max_bytes

    def compact(self, partition: int, before: int | None = None) -> None:
        """Keeps the newest entry of each key, of those below an offset (default: all that readers may see)."""
        self._states[partition].compact(before)

    def hang(self, partition: int, timeout_s: float) -> None:
        """Opens a transaction of somebody else: readers see nothing beyond it before its timeout."""
        self._states[partition].hang(timeout_s)

    def commit_late(self, partition: int) -> bool:
        """Commits a transaction that a failed `write` left open: its commit arrived after all. False: none was."""
        return self._states[partition].commit_left_open()

    def watch(
        self, watcher: Callable[[int, Sequence[StateEntry], Sequence[DeadLetter], Sequence[Result]], None]
    ) -> None:
        """Tells of each transaction on the state topic at the moment when it is committed: partition, entries, dead
        letters, results. For invariants.
        """
        for partition, here in enumerate(self._states):
            here.watcher = partial(watcher, partition)

    # Faults of processes

    def freeze(self, member: str) -> None:
        """Lets none of its operations go on until `thaw`, as SIGSTOP does."""
        self._processes[member].freeze()

    def thaw(self, member: str) -> None:
        """Lets them go on."""
        self._processes[member].thaw()

    def crash(self, member: str) -> None:
        """Nothing it does has any effect from now on. The group and its transaction wait for their timeouts.

        The caller cancels the tasks of the process.
        """
        self._processes[member].crash()
        for log in self._members_of(member):
            log.halt()

    def expel(self, member: str, unaware_s: float = 0.0) -> None:
        """The group goes on without it, as after a session timeout. It learns of that at a poll, the first one after
        `unaware_s`: a coordinator that is a black hole keeps it in the dark for long. When the process has crashed
        and lives again, its former life is meant.
        """
        logs = [log for log in self._members_of(member) if not log.is_over]
        for log in [log for log in logs if log.process.crashed] or logs:
            log.unaware_until = self._clock.now() + unaware_s
            self._group.remove(log)

    def _members_of(self, member: str) -> list[MemoryEventLog]:
        return [log for log in self._members if log.process.name == member]

    def _process(self, name: str) -> Process:
        process = self._processes.get(name)
        if process is None or process.crashed:
            process = self._processes[name] = Process(name, lambda: self.gate)
        return process
