"""Taking a partition over: fence, barrier, restore (steps 3 to 6 of `PROTOCOL.md`)."""

from typing import Any

from msgspec import MsgspecError, Struct

from schemas import state
from worker.errors import DamagedStateError, GapError, TopicError
from worker.ownership.belonging import is_foreign, require
from worker.ownership.context import Context, Slice, Warm
from worker.ownership.workload import Workload
from worker.ports import PartitionWriter, StateEntry

_AT_ONCE = 100
"""Records that are loaded without a look at the clock."""


class Restored(Struct):
    """A partition as its new owner finds it; its records are in the workload."""

    position: int
    """The state partition was read up to here."""
    next: state.NextRecord | None
    """`None`: nobody ever owned it."""
    fenced_at: float
    """*now* when no older owner could commit any more."""
    records: int
    """How many were read."""
    competing_owner: tuple[str, int] | None
    """The newest owner besides us, and the offset of its barrier; with a warm start, one that has come since."""


async def restore(
    writer: PartitionWriter,
    context: Context,
    warm: Warm | None,
    partition: int,
    workload: Workload[Any],
    start_at: int | None = None,
) -> Restored:
    """Becomes the owner and reads all that was committed. Raises `LogError`; `DamagedStateError` when the newest record
    of a key is none that we wrote (older ones count for nothing). `start_at`: an operator says how far the input was
    taken, whatever the state says.

    Reading back the barrier, a committed record of our own, proves that everything before it was seen; the log's end
    offset proves nothing while a foreign transaction is open.
    """
    await writer.fence(context.former)
    fenced_at = context.clock.now()
    barrier = await write_barrier(writer, context)
    if warm is not None and barrier < warm.position:
        why = remade(warm.position, barrier)
        raise workload.distrust(why) or TopicError(why)
    reading = _Reading(partition, context.owner_id, barrier)
    records = 0
    work = Slice(context)
    try:
        async for entries in writer.read(0 if warm is None else warm.position, barrier):
            records += len(entries)
            for count, entry in enumerate(entries):  # as many as were read at once: some milliseconds
                if count % _AT_ONCE == 0 and work.is_over():
                    await work.pause()
                if not workload.load(entry):
                    reading.take(entry)
            context.metrics.restored_records(len(entries))
            await workload.keep_up()
    except GapError as error:
        raise workload.distrust(str(error)) or error from error
    workload.loaded()
    last = reading.next_record(None if warm is None else warm.next, start_at)
    if start_at is not None:
        version, deployment = context.version, context.deployment
        last = state.NextRecord(state.SCHEMA, start_at, context.topic_epoch, False, version, None, deployment)
    _require(context, last, reading.stranger)
    return Restored(barrier + 1, last, fenced_at, records, reading.competing_owner)


def _require(context: Context, last: state.NextRecord | None, stranger: state.OwnerRecord | None) -> None:
    """Raises `TopicError` when we must not go on from what was found."""
    if last is not None and last.schema > state.SCHEMA:
        raise TopicError(
            f"the state topic holds records of schema {last.schema}, this version knows {state.SCHEMA}: "
            f"run version {last.version} or newer"
        )
    if last is not None and last.topic_epoch > context.topic_epoch:
        raise TopicError(
            f"the state topic was written with topic_epoch {last.topic_epoch}, the configuration says "
            f"{context.topic_epoch}: revisions would go back. Set [worker] topic_epoch to {last.topic_epoch} or more"
        )
    if last is not None:
        require(context.deployment, last, adopt=context.adopt_state, topic_epoch=context.topic_epoch)
    elif stranger is not None and is_foreign(context.deployment, stranger.deployment) and not context.adopt_state:
        raise TopicError(
            "another deployment has just begun with this state topic: give each one a state topic of its own "
            f"(its group_id is {stranger.deployment.group}, its prefix {stranger.deployment.prefix})"
        )


def damaged(partition: int, offset: int, key: bytes, error: Exception) -> DamagedStateError:
    """Says which record of a state partition is none that we wrote, and what to do."""
    is_position = key == state.NEXT_KEY
    what_to_do = (
        f"Find out how far the input was taken, and say it with `cartsync input skip {partition} OFFSET --why …`"
        if is_position
        else "Write the right record, or one without a value, under this key; the partition is tried again every minute"
    )
    shown = key.decode(errors="backslashreplace")[:_KEY_SHOWN_MAX]
    order = shown.removeprefix(state.ORDER_PREFIX) if key.startswith(_ORDER_PREFIX) else ""
    what = "of an order" if order else f"with the key {shown}"
    return DamagedStateError(
        f"partition {partition} of the state topic: the record at offset {offset}, {what}, is not one that "
        f"cartsync wrote ({type(error).__name__}); nobody else may write there. {what_to_do}",
        is_position=is_position,
        order=order,
    )


_KEY_SHOWN_MAX = 200
_ORDER_PREFIX = state.ORDER_PREFIX.encode()


class _Reading:
    """What the records of the ownership itself come to."""

    def __init__(self, partition: int, owner_id: str, barrier: int) -> None:
        self.competing_owner: tuple[str, int] | None = None
        self.stranger: state.OwnerRecord | None = None
        """Whose barrier that is."""
        self._partition = partition
        self._owner_id = owner_id
        self._barrier = barrier
        self._next: StateEntry | None = None
        self._owner: StateEntry | None = None
        """The newest that cannot be decoded, unless one that can has come after it."""

    def take(self, entry: StateEntry) -> None:
        """The next record."""
        key, value = entry.key, entry.value
        if key == state.NEXT_KEY and value is not None:
            self._next = entry
        elif key == state.OWNER_KEY and value is not None and entry.offset != self._barrier:
            self._take_owner(entry, value)

    def _take_owner(self, entry: StateEntry, value: bytes) -> None:
        try:
            owner = state.decode_owner(value)
        except MsgspecError:
            self._owner = entry
            return
        self._owner = None
        if owner.owner != self._owner_id:
            self.competing_owner, self.stranger = (owner.owner, entry.offset), owner

    def next_record(self, before: state.NextRecord | None, start_at: int | None) -> state.NextRecord | None:
        """How far the input was taken; `before`: when nothing of it was read. Raises `DamagedStateError`."""
        for entry, decode in ((self._owner, state.decode_owner), (self._next, state.decode_next)):
            if entry is None or entry.value is None or (entry is self._next and start_at is not None):
                continue
            try:
                decoded = decode(entry.value)
            except MsgspecError as error:
                raise damaged(self._partition, entry.offset, entry.key, error) from error
            if isinstance(decoded, state.NextRecord):
                return decoded
        return before


async def write_barrier(writer: PartitionWriter, context: Context) -> int:
    """The offset of a record of our own: nobody has taken over before it. Raises `FencedError` when somebody has."""
    owner = state.OwnerRecord(
        state.SCHEMA, context.owner_id, context.clock.wall_ms(), context.version, context.deployment
    )
    return await writer.write([(state.OWNER_KEY, state.encode(owner))])


def remade(position: int, offset: int) -> str:
    """What it means that a record of ours got an offset below what was committed before it."""
    return (
        f"the state topic was deleted and made again while this worker ran: it had {position} offsets, and now wrote "
        f"offset {offset}. Orders are missing from it; the next start says what to do"
    )
