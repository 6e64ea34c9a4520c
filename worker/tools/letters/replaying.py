"""`cartsync dlq replay` and `cartsync dlq mend`: events of dead letters are written to the event topic once more.

Nothing is written twice by mistake, whoever else does the same (`kafka.replaying`): a letter that was dealt with has a
marker behind it, which is written with the event or not at all.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from aiolimiter import AsyncLimiter
from msgspec import Struct

from schemas.commands import ReplayedLetter
from worker.config.console import ConsoleConfig
from worker.core.letters import Marker, Refused, read_marker, refused_record
from worker.core.mending import (
    Mended,
    Path,
    as_event,
    as_it_is,
    as_record,
    changed,
    is_guarded,
    subject_of,
    verdict,
)
from worker.core.trust import GUARDED, Trust
from worker.errors import UsageError
from worker.kafka.client import silence_unretrieved_errors
from worker.kafka.replaying import Replay
from worker.tools.control import printable
from worker.tools.letters import Desk, Letter, Place, letter_of, open_desk
from worker.tools.letters.choosing import Choice
from worker.tools.progress import Progress
from worker.web.console.letters import masked_row

RATE_PER_S = 100.0
"""Events a second where nothing else is said: workers have other things to do, too."""
_BATCH, _BATCH_BYTES = 50, 2**22
"""Of one transaction."""


class Wishes(Struct, frozen=True):
    """What the command line says."""

    is_dry: bool = False
    rate_per_s: float = RATE_PER_S
    again: bool = False
    """Also what was dealt with already."""
    force: bool = False
    """Also what would be refused again."""
    dismisses: bool = False
    """Nothing is written again: the letters are only marked as dealt with."""
    as_json: bool = False
    by: str = ""
    """Who wishes it, for the markers; so is `why`."""
    why: str = ""
    hint: str = " (--again does it all the same)"
    """What can be done about a letter that was dealt with already."""


class _Out:
    """Prints what became of each letter, and counts."""

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self.done = self.left = 0

    def tell(self, line: ReplayedLetter) -> None:
        """What became of one."""
        self.done += line.done
        self.left += not line.done
        if self._wishes.as_json:
            text = msgspec.json.encode(line).decode()
        else:
            became = f"{self._verb} {self._way} {line.to}".rstrip() if line.done else f"left: {line.detail}"
            text = f"{line.letter:<12}  {printable(line.subject or '?')}  {printable(line.type or '?')}: {became}"
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def conclude(self) -> int:
        """The exit code: 1 when some were left."""
        if not self._wishes.as_json:
            sys.stderr.write(f"{self.done} {self._verb}" + (f", {self.left} left" if self.left else "") + "\n")
        return 1 if self.left else 0

    @property
    def _verb(self) -> str:
        verb = "dismissed" if self._wishes.dismisses else "replayed"
        return f"would be {verb}" if self._wishes.is_dry else verb

    @property
    def _way(self) -> str:
        return "" if self._wishes.dismisses else "to" if self._wishes.is_dry else "as"


# --- replay ----------------------------------------------------------------------------------------------------------


def run_replay(
    config: ConsoleConfig, trust: Trust | None, places: Sequence[Place], choice: Choice | None, wishes: Wishes
) -> int:
    """Replays these letters, or those of the choice; 0, or 1 when some could not be. Raises `UsageError`,
    `ConfigError`, `LogError`; `FencedError` when somebody else is at it.
    """
    return asyncio.run(_replay(config, trust, places, choice, wishes))


async def _replay(
    config: ConsoleConfig, trust: Trust | None, places: Sequence[Place], choice: Choice | None, wishes: Wishes
) -> int:
    silence_unretrieved_errors(asyncio.get_running_loop())
    desk = await open_desk(config, trust)
    out, progress = _Out(wishes), Progress()
    chosen = await _chosen(desk, places, choice, progress)
    await replay_each(desk, chosen, wishes, out.tell, lambda: progress.say(lambda: f"{out.done} done, {out.left} left"))
    return out.conclude()


async def replay_each(
    desk: Desk,
    chosen: Mapping[int, Collection[int]],
    wishes: Wishes,
    tell: Callable[[ReplayedLetter], None],
    looked: Callable[[], None] = lambda: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Replays or dismisses letters, by partition their offsets. `tell`: what became of each, once that is committed;
    `looked`: at one more record; `is_stopped`: no further transaction is begun, and nothing is told of the rest. Raises
    `LogError`; `FencedError` when somebody else is at it.
    """
    bucket = max(1.0, wishes.rate_per_s)
    limiter = AsyncLimiter(bucket, bucket / wishes.rate_per_s)
    for partition, offsets in chosen.items():
        if is_stopped():
            return
        run = _Run(desk, partition, set(offsets), wishes, tell, limiter)
        await run.run(looked, is_stopped)
        for offset in () if is_stopped() else sorted(set(offsets) - run.met):
            why = "there is no such letter: retention may have taken it"
            tell(ReplayedLetter(str(Place(partition, offset)), "", "", False, why))


