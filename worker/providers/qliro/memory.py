"""The adapter's memory of an order (`remote`): what GetOrder does not show. Pure.

MessagePack arrays: add new members last, with a default. Everything is bounded, by the order's size at Qliro or by a
number.
"""

from collections import Counter

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from worker.providers.qliro.order import QliroOrder, Units

VERSION = 1
KNOWN_MAX = 2_000
"""Transactions; if an order has more, the oldest count as somebody else's, so nothing is done about them."""
SENT_MAX = 8
"""Request ids whose outcome is unknown."""
WORDS_MAX = 200
CHANGES_MAX = 20
"""Captures and updates for one state of an order; more would mean that units move back and forth."""
ERRORS_MAX = 4
"""Commands in a row that may end in an error before an operator is needed."""
RETRY_MAX_S = 3_600.0


class Note(Struct, array_like=True, frozen=True):
    """A part of a sent transaction that GetOrder does not show, or not reliably."""

    transaction: int
    kind: str
    """`fee` or `withheld`, of a return; `amount`, of an addition."""
    name: str
    """The return's id; for an amount, its reference."""
    minor: int


class Intent(Struct, array_like=True, frozen=True):
    """A command that was sent, while it is unknown whether it arrived."""

    command: str
    request_id: bytes
    lines: list[tuple[str, str, int, int]]
    """Reference, type, price, quantity; none if the items of its transactions do not distinguish it from others."""
    notes: list[Note]
    """With transaction 0."""
    is_again: bool = False
    """Whether it was sent before, and Qliro may know it."""

    @property
    def is_of_reservation(self) -> bool:
        """Whether it replaces or ends a reservation."""
        return self.command in ("UpdateItems", "cancelOrder")


_MAKES = {
    "MarkItemsAsShipped": ("Ship", {"Capture"}),
    "ReturnItems": ("Return", {"Refund"}),
    "UpdateItems": ("Reserve", {"Preauthorization", "Debit", "Reversal", "Refund"}),
    "AddItemsToInvoice": ("Ship", {"UpdateInvoice", "Refund", "Capture"}),
    "cancelOrder": ("Release", {"Reversal", "Refund"}),
}
"""By command: its action on items, and the types of its transactions."""


class Memory(Struct, array_like=True, frozen=True):
    """The memory of one order."""

    version: int = VERSION
    order_id: int = 0
    merchant_reference: str = ""
    """The first one that a response had: a different one is a different order."""
    generation: int = 0
    """Grows when a command certainly had no effect: then the next attempt is a different request."""
    settled: bytes = b""
    """The state that was last found to be settled; empty once a command was sent."""
    ours: list[int] = []
    """Transactions of our commands."""
    agreed: list[int] = []
    """Transactions of others that the shop's facts agreed with."""
    others: list[int] = []
    """The rest, as of the last read."""
    pending: list[int] = []
    """Transactions of an accepted command, until they are final."""
    since_ms: int = 0
    polls: int = 0
    poll_at_ms: int = 0
    sent: list[bytes] = []
    denied: bytes = b""
    """The request id that was denied when it was repeated."""
    intent: Intent | None = None
    notes: list[Note] = []
    errors: int = 0
    """In a row."""
    error: str = ""
    retry_at_ms: int = 0
    replans: list[str] = []
    """Rejections that a new read may resolve: each may occur once."""
    is_cancelled: bool = False
    """Qliro has said so, whatever its list shows."""
    shipped_differs_minor: int = 0
    """Qliro's amount minus ours, as of the last read."""
    unshipped_differs_minor: int = 0
    changes_for: bytes = b""
    """The desired state when the last capture or update was sent."""
    changes: int = 0
    """The number of captures and updates sent for it."""

    def encode(self) -> bytes:
        """Encodes it for the order's record."""
        return _encoder.encode(self)

    def sending(self, intent: Intent) -> "Memory":
        """The memory while it is unknown whether this command arrived."""
        request_id = intent.request_id
        sent = [one for one in self.sent if one != request_id][-SENT_MAX + 1 :]
        is_again = request_id in self.sent
        return replace(self, settled=b"", intent=replace(intent, is_again=is_again), sent=[*sent, request_id])

    def changing(self, digest: bytes) -> "Memory":
        """One more capture or update for the state with this digest."""
        count = self.changes + 1 if self.changes_for == digest else 1
        return replace(self, changes_for=digest, changes=count)

    def accepted(self, transactions: list[int], now_ms: int, poll_s: float) -> "Memory":
        """The memory once the command was accepted."""
        return replace(
            self,
            ours=[*self.ours, *transactions],
            pending=transactions,
            since_ms=now_ms,
            polls=0,
            poll_at_ms=now_ms + int(poll_s * 1000),
            sent=[],
            denied=b"",
            intent=None,
            notes=self.notes + _signed(self.intent, transactions),
            replans=[],
        )

    def is_known(self, transaction: int) -> bool:
        """Whether the transaction is ours, or the shop's facts agreed with it."""
        return transaction in self.ours or transaction in self.agreed

    def notes_of(self, kind: str, there: QliroOrder) -> list[Note]:
        """The notes of a kind whose transactions succeeded."""
        return [one for one in self.notes if one.kind == kind and there.statuses.get(one.transaction) == "Success"]


