"""The event topic, read as a member of a consumer group.

Only availability hangs on the group: who may write is decided by the fence of the state topic, and who may send by the
lease. What a member must respect (aiokafka 0.14.0, measured with Kafka 4.3.1):

* No heartbeat goes out while `assigned` runs, so it returns at once; and only what it does before its first await is
  done before records of the new partitions can be delivered. Hence all of it is one plain function.
* After a rebalance every position, pause and prefetched record is gone, also of a partition that stays.
* A member that does not call `getmany` for `max_poll_interval` leaves the group, and cannot come back without calling
  it; but `getmany` waits for the end of a rebalance without a limit. So the call runs on in a task of its own while
  `poll` returns.
* An exception while `getmany` decodes one partition loses what it had taken of others: their positions have moved on.
  Records that cannot be decoded raise none (`decoding`); what still does is a fetch whose batches cannot be told apart.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog

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
from worker.kafka.metadata import GONE, look
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import require_topics
from worker.ports import AssignmentListener, InputRecord, TopicsSeen

__all__ = ["KafkaEventLog"]

log = structlog.get_logger(__name__)

_COMMIT_WITHIN_S = 5.0
_STOP_WITHIN_S = 3.0
_STALE_S = 15.0
_POLL_MARGIN_S = 0.5
"""How much longer than asked `getmany` may take before `poll` goes without it."""


class _Fetched(NamedTuple):
    """What one call of `getmany` brought."""

    generation: int
    """That of the assignment it came from."""
    records: Mapping[int, Sequence[InputRecord]]
    positions: Mapping[int, int]
    """Of all assigned partitions, after these records; transaction markers move them too."""
    error: Exception | None = None


class KafkaEventLog(ConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    """ports.EventLog on a consumer group."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._consumer: Any = None
        self._listener: AssignmentListener | None = None
        self._fetching: asyncio.Task[_Fetched] | None = None
        self._generation = 0
        """Counts revocations and assignments: what was fetched in an older one is not delivered."""
        self._is_rebalancing = False
        self._positions: dict[int, int] = {}
        """Of the assigned partitions: where what was not delivered yet begins."""
        self._sought: set[int] = set()
        """Those of them whose position is more than a placeholder."""
        self._touched: set[int] = set()
        """Paused or sought since the last `getmany` returned: what it brought of these is out of date."""
        self._suspects: list[int] = []
        """Polled one by one, because the records of one of them cannot be decoded."""
        self._listener_error: Exception | None = None
        self._heard_at: float | None = None

    async def start(self, listener: AssignmentListener) -> None:
        """Joins the group; returns after the first assignment, of which the listener knows by then.

        Raises `TopicError`; `ConfigError` when Kafka refuses us, `LogError` when it does not answer.
        """
        settings = self._settings
        connection = Connection(settings)
        await require_topics(connection)
        self._listener = listener
        self._consumer = AIOKafkaConsumer(
            **connection.options(settings.group_request_timeout_s),
            group_id=settings.group_id,
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
        connection.follow(self._consumer._client)  # noqa: SLF001 - nothing public reaches it
        self._listen(self._consumer._client)  # noqa: SLF001
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
        """Records by partition, each in the order of its offsets; empty when nothing came in time.

        Raises `GapError` (with `.partitions`) when a position is outside what the topic still holds, or when records
        cannot be decoded; those partitions are paused then. Any other error: this member is finished.
        """
        if self._consumer is None:
            raise LogError("the event log is stopped")
        if self._fetching is None:
            wanted = [self._here(self._suspects[0])] if self._suspects else []
            self._fetching = asyncio.create_task(self._fetch(wanted, timeout_s, max_records), name="fetch events")
        fetching = self._fetching
        await asyncio.wait({fetching}, timeout=timeout_s + _POLL_MARGIN_S)
        if self._listener_error is not None:
            raise self._listener_error
        if not fetching.done():  # a rebalance is under way
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
                self._consumer.pause(*map(self._here, gap.partitions))  # before it is fetched, and so fails, once more
        except Exception as caught:  # noqa: BLE001 - decoding may raise anything
            error = caught
        self._touched.clear()
        generation = self._generation
        if error is not None or self._is_rebalancing:
            return _Fetched(generation, {}, {}, error)
        positions = {p: await self._consumer.position(self._here(p)) for p in self._positions}
        return _Fetched(generation, {here.partition: records for here, records in batches.items()}, positions)

    def _delivered(self, fetched: _Fetched) -> Mapping[int, Sequence[InputRecord]]:
        """What is delivered of it: nothing of a partition that was paused or sought after it had been fetched."""
        for partition in self._touched & fetched.records.keys():
            self._consumer.seek(self._here(partition), self._positions[partition])
        untouched = fetched.positions.keys() - self._touched
        self._positions.update({partition: fetched.positions[partition] for partition in untouched})
        del self._suspects[:1]
        return {partition: records for partition, records in fetched.records.items() if partition in untouched}

    def _failed(self, fetched: _Fetched, error: Exception) -> None:
        """Raises what an exception of `getmany` means, or has the partition looked for that it comes from."""
        is_stale = fetched.generation != self._generation or self._is_rebalancing
        if isinstance(error, GapError):
            if is_stale or error.partitions <= self._touched:
                return
            raise error
        is_finished = isinstance(error, kafka_errors.KafkaError | kafka_errors.ConsumerStoppedError)
        if is_finished and not isinstance(error, kafka_errors.CorruptRecordException):
            raise as_cartsync_error(error, "polling events") from error
        if not is_stale:
            self._isolate_undecodable(error)

    def _isolate_undecodable(self, error: Exception) -> None:
        """Has partitions polled one by one, and in the end raises `GapError` for the one that was found.

        The exception does not name it, and what `getmany` had taken of others before it is lost: back to where all of
        them were.
        """
        for partition, position in self._positions.items():
            self._consumer.seek(self._here(partition), position)
        if not self._suspects:
            paused = {here.partition for here in self._consumer.paused()}
            self._suspects = sorted(self._positions.keys() - paused)
            log.warning("input_undecodable", partitions=self._suspects, error=type(error).__name__)
            return
        culprit = self._suspects[0]
        self._suspects.clear()
        self.pause(culprit)
        where = f"partition {culprit} of {self._settings.event_topic}, offset {self._positions[culprit]} or after"
        raise GapError(f"records cannot be decoded: {where} ({type(error).__name__})", [culprit]) from error

    # --- what the library calls; what is raised there is only logged, so it is kept for the next `poll` ---

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """All of it before any await, or records could come of a partition that nobody has sought yet."""
        if self._consumer is None:  # stopped while the broker was still to answer our join
            return
        for here in assigned:
            self._consumer.pause(here)
            self._consumer.seek(here, 0)  # a placeholder, never fetched; saves the look-up of the committed offset
        self._positions = {here.partition: 0 for here in assigned}
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
        """Heartbeats go on meanwhile. Also called when the partitions are long gone: there is no other callback."""
        self._generation += 1
        self._is_rebalancing = True
        partitions = {here.partition for here in revoked}
        assert self._listener is not None
        try:
            if partitions:
                await self._listener.revoked(partitions)
        except Exception as error:  # noqa: BLE001 - see above
            self._listener_error = error

    # --- ports.EventLog again ---

    def seek(self, partition: int, offset: int) -> None:
        """The next record wanted of an assigned partition."""
        self._consumer.seek(self._ours(partition), offset)
        self._positions[partition] = offset
        self._sought.add(partition)
        self._touched.add(partition)

    def pause(self, partition: int) -> None:
        """Delivers nothing of this partition until `resume`; what was fetched ahead is thrown away."""
        self._consumer.pause(self._ours(partition))
        self._touched.add(partition)

    def resume(self, partition: int) -> None:
        """Delivers again."""
        self._consumer.resume(self._ours(partition))

    def position(self, partition: int) -> int | None:
        """Below it everything was delivered or is no record: transaction markers and what was aborted move it, too."""
        return self._positions.get(partition) if partition in self._sought else None

    async def start_offset(self, partition: int, latest: bool) -> int:
        """The first offset that the topic still holds, or the one after its last (read_committed: the last stable)."""
        here = self._here(partition)
        ask = self._consumer.end_offsets if latest else self._consumer.beginning_offsets
        offset: int = (await self._answer(ask([here]), "asking where the input begins and ends"))[here]
        return offset

    async def group_offset(self, partition: int) -> int | None:
        """What the group has committed: only ever compared, never trusted."""
        asked = self._consumer.committed(self._here(partition))
        offset: int | None = await self._answer(asked, "asking what the group has committed")
        return offset

    async def _answer(self, asked: Awaitable[Any], doing: str) -> Any:
        """The library repeats such questions for ever."""
        try:
            async with asyncio.timeout(self._settings.fence_timeout_s):
                return await asked
        except (kafka_errors.KafkaError, TimeoutError) as error:
            raise as_log_error(error, doing) from error

    async def commit_group(self, offsets: Mapping[int, int]) -> bool:
        """Tells the group how far we are, for lag tools. True: the broker took us for a member of the group.

        Of partitions that are not ours nothing is told; when none is left, what the group knows of one of ours is told
        again, so that the answer still says whether we are a member. At most 5 s.
        """
        ours = {self._here(p): offset for p, offset in offsets.items() if p in self._positions}
        try:
            async with asyncio.timeout(_COMMIT_WITHIN_S):
                if not ours and self._positions:
                    one = self._here(min(self._positions))
                    ours[one] = await self._consumer.committed(one) or 0
                if not ours:
                    return False
                await self._consumer.commit(ours)
        except (kafka_errors.KafkaError, kafka_errors.IllegalOperation, TimeoutError) as error:
            log.debug("group_commit_failed", error=type(error).__name__)
            return False
        return True

    def lag(self, partition: int) -> int | None:
        """Records between the position and the end, those behind an open transaction too; `None` until some were
        fetched.
        """
        here = self._here(partition)
        if self.silent_s() > _STALE_S:  # what was true when they fell silent
            return None
        if partition not in self._positions or here not in self._consumer.assignment():
            return None
        end: int | None = self._consumer.highwater(here)
        return None if end is None else max(0, end - self._positions[partition])

    def behind_open(self, partition: int) -> int | None:
        """Records that cannot be read before somebody ends a transaction; `None` until some were fetched."""
        here = self._here(partition)
        if self.silent_s() > _STALE_S:  # what was true when they fell silent
            return None
        if partition not in self._positions or here not in self._consumer.assignment():
            return None
        end: int | None = self._consumer.highwater(here)
        stable: int | None = self._consumer.last_stable_offset(here)
        # Brokers tell it under read_uncommitted, too, where it is not what ends our reading.
        if end is None or stable is None or stable < 0 or self._settings.input_isolation != "read_committed":
            return None if end is None else 0
        return max(0, end - max(stable, self._positions[partition]))

    def silent_s(self) -> float:
        """For how long no broker has answered this member, be it to a heartbeat."""
        return 0.0 if self._heard_at is None else asyncio.get_running_loop().time() - self._heard_at

    def _listen(self, client: Any) -> None:
        """Takes note of each answer: the library tells nobody that none comes."""
        send, loop = client.send, asyncio.get_running_loop()
        self._heard_at = loop.time()

        async def send_and_note(*args: Any, **options: Any) -> Any:
            answer = await send(*args, **options)
            self._heard_at = loop.time()
            return answer

        client.send = send_and_note

    async def look(self) -> TopicsSeen:
        """What the brokers say of the topics now. Raises `LogError`."""
        settings = self._settings
        names = [settings.event_topic, settings.state_topic]
        if self._consumer is not None:
            seen = await look(self._consumer._client, names, settings.request_timeout_s)  # noqa: SLF001
        else:
            client = AIOKafkaClient(**Connection(settings).options(settings.request_timeout_s))
            try:
                await client.bootstrap()
                seen = await look(client, names, settings.request_timeout_s)
            except kafka_errors.KafkaError as error:
                raise as_log_error(error, "asking for the topics") from error
            finally:
                await client.close()
        events, states = (seen.topics.get(name, GONE) for name in names)
        return TopicsSeen(seen.id, events.id, states.id, events.partitions, states.partitions)

    async def members_of(self, group_id: str) -> int:
        """How many members a group has now. Raises `LogError` when nobody tells."""
        settings = self._settings
        admin = AIOKafkaAdminClient(**Connection(settings).options(settings.request_timeout_s))
        doing = f"asking who is in group {group_id}"
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
        """Leaves the group. Does not call the listener. At most 5 s; may be repeated."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})
            self._fetching = None
        consumer, self._consumer = self._consumer, None
        self._positions = {}
        if consumer is not None:
            await stop_consumer(consumer, _STOP_WITHIN_S)

    def _ours(self, partition: int) -> Any:
        if partition not in self._positions or self._here(partition) not in self._consumer.assignment():
            raise LogError(f"partition {partition} is not assigned to this member")
        return self._here(partition)

    def _here(self, partition: int) -> Any:
        return TopicPartition(self._settings.event_topic, partition)


def _own_assignor() -> Any:
    """The library keeps an assignor's memory in its class: two members in one process would share it."""
    return type("OwnStickyAssignor", (StickyPartitionAssignor,), {})


def _gap(error: Exception) -> GapError:
    match error.args[0]:
        case dict() as offsets:
            where = ", ".join(f"partition {here.partition} from offset {offset} on" for here, offset in offsets.items())
            return GapError(f"the input does not hold {where}", [here.partition for here in offsets])
        case here:
            return GapError(f"partition {here.partition} was never sought", [here.partition])


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
