"""The event topic, read as a member of a consumer group.

Only availability depends on the group: the fence of the state topic decides who may write, and the lease who may send.
What a member must respect (aiokafka 0.14.0, measured with Kafka 4.3.1):

* No heartbeat is sent while `assigned` runs, so it must return immediately; and records of the new partitions can be
  delivered after its first await. So it is a plain function.
* A rebalance discards all positions, pauses and prefetched records, even of a partition that stays assigned.
* A member that does not call `getmany` for `max_poll_interval` leaves the group, and cannot rejoin without calling it;
  but `getmany` waits for the end of a rebalance without a limit. So the call runs in its own task, and continues when
  `poll` returns.
* An exception while `getmany` decodes one partition loses the records it has already fetched from others, whose
  positions have advanced. Undecodable records do not raise (`decoding`); a fetch without readable batch lengths does.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from worker.core.membership import MemberName
from worker.errors import GapError, LogError
from worker.kafka.client import (
    AIOKafkaAdminClient,
    AIOKafkaClient,
    AIOKafkaConsumer,
    Connection,
    ConsumerRebalanceListener,
    StickyPartitionAssignor,
    TopicPartition,
    as_cartsync_error,
    as_log_error,
    kafka_errors,
    stop_consumer,
)
from worker.kafka.decoding import Intake
from worker.kafka.metadata import GONE, describe_topics
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import require_topics
from worker.ports import AssignmentListener, InputRecord, TopicsSeen

__all__ = ["KafkaEventLog"]

log = structlog.get_logger(__name__)

_COMMIT_WITHIN_S = 5.0
_STOP_WITHIN_S = 3.0
_STALE_S = 15.0
_POLL_MARGIN_S = 0.5
"""How much longer than its timeout `getmany` may take before `poll` returns without it."""


class _Fetched(NamedTuple):
    """The result of one `getmany` call."""

    generation: int
    """The generation of the assignment it was fetched under."""
    records: Mapping[int, Sequence[InputRecord]]
    positions: Mapping[int, int]
    """The positions of all assigned partitions after these records; transaction markers advance them too."""
    error: Exception | None = None


class KafkaEventLog(ConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    """`ports.EventLog` on a consumer group."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._consumer: Any = None
        self._listener: AssignmentListener | None = None
        self._fetching: asyncio.Task[_Fetched] | None = None
        self._generation = 0
        """Counts revocations and assignments: records fetched in an older generation are not delivered."""
        self._is_rebalancing = False
        self._positions: dict[int, int] = {}
        """By assigned partition: the next offset to deliver."""
        self._sought: set[int] = set()
        """The assigned partitions whose position is not a placeholder any more."""
        self._touched: set[int] = set()
        """Partitions paused or sought since the last `getmany` returned: its records of these are stale."""
        self._suspects: list[int] = []
        """Partitions polled one by one, because one of them has undecodable records."""
        self._listener_error: Exception | None = None
        self._name = MemberName(settings.group_instance_id)
        self._is_member = False
        self._last_response_at: float | None = None

    async def start(self, listener: AssignmentListener) -> None:
        """Returns after the first assignment, with the listener already notified. Raises also `ConfigError` if Kafka
        rejects us, `LogError` if it does not respond.
        """
        settings = self._settings
        connection = Connection(settings)
        await require_topics(connection)
        self._listener = listener
        self._consumer = AIOKafkaConsumer(
            **connection.options(settings.group_request_timeout_s),
            group_id=settings.group_id,
            group_instance_id=self._name.current or None,
            enable_auto_commit=False,
            auto_offset_reset="none",  # the default, latest, silently skips events that retention has removed
            isolation_level=settings.input_isolation,
            key_deserializer=Intake(),
            session_timeout_ms=_ms(settings.session_timeout_s),
            heartbeat_interval_ms=_ms(settings.heartbeat_s),
            rebalance_timeout_ms=_ms(settings.rebalance_timeout_s),
            max_poll_interval_ms=_ms(settings.max_poll_interval_s),
            fetch_max_wait_ms=_ms(settings.fetch_wait_s),
            partition_assignment_strategy=(_own_assignor(),),
        )
        connection.follow(self._consumer._client)  # noqa: SLF001 - no public access
        self._track_responses(self._consumer._client)  # noqa: SLF001
        self._consumer.subscribe([settings.event_topic], listener=self)
        try:
            async with asyncio.timeout(settings.join_timeout_s):
                await self._consumer.start()
        except BaseException as error:
            await self.stop()
            if isinstance(error, kafka_errors.KafkaError | TimeoutError):
                raise as_cartsync_error(error, f"joining group {settings.group_id}") from error
            raise

    async def poll(self, timeout_s: float, max_records: int) -> Mapping[int, Sequence[InputRecord]]:
        """Raises `GapError` also if records cannot be decoded; its partitions are then paused. After any other error
        this member is unusable.
        """
        if self._consumer is None:
            raise LogError("the event log is stopped")
        if self._fetching is None:
            wanted = [self._tp(self._suspects[0])] if self._suspects else []
            self._fetching = asyncio.create_task(self._fetch(wanted, timeout_s, max_records), name="fetch events")
        fetching = self._fetching
        await asyncio.wait({fetching}, timeout=timeout_s + _POLL_MARGIN_S)
        if self._listener_error is not None:
            raise self._listener_error
        if not fetching.done():  # a rebalance is in progress: `getmany` goes on, and the next `poll` returns its result
            return {}
        self._fetching = None
        if fetching.cancelled():
            raise LogError("the event log is stopped")
        fetched = fetching.result()
        if fetched.error is not None:
            self._failed(fetched, fetched.error)
            return {}
        return self._delivered(fetched) if fetched.generation == self._generation else {}

    async def _fetch(self, wanted: list[Any], timeout_s: float, max_records: int) -> _Fetched:
        batches: Mapping[Any, Sequence[InputRecord]] = {}
        error: Exception | None = None
        try:
            batches = await self._consumer.getmany(*wanted, timeout_ms=_ms(timeout_s), max_records=max_records)
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.NoOffsetForPartitionError) as caught:
            error = gap = _gap(caught)
            if not self._is_rebalancing:
                self._consumer.pause(*map(self._tp, gap.partitions))  # or the next fetch would fail the same way
        except Exception as caught:  # noqa: BLE001 - decoding may raise anything
            error = caught
        self._touched.clear()
        generation = self._generation
        if error is not None or self._is_rebalancing:
            return _Fetched(generation, {}, {}, error)
        positions = {p: await self._consumer.position(self._tp(p)) for p in self._positions}
        return _Fetched(generation, {tp.partition: records for tp, records in batches.items()}, positions)

    def _delivered(self, fetched: _Fetched) -> Mapping[int, Sequence[InputRecord]]:
        """The records to deliver: none of a partition that was paused or sought after they had been fetched."""
        # The library has advanced the position past the records that are dropped here: seek back to them.
        for partition in self._touched & fetched.records.keys():
            self._consumer.seek(self._tp(partition), self._positions[partition])
        untouched = fetched.positions.keys() - self._touched
        self._positions.update({partition: fetched.positions[partition] for partition in untouched})
        del self._suspects[:1]
        return {partition: records for partition, records in fetched.records.items() if partition in untouched}

    def _failed(self, fetched: _Fetched, error: Exception) -> None:
        """Raises our error for an exception of `getmany`, or starts isolating the partition that caused it."""
        is_stale = fetched.generation != self._generation or self._is_rebalancing
        if isinstance(error, GapError):
            # The position was from before a rebalance or a seek: the next fetch uses the new one.
            if is_stale or error.partitions <= self._touched:
                return
            raise error
        is_finished = isinstance(error, kafka_errors.KafkaError | kafka_errors.ConsumerStoppedError)
        if is_finished and not isinstance(error, kafka_errors.CorruptRecordException):
            raise as_cartsync_error(error, "polling events") from error
        if not is_stale:
            self._isolate_undecodable(error)

    def _isolate_undecodable(self, error: Exception) -> None:
        """Polls the partitions one by one, and finally raises `GapError` for the one with undecodable records.

        The exception does not name the partition, and `getmany` has lost the records of the others: all of them seek
        back to their last delivered position.
        """
        for partition, position in self._positions.items():
            self._consumer.seek(self._tp(partition), position)
        if not self._suspects:
            paused = {tp.partition for tp in self._consumer.paused()}
            self._suspects = sorted(self._positions.keys() - paused)
            log.warning("input_undecodable", partitions=self._suspects, error=type(error).__name__)
            return
        culprit = self._suspects[0]
        self._suspects.clear()
        self.pause(culprit)
        where = f"partition {culprit} of {self._settings.event_topic}, offset {self._positions[culprit]} or after"
        raise GapError(f"records cannot be decoded: {where} ({type(error).__name__})", [culprit]) from error

    # --- callbacks of the library, which only logs their exceptions: they are kept for the next `poll` to raise ---

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Does everything before any await: records could otherwise be delivered before the first `seek`."""
        if self._consumer is None:  # stopped before the broker responded to our join
            return
        for tp in assigned:
            self._consumer.pause(tp)
            self._consumer.seek(tp, 0)  # a placeholder, never fetched; saves fetching the committed offset
        self._is_member = True
        self._positions = {tp.partition: 0 for tp in assigned}
        self._sought.clear()
        self._suspects.clear()
        self._generation += 1
        self._is_rebalancing = False
        assert self._listener is not None
        try:
            self._listener.assigned(set(self._positions))
        except Exception as error:  # noqa: BLE001 - see above
            self._listener_error = error

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """Heartbeats continue meanwhile. Also called for lost partitions: the library has no other callback."""
        self._generation += 1
        self._is_rebalancing = True
        if self._is_member and self._consumer is not None and not self._consumer._coordinator.member_id:  # noqa: SLF001
            self._membership_lost(self._consumer._coordinator)  # noqa: SLF001 - the library tells nobody
        partitions = {tp.partition for tp in revoked}
        assert self._listener is not None
        try:
            if partitions:
                await self._listener.revoked(partitions)
        except Exception as error:  # noqa: BLE001 - see above
            self._listener_error = error

    def _membership_lost(self, coordinator: Any) -> None:
        """Before the library joins again, as a new member."""
        self._is_member = False
        if self._name.lost(asyncio.get_running_loop().time()):
            coordinator._group_instance_id = None  # noqa: SLF001 - no public way
            do = "give each worker one of its own, unless this one stood still or was cut off from Kafka"
            log.warning("group_instance_id_given_up", group_instance_id=self._settings.group_instance_id, do=do)

    # --- ports.EventLog again ---

    def seek(self, partition: int, offset: int) -> None:
        self._consumer.seek(self._assigned_tp(partition), offset)
        self._positions[partition] = offset
        self._sought.add(partition)
        self._touched.add(partition)

    def pause(self, partition: int) -> None:
        self._consumer.pause(self._assigned_tp(partition))
        self._touched.add(partition)

    def resume(self, partition: int) -> None:
        self._consumer.resume(self._assigned_tp(partition))

    def position(self, partition: int) -> int | None:
        return self._positions.get(partition) if partition in self._sought else None

    async def start_offset(self, partition: int, latest: bool) -> int:
        """Under read_committed the end is the last stable offset."""
        tp = self._tp(partition)
        offsets_of = self._consumer.end_offsets if latest else self._consumer.beginning_offsets
        offset: int = (await self._within_limit(offsets_of([tp]), "fetching the offsets of the input"))[tp]
        return offset

    async def group_offset(self, partition: int) -> int | None:
        committed = self._consumer.committed(self._tp(partition))
        offset: int | None = await self._within_limit(committed, "fetching the group's committed offset")
        return offset

    async def _within_limit(self, request: Awaitable[Any], doing: str) -> Any:
        """The library retries such a request without a limit."""
        try:
            async with asyncio.timeout(self._settings.fence_timeout_s):
                return await request
        except (kafka_errors.KafkaError, TimeoutError) as error:
            raise as_log_error(error, doing) from error

    async def commit_group(self, offsets: Mapping[int, int]) -> bool:
        """Takes at most 5 s."""
        ours = {self._tp(p): offset for p, offset in offsets.items() if p in self._positions}
        try:
            async with asyncio.timeout(_COMMIT_WITHIN_S):
                if not ours and self._positions:
                    # Only a commit proves our membership: commit again what the group has for one of our partitions.
                    tp = self._tp(min(self._positions))
                    ours[tp] = await self._consumer.committed(tp) or 0
                if not ours:
                    return False
                await self._consumer.commit(ours)
        except (kafka_errors.KafkaError, kafka_errors.IllegalOperation, TimeoutError) as error:
            log.debug("group_commit_failed", error=type(error).__name__)
            return False
        return True

    def lag(self, partition: int) -> int | None:
        """`None` until records were fetched."""
        tp = self._tp(partition)
        if self.silent_s() > _STALE_S:  # the high watermark is from before the brokers fell silent
            return None
        if partition not in self._positions or tp not in self._consumer.assignment():
            return None
        end: int | None = self._consumer.highwater(tp)
        return None if end is None else max(0, end - self._positions[partition])

    def behind_open(self, partition: int) -> int | None:
        """`None` until records were fetched."""
        tp = self._tp(partition)
        if self.silent_s() > _STALE_S:  # the offsets are from before the brokers fell silent
            return None
        if partition not in self._positions or tp not in self._consumer.assignment():
            return None
        end: int | None = self._consumer.highwater(tp)
        stable: int | None = self._consumer.last_stable_offset(tp)
        # Brokers return it under read_uncommitted too, where it does not limit what we read.
        if end is None or stable is None or stable < 0 or self._settings.input_isolation != "read_committed":
            return None if end is None else 0
        return max(0, end - max(stable, self._positions[partition]))

    def silent_s(self) -> float:
        return 0.0 if self._last_response_at is None else asyncio.get_running_loop().time() - self._last_response_at

    def _track_responses(self, client: Any) -> None:
        """Records the time of each response: the library does not report when responses stop."""
        send, loop = client.send, asyncio.get_running_loop()
        self._last_response_at = loop.time()

        async def send_and_track(*args: Any, **options: Any) -> Any:
            response = await send(*args, **options)
            self._last_response_at = loop.time()
            return response

        client.send = send_and_track

    async def describe_topics(self) -> TopicsSeen:
        settings = self._settings
        names = [settings.event_topic, settings.state_topic]
        if self._consumer is not None:
            seen = await describe_topics(self._consumer._client, names, settings.request_timeout_s)  # noqa: SLF001
        else:
            client = AIOKafkaClient(**Connection(settings).options(settings.request_timeout_s))
            try:
                await client.bootstrap()
                seen = await describe_topics(client, names, settings.request_timeout_s)
            except kafka_errors.KafkaError as error:
                raise as_log_error(error, "describing the topics") from error
            finally:
                await client.close()
        events, states = (seen.topics.get(name, GONE) for name in names)
        return TopicsSeen(seen.id, events.id, states.id, events.partitions, states.partitions)

    async def members_of(self, group_id: str) -> int:
        settings = self._settings
        admin = AIOKafkaAdminClient(**Connection(settings).options(settings.request_timeout_s))
        doing = f"listing the members of group {group_id}"
        try:
            async with asyncio.timeout(settings.fence_timeout_s):
                await admin.start()
                (answer,) = await admin.describe_consumer_groups([group_id])
        except (kafka_errors.KafkaError, TimeoutError) as error:
            raise as_log_error(error, doing) from error
        finally:
            await admin.close()
        ((error_code, _group, _state, _type, _protocol, members, *_),) = answer.groups
        if error_code:
            raise as_log_error(kafka_errors.for_code(error_code)(), doing)
        return len(members)

    async def stop(self) -> None:
        """Takes at most 5 s; may be called again."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})
            self._fetching = None
        consumer, self._consumer = self._consumer, None
        self._positions = {}
        if consumer is not None:
            if (coordinator := consumer._coordinator) is not None:  # noqa: SLF001 - no public way
                # The library sends no LeaveGroup for a static member: its partitions would wait for the session's end.
                coordinator._group_instance_id = None  # noqa: SLF001
            await stop_consumer(consumer, _STOP_WITHIN_S)

    def _assigned_tp(self, partition: int) -> Any:
        if partition not in self._positions or self._tp(partition) not in self._consumer.assignment():
            raise LogError(f"partition {partition} is not assigned to this member")
        return self._tp(partition)

    def _tp(self, partition: int) -> Any:
        return TopicPartition(self._settings.event_topic, partition)


def _own_assignor() -> Any:
    """The library stores an assignor's state in its class: two members in one process would share it."""
    return type("OwnStickyAssignor", (StickyPartitionAssignor,), {})


def _gap(error: Exception) -> GapError:
    match error.args[0]:
        case dict() as offsets:
            where = ", ".join(f"partition {tp.partition} from offset {offset} on" for tp, offset in offsets.items())
            return GapError(f"the input no longer contains {where}", [tp.partition for tp in offsets])
        case tp:
            return GapError(f"partition {tp.partition} has no position (seek was never called)", [tp.partition])


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