def line_of(letter: Letter, detail: str, to: str = "") -> ReplayedLetter:
    """What became of a letter. `detail`: why it was not written; empty: it was, or would be."""
    row = masked_row(letter.row)
    return ReplayedLetter(str(letter.place), row.subject, row.type, not detail, detail, to)


async def _chosen(
    desk: Desk, places: Sequence[Place], choice: Choice | None, progress: Progress
) -> Mapping[int, set[int]]:
    """By partition, offsets of the letters that are meant."""
    found: dict[int, set[int]] = {}
    for place in sorted(places):
        if place.partition >= desk.partitions:
            raise UsageError(f"{place}: the dead-letter topic has {desk.partitions} partitions, the first is 0")
        found.setdefault(place.partition, set()).add(place.offset)
    if choice is not None:
        now_ms = _wall_ms()
        async with aclosing(desk.walk(progress)) as all_letters:
            async for letter in all_letters:
                if choice.takes(letter.row, now_ms):
                    found.setdefault(letter.place.partition, set()).add(letter.place.offset)
    return found


class _Run:
    """The chosen letters of one partition."""

    def __init__(
        self,
        desk: Desk,
        partition: int,
        offsets: set[int],
        wishes: Wishes,
        tell: Callable[[ReplayedLetter], None],
        limiter: AsyncLimiter,
    ) -> None:
        self.met: set[int] = set()
        self._desk = desk
        self._partition = partition
        self._offsets = offsets
        self._wishes = wishes
        self._say = tell
        self._limiter = limiter
        self._replayer = desk.writes(partition, wishes.by, wishes.why)
        self._batch: list[tuple[Letter, Replay]] = []
        self._bytes = 0

    async def run(self, looked: Callable[[], None], is_stopped: Callable[[], bool]) -> None:
        """Replays them."""
        begin, last = min(self._offsets), max(self._offsets)
        try:
            if not self._wishes.is_dry:
                await self._replayer.open()
            handled = await self._desk.markers(self._partition, begin)  # once nobody else can write one
            async with aclosing(self._desk.letters(self._partition, begin)) as found:
                async for record in found:
                    if is_stopped():
                        return  # what is prepared is left, too
                    if record.offset > last:
                        break
                    looked()
                    if record.offset in self._offsets and read_marker(record.headers) is None:
                        self.met.add(record.offset)
                        marker = handled.get(record.offset)
                        await self._take(letter_of(self._partition, record, marker), marker)
            await self._flush()
        finally:
            await self._replayer.close()

    async def _take(self, letter: Letter, marker: Marker | None) -> None:
        if marker is not None and not self._wishes.again:
            self._say(line_of(letter, already(marker) + self._wishes.hint))
            return
        try:
            replay = self._prepared(letter)
        except UsageError as error:
            self._say(line_of(letter, str(error)))
            return
        self._batch.append((letter, replay))
        self._bytes += 0 if replay.record is None else len(replay.record.value)
        if len(self._batch) >= min(_BATCH, int(self._limiter.max_rate)) or self._bytes >= _BATCH_BYTES:
            await self._flush()

    def _prepared(self, letter: Letter) -> Replay:
        """Raises `UsageError`."""
        desk, record = self._desk, letter.record
        if self._wishes.dismisses:
            return Replay(letter.place.offset, record.key, None, -1, "dismissed")
        refused = refused_record(record.key, record.value, record.headers)
        again = as_it_is(refused)
        partition = partition_of(refused, again.key, desk)
        if partition is None:
            raise UsageError(f"it was refused in another topic than {desk.event_topic}: mend it with --partition")
        why = judged(again, partition, desk)
        if why and not self._wishes.force:
            raise UsageError(f"it would be refused again ({why}): mend it")
        return Replay(letter.place.offset, record.key, again, partition, "replayed")

    async def _flush(self) -> None:
        batch, self._batch, self._bytes = self._batch, [], 0
        if not batch:
            return
        topic = self._desk.event_topic
        if self._wishes.is_dry:
            for letter, replay in batch:
                self._say(line_of(letter, "", "" if replay.record is None else f"{topic}/{replay.partition}"))
            return
        await self._limiter.acquire(len(batch))
        offsets = await self._replayer.write([replay for _, replay in batch])
        for (letter, replay), offset in zip(batch, offsets, strict=True):
            self._say(line_of(letter, "", "" if offset < 0 else f"{topic}/{replay.partition}/{offset}"))


