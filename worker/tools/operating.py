"""Acts by operators' events: writes them to the event topic, and reads along in the state topic until the workers that
serve their partitions have taken them. For the command line and the console; no private port is asked.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack

from msgspec import Struct

from schemas import state
from schemas.console import ActionLine
from schemas.state import Operated
from worker.core.commands import Command
from worker.core.operator_event import Written, operator_event
from worker.core.placing import Placing
from worker.core.trust import Trust
from worker.errors import CartsyncError, LogError, UsageError
from worker.ports import EventProducer, Records
from worker.tools.control import ambiguous

TAKEN_WITHIN_S = 30.0
"""From the moment an event is written: longer than a takeover takes when a worker has just gone."""
WRITTEN_WITHIN_S = 30.0
AT_ONCE_MAX = 100
"""Events that are written and not taken yet: of many, the others follow when these are taken."""
PER_S = 100.0
"""Of many events, how many are written in a second, at most."""
_LOOK_S = 0.2

_ORDER, _ACCOUNT = state.ORDER_PREFIX.encode(), state.ACCOUNT_PREFIX.encode()


class Target(Struct, frozen=True):
    """An order with the partitions where it lies (usually one), or an account with all of them."""

    subject: str
    partitions: Sequence[int]


class Came(Struct, frozen=True):
    """What came of one event."""

    line: ActionLine
    is_taken: bool
    """In every partition that it was for."""


class Acts:
    """What is needed to act: how to reach Kafka, and what makes an event believed."""

    def __init__(
        self,
        open_records: Callable[[], Records],
        open_producer: Callable[[], EventProducer],
        placing: Placing | None,
        trust: Trust,
        wall_ms: Callable[[], int],
        *,
        taken_within_s: float = TAKEN_WITHIN_S,
        per_s: float = PER_S,
    ) -> None:
        """`placing`: how the shop chooses keys, if that is checked. `wall_ms`: UTC milliseconds. `per_s`: events."""
        self._open_records = open_records
        self._open_producer = open_producer
        self._placing = placing
        self._trust = trust
        self._wall_ms = wall_ms
        self._taken_within_s = taken_within_s
        self._per_s = per_s

    async def on_account(self, command: Command, account: str, by: str, why: str) -> Came:
        """Writes to every partition; what came of it. Raises `UsageError`, `LogError`."""
        async with AsyncExitStack() as stack:
            records = await self._reading(stack)
            every = sorted(await _ends(records))
            return (await self._act(records, self._writing(stack), command, [Target(account, every)], by, why))[0]

    async def on_orders(
        self,
        command: Command,
        targets: Sequence[Target],
        by: str,
        why: str,
        *,
        progress: Callable[[Sequence[Came]], None] = lambda _came: None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> list[Came]:
        """What came of each, in the same order; a bounded number at once, and in a second. When nobody takes some of
        them in time, those after them are not written. `progress`: what came of some more; `is_stopped`: no more are
        written, and they are missing from the list. Raises `UsageError`, `LogError`.
        """
        loop = asyncio.get_running_loop()
        found: list[Came] = []
        async with AsyncExitStack() as stack:
            records, producer = await self._reading(stack), self._writing(stack)
            for start in range(0, len(targets), AT_ONCE_MAX):
                if is_stopped():
                    break
                if not all(each.is_taken for each in found[-AT_ONCE_MAX:]):
                    found += [_not_written(target) for target in targets[start:]]
                    break
                due = loop.time() + AT_ONCE_MAX / self._per_s
                came = await self._act(records, producer, command, targets[start : start + AT_ONCE_MAX], by, why)
                found += came
                progress(came)
                if len(found) < len(targets) and not is_stopped():
                    await asyncio.sleep(due - loop.time())
        return found

    async def _reading(self, stack: AsyncExitStack) -> Records:
        records = self._open_records()
        await records.start()
        stack.push_async_callback(records.stop)
        return records

    def _writing(self, stack: AsyncExitStack) -> EventProducer:
        producer = self._open_producer()
        producer.start()
        stack.push_async_callback(producer.stop)
        return producer

    async def _act(
        self,
        records: Records,
        producer: EventProducer,
        command: Command,
        targets: Sequence[Target],
        by: str,
        why: str,
    ) -> list[Came]:
        written = [self._event(command, target.subject, by, why) for target in targets]
        # From here on whatever is committed is read: it is taken after it was written.
        wanted = {partition for target in targets for partition in target.partitions}
        records.seek(
            {("state", partition): end for partition, end in (await _ends(records)).items() if partition in wanted}
        )
        sent = await asyncio.gather(
            *(
                self._write(producer, event, partition)
                for event, target in zip(written, targets, strict=True)
                for partition in target.partitions
            )
        )
        places = iter(sent)
        pending: dict[tuple[bytes, int], int] = {}
        problems: dict[bytes, str] = {}
        for event, target in zip(written, targets, strict=True):
            for partition in target.partitions:
                offset = next(places)
                if isinstance(offset, int):
                    pending[event.uid, partition] = offset
                else:
                    problems[event.uid] = offset
        deeds = await self._taken(records, pending)
        return [
            _came(target, event.uid, problems.get(event.uid, ""), deeds, self._taken_within_s)
            for event, target in zip(written, targets, strict=True)
        ]

    def _event(self, command: Command, subject: str, by: str, why: str) -> Written:
        return operator_event(
            command,
            subject,
            event_id=str(uuid.uuid4()),
            by=by,
            why=why,
            now_ms=self._wall_ms(),
            trust=self._trust,
            placing=self._placing,
        )

    async def _write(self, producer: EventProducer, event: Written, partition: int) -> int | str:
        """The record's offset, or why it may not be there."""
        try:
            async with asyncio.timeout(WRITTEN_WITHIN_S):
                sent = await producer.post(event.key, event.value, event.headers, partition)
                return int((await sent).offset)
        except TimeoutError:
            return (
                f"the brokers did not acknowledge it within {WRITTEN_WITHIN_S:.0f} s; look at the order, then try again"
            )
        except CartsyncError as error:
            return f"it was not written: {error}"
        except Exception as error:  # noqa: BLE001 - of whatever client; it may be written all the same
            return f"the brokers did not acknowledge it: {type(error).__name__}"

    async def _taken(
        self, records: Records, pending: Mapping[tuple[bytes, int], int]
    ) -> dict[tuple[bytes, int], Operated | None]:
        """By event and partition what came of it, of those that were taken in time; `None`: nothing was known there."""
        found: dict[tuple[bytes, int], Operated | None] = {}
        uids = {uid for uid, _ in pending}
        loop = asyncio.get_running_loop()
        until = loop.time() + self._taken_within_s
        while len(found) < len(pending) and (left_s := until - loop.time()) > 0:
            for chunk in await records.read(min(_LOOK_S, left_s)):
                for record in chunk.records:
                    if record.key is None or record.value is None:
                        continue
                    for deed in _deeds(record.key, record.value):
                        if deed.uid in uids:
                            found[deed.uid, chunk.partition] = deed
                    if record.key == state.NEXT_KEY:  # the last record of its transaction
                        until_offset = state.decode_next(record.value).offset
                        for (uid, partition), offset in pending.items():
                            if partition == chunk.partition and offset < until_offset:
                                found.setdefault((uid, partition), None)
        return found


