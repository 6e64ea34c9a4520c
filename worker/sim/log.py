"""An in-memory broker: one event topic, one compacted state topic, topics for dead letters and results, and a group.

It models Kafka 4.3 as seen through aiokafka 0.14, and what the protocol depends on: epochs, atomic transactions,
markers that use offsets, the last stable offset, compaction, eager rebalances. Everything waits on the caller's clock,
so it serves the simulation in virtual time and the demo in real time. Faults are off by default.
"""

import zlib
from collections.abc import Callable, Sequence
from functools import partial

from worker.ports import Clock, DeadLetter, EventLog, Result, StateEntry, StateLog, StateScan, UndecodableRecord
from worker.sim.group import Broker, EventTopicPartition, Group, MemoryEventLog, MemoryRecord
from worker.sim.process import Gate, Process
from worker.sim.scan import MemoryStateScan
from worker.sim.states import Entries, MemoryStateLog, StateSettings, StateTopicPartition

DAY_S = 86_400.0


class MemoryLog:
    """The brokers. Worker processes are identified by name."""

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
        """The dead letters of committed transactions."""
        self.results: list[Result] = []
        """The results of committed transactions."""
        self.gate: Gate | None = None
        """Awaited at each step of each operation; it may delay, and raise `LogError`.

        `fence`, `write`, `commit_group`, `stop`: before any effect; raising leaves it undone. `write:open`: the records
        are written and block readers; raising leaves them so until the partition is fenced again or the transaction
        times out. `fence:done`, `write:done`, `commit_group:done`: after the effect; raising makes the outcome unknown
        to the caller. `start`, `start_states`, `start_offset`, `group_offset`, `read` (before each list), `poll`,
        `poll:done` (before records are delivered). `close`: raising changes nothing. `revoke`, `join`, `join:done` may
        only delay: before the listener is notified of a rebalance, before the member rejoins, and before it gets its
        assignment.
        """
        self.broker = Broker(clock)
        self._clock = clock
        self._inputs = [EventTopicPartition() for _ in range(partitions)]
        settings = StateSettings(
            value_max_bytes, transaction_timeout_s, tombstone_s, letter_max_bytes, result_max_bytes
        )
        self.settings = settings
        """The configuration of the state topic; may be changed while workers are running, as an operator can."""
        self._states = [self._state_partition() for _ in range(partitions)]
        self._group = Group(partitions, clock, rebalance_timeout_s)
        self._processes: dict[str, Process] = {}
        self._members: list[MemoryEventLog] = []

    # For workers

    def events(self, member: str, name: str = "") -> EventLog:
        """The event topic for a process; after a crash, for the restarted process. `name`: by which the group knows it
        again.
        """
        process = self._process(member)
        log = MemoryEventLog(process, self._inputs, self._group, self._clock, self.broker, self._states, name)
        self._members = [each for each in self._members if not each.is_over]
        self._members.append(log)
        return log

    def states(self, member: str) -> StateLog:
        """The state topic for a process; after a crash, for the restarted process."""
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
        """Writes an event; returns its partition (default: by the key's CRC, 0 without a key) and offset."""
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
        """Writes an undecodable record (with a key), or a batch of `count` records; returns its first offset."""
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
        """Corrupts the batch of the last record, which then counts as a batch of `count` records."""
        here = self._inputs[partition]
        here.end = here.records.pop().offset
        self.append_undecodable(partition, "batch: expected its checksum", count=count, value=b"raw")

    def _add(self, partition: int, record: MemoryRecord | UndecodableRecord) -> None:
        self._inputs[partition].append(record)
        self._wake_polls()

    def _wake_polls(self) -> None:
        for log in self._members:
            log.arrived.set()

    def hang_input(self, partition: int) -> None:
        """Opens a foreign transaction on the input: later records are not readable before `end_input`."""
        here = self._inputs[partition]
        here.stable = here.end
        here.end += 1  # a record of it

    def end_input(self, partition: int) -> None:
        """Aborts the transaction of `hang_input`."""
        self._inputs[partition].stable = None
        self.skip(partition, 1)
        self._wake_polls()

    def skip(self, partition: int, count: int) -> None:
        """Uses offsets without records, like the markers of a shop's transactions."""
        self._inputs[partition].end += count

    def truncate(self, partition: int, before_offset: int) -> None:
        """Retention: deletes the events below an offset."""
        self._inputs[partition].truncate(before_offset)

    def remake_events(self) -> None:
        """Deletes and recreates the event topic: offsets restart at 0."""
        for here in self._inputs:
            here.start = here.end = 0
            here.records.clear()
        self.broker.event_topic_id += "'"

    def grow_events(self) -> None:
        """Adds a partition. The group does not assign it: its members would notice it later than the topic check."""
        self._inputs.append(EventTopicPartition())

    def end_offset(self, partition: int) -> int:
        """The offset of the next event."""
        return self._inputs[partition].end

    def group_offset(self, partition: int) -> int | None:
        """The offset that the group has committed for a partition."""
        return self._group.committed.get(partition)

    def records(self, partition: int) -> Sequence[MemoryRecord | UndecodableRecord]:
        """The retained events."""
        return self._inputs[partition].records

    # The state topic

    def truncate_state(self, partition: int, begin: int) -> None:
        """Deletes the records of a state partition below an offset."""
        self._states[partition].truncate(begin)

    def remake_states(self) -> None:
        """Deletes and recreates the state topic: offsets restart at 0, epochs continue."""
        for here in self._states:
            here.remake()
        self.broker.state_topic_id += "'"

    def fence(self, partition: int) -> None:
        """Fences a partition, as a deployment with the same transactional id but another state topic does."""
        self._states[partition].fence()

    def grow_states(self) -> None:
        """Adds a partition."""
        self._states.append(self._state_partition())

    def _state_partition(self) -> StateTopicPartition:
        return StateTopicPartition(self._clock, self.settings, self.dead_letters, self.results)

    def entries(self, partition: int) -> list[StateEntry]:
        """What a restore would read now."""
        here = self._states[partition]
        return here.read(here.start, here.end, here.end)[0]

    @property
    def state_partitions(self) -> int:
        """How many the state topic has."""
        return len(self._states)

    def state_end(self, partition: int) -> int:
        """The offset below which readers see what was committed."""
        return self._states[partition].stable()

    def state_read(self, partition: int, position: int, count_max: int) -> tuple[list[StateEntry], int]:
        """Committed entries from a position on, and the position after them."""
        here = self._states[partition]
        return here.read(position, here.end, count_max)

    def history(self, partition: int) -> list[StateEntry]:
        """All records of a partition of the history topic; nothing is compacted away."""
        return self._states[partition].history

    def write_foreign(self, partition: int, key: bytes, value: bytes | None) -> int:
        """Commits a record of a foreign producer to the state topic; returns its offset."""
        here = self._states[partition]
        here.commit(here.begin(None, [(key, value)]))
        return here.end - 2

    def limit_letters(self, max_bytes: int) -> None:
        """Makes a gateway in front of the brokers reject larger dead letters, whatever the topic's settings say."""
        for here in self._states:
            here.letter_takes_bytes = max_bytes

    def limit_results(self, max_bytes: int) -> None:
        """The same for results."""
        for here in self._states:
            here.result_takes_bytes = max_bytes

    def compact(self, partition: int, before: int | None = None) -> None:
        """Keeps the newest entry of each key among those below an offset (default: all readable ones)."""
        self._states[partition].compact(before)

    def hang(self, partition: int, timeout_s: float) -> None:
        """Opens a foreign transaction: it hides all later records until its timeout."""
        self._states[partition].hang(timeout_s)

    def commit_late(self, partition: int) -> bool:
        """Commits a transaction that a failed `write` left open: its commit arrived after all. False: none was open."""
        return self._states[partition].commit_left_open()

    def watch(
        self, watcher: Callable[[int, Sequence[StateEntry], Sequence[DeadLetter], Sequence[Result], Entries], None]
    ) -> None:
        """Calls `watcher` for each transaction on the state topic at its commit: partition, entries, dead letters,
        results, history. For invariants.
        """
        for partition, here in enumerate(self._states):
            here.watcher = partial(watcher, partition)

    # Faults of processes

    def freeze(self, member: str) -> None:
        """Blocks all operations of a process until `thaw`, like SIGSTOP."""
        self._processes[member].freeze()

    def thaw(self, member: str) -> None:
        """Lets them continue."""
        self._processes[member].thaw()

    def crash(self, member: str) -> None:
        """From now on nothing that the process does has any effect. Its membership and its transaction time out.

        The caller cancels the tasks of the process.
        """
        self._processes[member].crash()
        for log in self._members_of(member):
            log.halt()

    def expel(self, member: str, unaware_s: float = 0.0) -> None:
        """Removes a member from the group, as after a session timeout. It notices at its first poll after `unaware_s`:
        a coordinator that drops all packets can hide it for long. If the process has crashed and restarted, the
        membership from before the crash is removed.
        """
        logs = [log for log in self._members_of(member) if not log.is_over]
        for log in [log for log in logs if log.process.crashed] or logs:
            log.unaware_until = self._clock.now() + unaware_s
            self._group.remove(log)

    def notice(self, member: str) -> None:
        """A process learns now that it was expelled, as by a heartbeat, and joins again."""
        for log in self._members_of(member):
            log.called.set()

    def _members_of(self, member: str) -> list[MemoryEventLog]:
        return [log for log in self._members if log.process.name == member]

    def _process(self, name: str) -> Process:
        process = self._processes.get(name)
        if process is None or process.crashed:
            process = self._processes[name] = Process(name, lambda: self.gate)
        return process
