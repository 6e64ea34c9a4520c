"""`ports.OrderTable` over a database on the disk: what is used stays in memory, the rest is read when it is wanted.

How it is believed, and what happens when the disk fails, is said in the package.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import inf

import structlog
from msgspec import MsgspecError, Struct, msgpack

from schemas import state
from schemas.state import OrderHeader
from worker.errors import StoreError
from worker.metrics import StoreOperation
from worker.model.order import account_of
from worker.ports import Changes, Clock, Database, Files, Origin

log = structlog.get_logger(__name__)

FORMAT = 1
ORDER, UNSETTLED, NOTE = b"o:", b"u:", b"n:"
CHECKPOINT, COUNTS = b"checkpoint", b"counts"
LARGE_BYTES = 64 * 1024
"""Records above are among those that a takeover looks at."""
PAGE = 64
"""Orders that are read at once by who goes over all of them."""
RETRY_S = 30.0
"""After a write has failed."""

_ENTRY_BYTES = 200
"""What an order takes in memory besides its subject and its record."""
_WAITING_MAX_BYTES = 16 * 2**20
"""What `keep_up` lets wait to be written."""
_PATIENCE_S = 5.0
"""For how long `keep_up` waits for a disk."""
_ABSENT_MAX = 100_000


class Checkpoint(Struct, array_like=True, frozen=True):
    """What a database is a copy of, and how far."""

    format: int
    schema: int
    origin: tuple[int, str, str, int]
    """`origin_of` what it is a copy of."""
    position: int
    """Of the state partition: all that is committed below it is in the database."""
    at_ms: int
    """When that was so, UTC."""


class _Waiting(Struct):
    """What was put and is not in the database yet."""

    orders: dict[str, bytes | None] = {}
    """`None`: deleted."""
    marks: dict[str, bool] = {}
    """By order, whether a takeover has to look at it, where that changes."""
    notes: dict[bytes, bytes | None] = {}
    size: int = 0

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """As rows."""
        found: list[tuple[bytes, bytes | None]] = [
            (ORDER + subject.encode(), value) for subject, value in self.orders.items()
        ]
        found += [(UNSETTLED + subject.encode(), b"" if is_so else None) for subject, is_so in self.marks.items()]
        found += [(NOTE + key, value) for key, value in self.notes.items()]
        return found

    def under(self, newer: "_Waiting") -> "_Waiting":
        """Both, the other one being the newer."""
        return _Waiting(
            self.orders | newer.orders, self.marks | newer.marks, self.notes | newer.notes, self.size + newer.size
        )


class DiskOrders:
    """The orders of one partition."""

    def __init__(
        self,
        database: Database,
        files: Files,
        origin: Origin,
        clock: Clock,
        cache_bytes: int,
        on_failure: Callable[[StoreOperation], None],
        *,
        counts: dict[str, int],
        unsettled: Sequence[str],
        is_continued: bool,
    ) -> None:
        """`counts`, `unsettled`: of what the database holds. `is_continued`: an earlier process filled it.
        `on_failure`: counts failures.
        """
        self.is_broken = False
        """It cannot be read any more, or must not be believed."""
        self.is_closed = False
        self._database = database
        self._files = files
        self._origin = origin
        self._clock = clock
        self._young_max_bytes = cache_bytes // 2
        self._count_failure = on_failure
        self._is_continued = is_continued
        self._tell: Callable[[Exception], None] = lambda _error: None
        self._counts = Counter(counts)
        self._count = sum(counts.values())
        self._unsettled = dict.fromkeys(unsettled)
        # What was used last: what is not among the young is looked for among the old, and is young again then.
        self._young: dict[str, bytes] = {}
        self._old: dict[str, bytes] = {}
        self._young_bytes = 0
        self._absent: set[str] = set()
        """Orders that were asked for and do not exist, so that they need not be asked for again when they begin to."""
        self._waiting = _Waiting()
        self._under_way = _Waiting()
        """What is being written."""
        self._position: int | None = None
        """Of the newest checkpoint, unless it was written."""
        self._saving: asyncio.Task[None] | None = None
        self._retry_at = -inf
        self._changes = 0
        """Counts them, so that who goes over all orders notices."""

    # --- one order ---

    def get(self, subject: str) -> bytes | None:
        value = self._young.get(subject)
        return self._found(subject) if value is None else value

    def __getitem__(self, subject: str) -> bytes:
        value = self.get(subject)
        if value is None:
            raise KeyError(subject)
        return value

    def __contains__(self, subject: object) -> bool:
        return isinstance(subject, str) and self.get(subject) is not None

    def __len__(self) -> int:
        return self._count

    def put(self, subject: str, value: bytes) -> None:
        if subject not in self._young and not self._exists(subject):
            self._absent.discard(subject)
            self._counts[account_of(subject)] += 1
            self._count += 1
        self._remember(subject, value)
        self._change(subject, value, is_unsettled=_is_unsettled(value))

    def delete(self, subject: str) -> None:
        if not self._exists(subject):
            return
        self._young.pop(subject, None)
        self._old.pop(subject, None)
        account = account_of(subject)
        self._counts[account] -= 1
        if not self._counts[account]:
            del self._counts[account]
        self._count -= 1
        self._change(subject, None, is_unsettled=False)

    def _change(self, subject: str, value: bytes | None, *, is_unsettled: bool) -> None:
        waiting = self._waiting
        waiting.orders[subject] = value
        waiting.size += _size(subject, value)
        self._changes += 1
        if is_unsettled != (subject in self._unsettled):
            waiting.marks[subject] = is_unsettled
            if is_unsettled:
                self._unsettled[subject] = None
            else:
                del self._unsettled[subject]

    def _exists(self, subject: str) -> bool:
        if subject in self._absent:
            return False
        return self._found(subject) is not None

    def _found(self, subject: str) -> bytes | None:
        is_here, value = self._in_memory(subject)
        if not is_here:
            value = self._read(subject)
        if value is not None:
            self._remember(subject, value)
        elif not is_here:
            self._note_absent(subject)
        return value

    def _in_memory(self, subject: str) -> tuple[bool, bytes | None]:
        """Whether it is known without the database, and its record."""
        for known in (self._young, self._old):
            if (value := known.get(subject)) is not None:
                return True, value
        for waiting in (self._waiting.orders, self._under_way.orders):
            if subject in waiting:
                return True, waiting[subject]
        return subject in self._absent, None

    def _remember(self, subject: str, value: bytes) -> None:
        """Among those used last."""
        before = self._young.get(subject)
        self._young[subject] = value
        self._young_bytes += _size(subject, value) if before is None else len(value) - len(before)
        if self._young_bytes > self._young_max_bytes:
            self._old, self._young, self._young_bytes = self._young, {}, 0

    def _note_absent(self, subject: str) -> None:
        if len(self._absent) >= _ABSENT_MAX:
            self._absent.clear()
        self._absent.add(subject)

    def _read(self, subject: str) -> bytes | None:
        self._require_readable()
        try:
            return self._database.get(ORDER + subject.encode())
        except StoreError as error:
            raise self._broken(error) from error

    # --- many orders ---

    def subjects(self, skipping: float = 0.0) -> Iterator[str]:
        newer = [] if skipping else self._not_written()
        yield from newer
        met = set(newer)
        for key in self._keys(self._begin_at(skipping)):
            subject = key[len(ORDER) :].decode()
            if subject not in met and self._waiting.orders.get(subject, b"") is not None:
                yield subject

    def _begin_at(self, skipping: float) -> bytes:
        if not skipping:
            return ORDER
        self._require_readable()
        try:
            return max(ORDER, self._database.key_at(skipping))
        except StoreError as error:
            raise self._broken(error) from error

    def items(self) -> Iterator[tuple[str, bytes]]:
        newer = self._not_written()
        for subject in newer:
            if (value := self.get(subject)) is not None:
                yield subject, value
        met = set(newer)
        begin: bytes | None = ORDER
        while begin is not None:
            changes, page = self._changes, self._page(begin)
            begin = page[-1][0] + b"\x00" if page else None
            for key, stored in page:
                subject = key[len(ORDER) :].decode()
                if subject in met:
                    continue
                if changes == self._changes:
                    is_here, known = self._in_memory(subject)
                    value = known if is_here else stored
                else:  # it may be another one now, and neither here nor in the page
                    value = self.get(subject)
                if value is not None:
                    yield subject, value

    def _page(self, begin: bytes) -> list[tuple[bytes, bytes]]:
        self._require_readable()
        try:
            return self._database.items(begin, ORDER, PAGE)
        except StoreError as error:
            raise self._broken(error) from error

    def _keys(self, begin: bytes) -> Iterator[bytes]:
        while True:
            self._require_readable()
            try:
                page = self._database.keys(begin, ORDER, PAGE)
            except StoreError as error:
                raise self._broken(error) from error
            if not page:
                return
            yield from page
            begin = page[-1] + b"\x00"

    def _not_written(self) -> list[str]:
        """Orders of which the database does not know, or not all."""
        newer = self._under_way.orders | self._waiting.orders
        return [subject for subject, value in newer.items() if value is not None]

    def headers(self) -> Iterator[tuple[str, OrderHeader]]:
        return ((subject, state.decode_header(value)) for subject, value in self.items())

    def accounts(self) -> Iterator[tuple[str, int]]:
        return iter(list(self._counts.items()))

    def unsettled(self, larger_than: int) -> Iterator[tuple[str, bytes]]:
        if larger_than < LARGE_BYTES:  # the topic takes next to nothing: rare enough to look at all
            yield from self.items()
            return
        known = list(self._unsettled)
        for start in range(0, len(known), PAGE):
            portion = known[start : start + PAGE]
            self._read_ahead(portion)
            for subject in portion:
                if (value := self.get(subject)) is not None:
                    yield subject, value

    async def fetch(self, subjects: Sequence[str]) -> None:
        if unknown := self._unknown(subjects):
            self._require_readable()
            changes = self._changes
            try:
                found = await self._files.read(partial(self._database.get_many, _keys_of(unknown)))
            except StoreError as error:
                raise self._broken(error) from error
            if changes == self._changes:  # or one of them may be another one by now
                self._take_in(unknown, found)

    def _read_ahead(self, subjects: Sequence[str]) -> None:
        """As `fetch`, at once."""
        if unknown := self._unknown(subjects):
            self._require_readable()
            try:
                found = self._database.get_many(_keys_of(unknown))
            except StoreError as error:
                raise self._broken(error) from error
            self._take_in(unknown, found)

    def _unknown(self, subjects: Sequence[str]) -> list[str]:
        young, in_memory = self._young, self._in_memory
        return [subject for subject in dict.fromkeys(subjects) if subject not in young and not in_memory(subject)[0]]

    def _take_in(self, subjects: Sequence[str], values: Sequence[bytes | None]) -> None:
        for subject, value in zip(subjects, values, strict=True):
            if self._in_memory(subject)[0]:
                continue  # put meanwhile
            if value is None:
                self._note_absent(subject)
            else:
                self._remember(subject, value)

    # --- for the next process ---

    def note(self, key: bytes, value: bytes | None) -> None:
        self._waiting.notes[key] = value
        self._waiting.size += len(key) + len(value or b"")

    def checkpoint(self, position: int) -> None:
        self._position = position
        self._begin_saving()

    async def keep_up(self) -> None:
        if self._waiting.size < _WAITING_MAX_BYTES:
            return
        if self._saving is not None:
            await asyncio.wait({self._saving}, timeout=_PATIENCE_S)
        self._begin_saving()

    def _begin_saving(self) -> None:
        if self._saving is None and self.is_usable() and self._clock.now() >= self._retry_at:
            self._saving = asyncio.get_running_loop().create_task(self._save(), name="write orders to disk")

    async def _save(self) -> None:
        try:
            while self._waiting.size or self._position is not None:
                await self._save_once()
        except StoreError as error:
            self._retry_at = self._clock.now() + RETRY_S
            self._say("write", error, "what changes stays in memory until the disk takes it")
        finally:
            self._saving = None

    async def _save_once(self) -> None:
        self._under_way, self._waiting = self._waiting, _Waiting()
        position, self._position = self._position, None
        write = partial(_write, self._database, self._under_way, self._others(position))
        try:
            await self._files.write(write)
        except BaseException:
            self._take_back(position)
            raise
        finally:
            self._under_way = _Waiting()

    def _take_back(self, position: int | None) -> None:
        """What was under way waits again, unless there is something newer."""
        self._waiting = self._under_way.under(self._waiting)
        if self._position is None:
            self._position = position

    def _others(self, position: int | None) -> Changes:
        """What goes with all that is put so far."""
        found: list[tuple[bytes, bytes | None]] = [(COUNTS, msgpack.encode(dict(self._counts)))]
        if position is not None:
            saved = Checkpoint(FORMAT, state.SCHEMA, origin_of(self._origin), position, self._clock.wall_ms())
            found.append((CHECKPOINT, msgpack.encode(saved)))
        return found

    def resize(self, cache_bytes: int) -> None:
        """What may be kept in memory of what is on the disk, too."""
        self._young_max_bytes = cache_bytes // 2

    async def close(self) -> None:
        if self.is_closed:
            return
        self._retry_at = -inf
        self._begin_saving()
        if self._saving is not None:
            await asyncio.wait({self._saving})
        self.is_closed = True
        self._young, self._old, self._waiting = {}, {}, _Waiting()
        try:
            await self._files.write(self._database.close)
        except StoreError as error:
            self._say("write", error, "it is closed all the same")

    # --- failures ---

    def watch(self, on_failure: Callable[[Exception], None]) -> None:
        self._tell = on_failure

    def is_usable(self) -> bool:
        return not (self.is_broken or self.is_closed)

    def distrust(self, why: str) -> Exception | None:
        if not self._is_continued:
            return None
        return self._broken(StoreError(f"the copy on the disk does not fit: {why}"))

    def _require_readable(self) -> None:
        if not self.is_usable():
            raise StoreError(
                f"the orders of partition {self._origin.partition} on the disk are not to be read any more"
            )

    def _broken(self, error: StoreError) -> StoreError:
        if not self.is_broken:
            self.is_broken = True
            self._say("read", error, "the partition is restored from Kafka")
            self._tell(error)
        return error

    def _say(self, operation: StoreOperation, error: Exception, follows: str) -> None:
        self._count_failure(operation)
        log.error("store_failed", partition=self._origin.partition, operation=operation, error=str(error), then=follows)


def origin_of(origin: Origin) -> tuple[int, str, str, int]:
    """As a checkpoint has it."""
    return origin.partition, origin.cluster, origin.topic_id, origin.topic_epoch


def _write(database: Database, waiting: _Waiting, others: Changes) -> None:
    """Runs in a thread: nobody changes what is under way."""
    database.write([*waiting.changes(), *others])


def _is_unsettled(value: bytes) -> bool:
    """Whether a takeover has to look at the order; at what is no record, too, for it finds that out."""
    if len(value) > LARGE_BYTES:
        return True
    try:
        header = state.decode_header(value)
    except MsgspecError:
        return True
    return header.may_land_late or header.revision != header.acked


def _keys_of(subjects: Sequence[str]) -> list[bytes]:
    return [ORDER + subject.encode() for subject in subjects]


def _size(subject: str, value: bytes | None) -> int:
    return _ENTRY_BYTES + len(subject) + len(value or b"")
