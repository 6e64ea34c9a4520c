"""Taking a partition over: fence, barrier, restore (steps 3 to 6 of `PROTOCOL.md`)."""

from msgspec import MsgspecError, Struct

from schemas import state
from worker.errors import DamagedStateError, TopicError
from worker.partition.belonging import is_foreign, require
from worker.partition.context import Context, Slice, Warm
from worker.ports import PartitionWriter, StateEntry


class Restored(Struct):
    """A partition as its new owner finds it."""

    orders: dict[str, bytes]
    position: int
    """The state partition was read up to here."""
    next: state.NextRecord | None
    """`None`: nobody ever owned it."""
    fenced_at: float
    """*now* when no older owner could commit any more."""
    targets: dict[str, state.Target]
    """Whom the accounts told, as far as it was written."""
    jobs: dict[str, bytes]
    """What jobs have kept, by key."""
    closed: dict[str, bytes]
    """What is remembered of closed orders, by key."""
    records: int
    """How many were read."""
    rival: tuple[str, int] | None
    """The newest owner besides us, and the offset of its barrier; with a warm start, one that has come since."""


async def restore(
    hold: PartitionWriter, context: Context, warm: Warm | None, partition: int, start_at: int | None = None
) -> Restored:
    """Becomes the owner and reads all that was committed. Raises `LogError`; `DamagedStateError` when the newest record
    of a key is none that we wrote (older ones count for nothing). `start_at`: an operator says how far the input was
    taken, whatever the state says.

    Reading back the barrier, a committed record of our own, proves that everything before it was seen; the log's end
    offset proves nothing while a foreign transaction is open.
    """
    await hold.fence(context.former)
    fenced_at = context.clock.now()
    barrier = await write_barrier(hold, context)
    if warm is not None and barrier < warm.position:
        raise TopicError(remade(warm.position, barrier))
    reading = _Reading(partition, context.owner_id, barrier, warm)
    records = 0
    work = Slice(context)
    async for entries in hold.read(0 if warm is None else warm.position, barrier):
        records += len(entries)
        for entry in entries:  # as many as were read at once: a few milliseconds
            reading.take(entry)
        context.metrics.restored_records(len(entries))
        if work.is_over():
            await work.pause()
    last = reading.next_record(None if warm is None else warm.next, start_at)
    if start_at is not None:
        version, deployment = context.version, context.deployment
        last = state.NextRecord(state.SCHEMA, start_at, context.topic_epoch, False, version, None, deployment)
    _require(context, last, reading.stranger)
    targets = reading.targets({} if warm is None else warm.targets)
    return Restored(
        reading.orders, barrier + 1, last, fenced_at, targets, reading.jobs, reading.closed, records, reading.rival
    )


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
    order = shown.removeprefix(state.ORDER_PREFIX) if key.startswith(_PREFIX) else ""
    what = "of an order" if order else f"with the key {shown}"
    return DamagedStateError(
        f"partition {partition} of the state topic: the record at offset {offset}, {what}, is not one that "
        f"cartsync wrote ({type(error).__name__}); nobody else may write there. {what_to_do}",
        is_position=is_position,
        order=order,
    )


_KEY_SHOWN_MAX = 200


class _Reading:
    """What the records of a partition come to."""

    def __init__(self, partition: int, owner_id: str, barrier: int, warm: Warm | None) -> None:
        self.orders = {} if warm is None else warm.orders
        self.jobs = {} if warm is None else dict(warm.jobs)
        self.closed = {} if warm is None else dict(warm.closed)
        self.rival: tuple[str, int] | None = None
        self.stranger: state.OwnerRecord | None = None
        """Whose barrier that is."""
        self._partition = partition
        self._owner_id = owner_id
        self._barrier = barrier
        self._nameless: dict[bytes, tuple[StateEntry, UnicodeDecodeError]] = {}
        """Orders whose name is not UTF-8."""
        self._next: StateEntry | None = None
        self._targets: StateEntry | None = None
        self._owner: StateEntry | None = None
        """The newest that cannot be decoded, unless one that can has come after it."""

    def take(self, entry: StateEntry) -> None:
        """The next record."""
        key, value = entry.key, entry.value
        if key.startswith(_PREFIX):
            try:
                subject = key[len(_PREFIX) :].decode()
            except UnicodeDecodeError as error:
                self._nameless.pop(key, None)
                if value is not None:
                    self._nameless[key] = entry, error
                return
            if value is None:
                self.orders.pop(subject, None)
            else:
                self.orders[subject] = value
        elif key == state.NEXT_KEY and value is not None:
            self._next = entry
        elif key == state.TARGETS_KEY and value is not None:
            self._targets = entry
        elif key.startswith((_JOB_PREFIX, _CLOSED_PREFIX)):
            kept, name = (
                self.jobs if key.startswith(_JOB_PREFIX) else self.closed,
                key.decode(errors="backslashreplace"),
            )
            if value is None:
                kept.pop(name, None)
            else:
                kept[name] = value
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
            self.rival, self.stranger = (owner.owner, entry.offset), owner

    def next_record(self, before: state.NextRecord | None, start_at: int | None) -> state.NextRecord | None:
        """How far the input was taken; `before`: when nothing of it was read. Raises `DamagedStateError`."""
        for nameless, error in self._nameless.values():
            raise damaged(self._partition, nameless.offset, nameless.key, error) from error
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

    def targets(self, before: dict[str, state.Target]) -> dict[str, state.Target]:
        """Whom the accounts told; `before`: when nothing of it was read. Raises `DamagedStateError`."""
        entry = self._targets
        if entry is None or entry.value is None:
            return before
        try:
            return state.decode_targets(entry.value).targets
        except MsgspecError as error:
            raise damaged(self._partition, entry.offset, entry.key, error) from error


_PREFIX = state.ORDER_PREFIX.encode()
_JOB_PREFIX = state.JOB_PREFIX.encode()
_CLOSED_PREFIX = state.CLOSED_PREFIX.encode()


async def write_barrier(hold: PartitionWriter, context: Context) -> int:
    """The offset of a record of our own: nobody has taken over before it. Raises `FencedError` when somebody has."""
    owner = state.OwnerRecord(
        state.SCHEMA, context.owner_id, context.clock.wall_ms(), context.version, context.deployment
    )
    return await hold.write([(state.OWNER_KEY, state.encode(owner))])


def remade(position: int, offset: int) -> str:
    """What it means that a record of ours got an offset below what was committed before it."""
    return (
        f"the state topic was deleted and made again while this worker ran: it had {position} offsets, and now wrote "
        f"offset {offset}. Orders are missing from it; the next start says what to do"
    )