def _deeds(key: bytes, value: bytes) -> Iterable[Operated]:
    """What operators did, as a record of the state topic has it."""
    if key.startswith(_ORDER):
        return state.decode_order(value).operated
    return state.decode_account(value).operated if key.startswith(_ACCOUNT) else ()


async def _ends(records: Records) -> dict[int, int]:
    """By partition, the end of the state topic. Raises `LogError`."""
    found = (await records.topics()).get("state")
    if found is None:
        raise LogError("the state topic is missing, or we may not read it")
    return {partition: end for partition, (_, end) in found.ends.items()}


def _not_written(target: Target) -> Came:
    return Came(ActionLine(target.subject, False, "it was not written, because those before it were not taken"), False)


def _came(
    target: Target,
    uid: bytes,
    problem: str,
    deeds: Mapping[tuple[bytes, int], Operated | None],
    within_s: float,
) -> Came:
    """What came of one event, in words."""
    if problem:
        return Came(ActionLine(target.subject, False, problem), False)
    taken = [deeds[uid, partition] for partition in target.partitions if (uid, partition) in deeds]
    known = [deed for deed in taken if deed is not None]
    words = [known[0].words] if known else []
    if len(target.partitions) > 1 and known:
        words.append(f"taken in {len(taken)} of {len(target.partitions)} partitions")
    late = [f"{partition}" for partition in target.partitions if (uid, partition) not in deeds]
    if late:
        place = "partition" if len(late) == 1 else "partitions"
        words.append(
            f"it is written, and nobody took it in {place} {', '.join(late)} within {within_s:.0f} s: it counts once a"
            " worker serves that"
        )
    elif not known:
        words.append(f"nothing is known of {target.subject} in partition {target.partitions[0]}")
    done = any(deed.done for deed in known) and not late
    return Came(ActionLine(target.subject, done, "; ".join(words)), not late)


def pick(ref: str, found: Iterable[tuple[int, str]]) -> Target:
    """The order that a person means. Raises `UsageError` when there is none, or several."""
    places: dict[str, list[int]] = {}
    for partition, subject in found:
        places.setdefault(subject, []).append(partition)
    if ref in places:
        return Target(ref, places[ref])
    if len(places) > 1:
        raise ambiguous(ref, sorted(places))
    if not places:
        raise UsageError(f"no order {ref} in the state topic")
    ((subject, partitions),) = places.items()
    return Target(subject, partitions)