def already(marker: Marker) -> str:
    """Why a letter is not replayed."""
    by = f" by {marker.by}" if marker.by else ""
    to = f", as {marker.to}" if marker.to else ""
    why = f": {marker.why}" if marker.why else ""
    return f"it was {marker.handling} already{by}{to}{why}"


def partition_of(refused: Refused, key: bytes, desk: Desk) -> int | None:
    """The partition of the event topic that a record of this key belongs in; `None`: the letter does not tell."""
    if desk.placing is not None:
        return desk.placing.partition(key, desk.event_partitions)
    is_there = refused.topic == desk.event_topic and 0 <= refused.partition < desk.event_partitions
    return refused.partition if is_there and key == refused.key else None


def judged(record: Mended, partition: int, desk: Desk) -> str:
    """As `mending.verdict`."""
    return verdict(record, _wall_ms(), desk.trust, desk.placing, partition, desk.event_partitions)


# --- mend ------------------------------------------------------------------------------------------------------------


class Mending(Struct, frozen=True):
    """How an event is to be mended."""

    sets: Sequence[tuple[Path, Any]] = ()
    removals: Sequence[Path] = ()
    whole: str | None = None
    """The event instead of that of the letter, as JSON."""
    edit: Callable[[str], str] | None = None
    """Lets a person edit the event, as JSON."""
    key: bytes | None = None
    partition: int | None = None


def run_mend(config: ConsoleConfig, trust: Trust | None, place: Place, mending: Mending, wishes: Wishes) -> int:
    """Mends the event of a letter and writes it; 0. Raises `UsageError`, also when workers would still refuse it,
    `ConfigError`, `LogError`; `FencedError` when somebody else is at it.
    """
    return asyncio.run(_mend(config, trust, place, mending, wishes))


async def _mend(config: ConsoleConfig, trust: Trust | None, place: Place, mending: Mending, wishes: Wishes) -> int:
    silence_unretrieved_errors(asyncio.get_running_loop())
    desk = await open_desk(config, trust)
    event, line = await mend_one(desk, place, mending, wishes)
    if wishes.is_dry and not wishes.as_json:
        print(json.dumps(event, ensure_ascii=False, indent=2))
    out = _Out(wishes)
    out.tell(line)
    return out.conclude()