def _signed(intent: Intent | None, transactions: list[int]) -> list[Note]:
    """The command's notes, with their transaction."""
    assert intent is not None  # every command is sent with one
    return [replace(note, transaction=transactions[0]) for note in intent.notes]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Memory)


def recall(remote: bytes) -> Memory:
    """Decodes `remote`; empty if there is none, or if it cannot be read."""
    try:
        return _decoder.decode(remote) if remote else Memory()
    except msgspec.DecodeError:
        return Memory()


def after_read(
    memory: Memory, there: QliroOrder, now_ms: int, wait_s: float, *, may_be_ours: bool, ordered: Counter[str]
) -> Memory:
    """The memory after a read: finds commands whose responses were lost, and counts those that failed.

    `wait_s`: how long to wait after the first error. `may_be_ours`: a worker may have crashed with a command in flight
    that is not in the memory. `ordered`: units by reference, as the shop has reported them.
    """
    seen = there.statuses
    before = {*memory.ours, *memory.agreed, *memory.others}
    new = [one for one in seen if one not in before]
    if memory.intent is not None:
        ours = _found(memory.intent, new, there)
    else:
        ours = [one for one in new if may_be_ours and _is_like_ours(one, there, ordered)]
    pending = memory.pending + [one for one in ours if one not in memory.pending]
    awaited = set(pending)
    notes = memory.notes + (_signed(memory.intent, ours) if ours and memory.intent is not None else [])
    memory = replace(
        memory,
        order_id=there.order_id,
        merchant_reference=memory.merchant_reference or there.merchant_reference,
        ours=[one for one in [*memory.ours, *ours] if one in seen or one in awaited][-KNOWN_MAX:],
        others=[*memory.others, *(one for one in new if one not in awaited)][-KNOWN_MAX:],
        notes=[one for one in notes if seen.get(one.transaction) not in ("Error", "Cancelled")],
        since_ms=memory.since_ms or now_ms,
        intent=None,
        sent=[] if ours else memory.sent,
        denied=b"" if ours else memory.denied,
    )
    under_way = [one for one in pending if seen.get(one) not in ("Success", "Error", "Cancelled")]
    if under_way:
        return replace(memory, pending=pending)
    failed = [one for one in pending if seen[one] != "Success"]
    memory = replace(memory, pending=[], since_ms=0)
    if not failed:
        return replace(memory, errors=0, error="", retry_at_ms=0) if pending else memory
    errors = memory.errors + 1
    return replace(
        memory,
        generation=memory.generation + 1,
        errors=errors,
        error=next((there.errors[one] for one in failed if there.errors[one]), "")[:WORDS_MAX],
        retry_at_ms=now_ms + int(1000 * min(wait_s * 4.0 ** min(errors - 1, 9), RETRY_MAX_S)),
    )


def _found(intent: Intent, new: list[int], there: QliroOrder) -> list[int]:
    """The new transactions of a command whose response was lost: those with its items; for a command that replaces or
    ends a reservation, also those without items.
    """
    action, kinds = _MAKES[intent.command]
    lines = Units({(reference, kind, price): count for reference, kind, price, count in intent.lines})
    found = []
    for one in new:
        did = there.did[one].get(action)
        if there.kinds[one] in kinds and (did == lines or (intent.is_of_reservation and (not lines or did is None))):
            found.append(one)
    return found


def _is_like_ours(one: int, there: QliroOrder, ordered: Counter[str]) -> bool:
    """Whether it replaces a reservation by one with no more units of anything than before, or than the shop has
    reported: anything that others add beyond that is meant to stay.

    A capture or a refund may be somebody else's: it does not count as ours, so that it will not be undone.
    """
    if one not in there.replacing:
        return False
    goods = _goods(one, there)
    return goods <= ordered or goods <= _goods(there.replacing[one], there)


def _goods(one: int, there: QliroOrder) -> Counter[str]:
    """The units that it reserved, by reference."""
    counts: Counter[str] = Counter()
    for key, count in there.did[one].get("Reserve", {}).items():
        counts[key[0]] += count * (key[1] == "Product")
    return counts


def agreed(memory: Memory, there: QliroOrder) -> Memory:
    """The memory once everything at Qliro agrees with the shop's facts, no matter who did it."""
    ours = set(memory.ours)
    agreed = [one for one in there.statuses if one not in ours]
    return replace(memory, agreed=agreed[-KNOWN_MAX:], others=[])
