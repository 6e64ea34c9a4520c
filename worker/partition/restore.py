"""Taking a partition over: fence, barrier, restore (steps 3 to 6 of `protocol.md`)."""

from msgspec import Struct

from schemas import state
from worker.errors import TopicError
from worker.partition.belonging import is_foreign, require
from worker.partition.context import Context, Warm
from worker.ports import StatePartition


class Restored(Struct):
    """A partition as its new owner finds it."""

    orders: dict[str, bytes]
    position: int
    """The state partition was read up to here."""
    next: state.NextRecord | None
    """`None`: nobody ever owned it."""
    fenced_at: float
    """*now* when no older owner could commit any more."""
    records: int
    """How many were read."""
    rival: tuple[str, int] | None
    """The newest owner besides us, and the offset of its barrier; with a warm start, one that has come since."""


async def restore(hold: StatePartition, context: Context, warm: Warm | None) -> Restored:
    """Becomes the owner and reads all that was committed. Raises `LogError`.

    Reading back the barrier, a committed record of our own, proves that everything before it was seen; the log's end
    offset proves nothing while a foreign transaction is open.
    """
    await hold.fence(context.former)
    fenced_at = context.clock.now()
    barrier = await write_barrier(hold, context)
    if warm is not None and barrier < warm.position:
        raise TopicError(remade(warm.position, barrier))
    orders = {} if warm is None else warm.orders
    last = None if warm is None else warm.next
    records = 0
    rival: tuple[str, int] | None = None
    stranger: state.OwnerRecord | None = None
    prefix = state.ORDER_PREFIX.encode()
    start = len(prefix)
    async for entries in hold.read(0 if warm is None else warm.position, barrier):
        records += len(entries)
        for entry in entries:
            key, value = entry.key, entry.value
            if key.startswith(prefix):
                if value is None:
                    orders.pop(key[start:].decode(), None)
                else:
                    orders[key[start:].decode()] = value
            elif key == state.NEXT_KEY and value is not None:
                last = state.decode_next(value)
            elif key == state.OWNER_KEY and value is not None:
                owner = state.decode_owner(value)
                if owner.owner != context.owner_id:
                    rival, stranger = (owner.owner, entry.offset), owner
        context.metrics.restored_records(len(entries))
    _require(context, last, stranger)
    return Restored(orders, barrier + 1, last, fenced_at, records, rival)


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


async def write_barrier(hold: StatePartition, context: Context) -> int:
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