async def mend_one(desk: Desk, place: Place, mending: Mending, wishes: Wishes) -> tuple[dict[str, Any], ReplayedLetter]:
    """The event as it is mended, and what became of the letter. Raises `UsageError`, also when workers would
    refuse that, too; `LogError`; `FencedError` when somebody else is at it.
    """
    letter = await desk.letter(place)
    refused = refused_record(letter.record.key, letter.record.value, letter.record.headers)
    event, record = mended_of(refused, mending)
    partition = await _partition_of(desk, refused, record, subject_of(event), mending)
    if why := judged(record, partition, desk):
        raise UsageError(f"{place}: it would still be refused: {why}")
    topic = desk.event_topic
    if wishes.is_dry:
        return event, line_of(letter, "", f"{topic}/{partition}")
    replayer = desk.writes(place.partition, wishes.by, wishes.why)
    try:
        await replayer.open()
        marker = (await desk.markers(place.partition, place.offset)).get(place.offset)
        if marker is not None and not wishes.again:
            return event, line_of(letter, already(marker) + wishes.hint)
        replay = Replay(place.offset, letter.record.key, record, partition, "mended")
        (offset,) = await replayer.write([replay])
        return event, line_of(letter, "", f"{topic}/{partition}/{offset}")
    finally:
        await replayer.close()


def mended_of(refused: Refused, mending: Mending) -> tuple[dict[str, Any], Mended]:
    """The event as it is to be, and its record. Raises `UsageError`."""
    if is_guarded(refused):
        raise UsageError(
            "what a provider or an operator said cannot be mended: its MAC is over the very bytes; "
            "`cartsync dlq replay` writes it as it is"
        )
    try:
        before = as_event(refused)
    except UsageError:
        if mending.whole is None:
            raise
        before = None
    event = _given(mending.whole) if mending.whole is not None else changed(before or {}, (), ())
    event = changed(event, mending.sets, mending.removals)
    if mending.edit is not None:
        event = _given(mending.edit(json.dumps(event, ensure_ascii=False, indent=2) + "\n"))
    if f"{event.get('type', '')}".startswith(GUARDED):
        raise UsageError("an event of a provider or an operator needs their MAC, so it cannot be written here")
    if event == before and mending.key in (None, refused.key) and mending.partition is None:
        if mending.whole is not None:
            raise UsageError("nothing was changed; to write it as it is, replay it")
        raise UsageError("nothing was changed; --set PATH=VALUE, --remove PATH, --file or --edit say what to change")
    key = mending.key
    if key is None and before is not None and refused.key == subject_of(before).encode("utf-8", "backslashreplace"):
        key = subject_of(event).encode("utf-8", "backslashreplace")  # the key was the subject, and is to be it
    return event, as_record(refused, event, key)


def _given(text: str) -> dict[str, Any]:
    """An event as JSON. Raises `UsageError`."""
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the event is not JSON: {error}") from None
    if not isinstance(event, dict):
        raise UsageError("the event has to be one JSON object, with its attributes and `data`")
    return event


async def _partition_of(desk: Desk, refused: Refused, record: Mended, subject: str, mending: Mending) -> int:
    """Where the record belongs: as asked, as the partitioner says, where it was, or where the order's others are.
    Raises `UsageError`.
    """
    partition = mending.partition
    if partition is None:
        partition = partition_of(refused, record.key, desk)
    if partition is None:
        found = await desk.placed(subject)
        partition = found[0] if len(found) == 1 else None
    if partition is None:
        raise UsageError(
            f"which partition of {desk.event_topic} the event belongs in cannot be told: set [kafka] partitioner to "
            "that of the shop's producers, or pass --partition"
        )
    if partition >= desk.event_partitions:
        raise UsageError(f"--partition {partition}: {desk.event_topic} has {desk.event_partitions}, the first is 0")
    return partition


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
