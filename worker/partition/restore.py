"""Taking a partition over: fence, barrier, restore (steps 3 to 6 of `protocol.md`)."""

from msgspec import Struct

from schemas import state
from worker.errors import TopicError
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
    targets: dict[str, state.Target]
    """Whom the accounts told, as far as it was written."""
    records: int
    """How many were read."""
    rival: tuple[str, int] | None
    """The newest owner besides us, and the offset of its barrier; with a warm start, one that has come since."""


async def restore(hold: StatePartition, context: Context, warm: Warm | None) -> Restored:
    """Becomes the owner and reads all that was committed. Raises `LogError`.

    Reading back the barrier, a committed record of our own, proves that everything before it was seen; the log's end
    offset proves nothing while a foreign transaction is open.
    """
    await hold.fence()
    fenced_at = context.clock.now()
    barrier = await write_barrier(hold, context)
    orders = {} if warm is None else warm.orders
    last = None if warm is None else warm.next
    targets = {} if warm is None else warm.targets
    records = 0
    rival: tuple[str, int] | None = None
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
            elif key == state.TARGETS_KEY and value is not None:
                targets = state.decode_targets(value).targets
            elif key == state.OWNER_KEY and value is not None:
                owner = state.decode_owner(value).owner
                rival = rival if owner == context.owner_id else (owner, entry.offset)
        context.metrics.restored_records(len(entries))
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
    return Restored(orders, barrier + 1, last, fenced_at, targets, records, rival)


async def write_barrier(hold: StatePartition, context: Context) -> int:
    """The offset of a record of our own: nobody has taken over before it. Raises `FencedError` when somebody has."""
    owner = state.OwnerRecord(state.SCHEMA, context.owner_id, context.clock.wall_ms(), context.version)
    return await hold.write([(state.OWNER_KEY, state.encode(owner))])
