"""A planned command, and its request. Pure."""

from uuid import UUID, uuid5

import msgspec
from msgspec import UNSET, Struct

from worker.providers.qliro import wire
from worker.providers.qliro.memory import Intent, Memory, Note
from worker.providers.qliro.options import QliroAccount
from worker.providers.qliro.order import Key, QliroOrder, Units

SPACE = UUID("5d1f0e1c-64f7-5c1a-9a52-6f5d8a6d3c11")
"""The namespace of our request ids; never change it. Nor the names of members of `Command` and what it consists of:
they are part of the ids, and a command whose id changes may be applied twice."""


class Line(Struct, frozen=True):
    """An item; `ex_minor` is `None` if Qliro knows it."""

    key: Key
    count: int
    ex_minor: int | None = None
    description: str | None = None


class Extra(Struct, frozen=True):
    """A fee or a discount of a return."""

    reference: str
    description: str
    minor: int
    ex_minor: int


class Command(Struct, frozen=True):
    """One command, for one transaction at most."""

    name: str
    transaction: int = 0
    lines: list[Line] = []
    fees: list[Extra] = []
    discounts: list[Extra] = []
    notes: list[Note] = []

    def request_id(self, account: str, there: QliroOrder, memory: Memory) -> UUID:
        """The same for the same step: derived from the command and from what was read before it."""
        parts = [account, there.order_id, self.name, memory.generation, there.fingerprint, self]
        return uuid5(SPACE, _canonical.encode(parts).hex())

    def body(self, account: QliroAccount, there: QliroOrder, request_id: UUID) -> bytes:
        """The body of the request."""
        command = wire.Command(str(request_id), account.api_key, there.order_id)
        if self.name in wire.ENTRIES:
            entry = wire.Entry(
                self.transaction,
                [_item(line) for line in self.lines],
                [_amount(one) for one in self.fees] or UNSET,
                [_amount(one) for one in self.discounts] or UNSET,
            )
            command = msgspec.structs.replace(command, currency=there.currency, **{wire.ENTRIES[self.name]: [entry]})
        return wire.encode(command)

    def intent(self, request_id: UUID) -> Intent:
        """What is remembered while it is unknown whether the command arrived."""
        return Intent(self.name, request_id.bytes, [(*line.key, line.count) for line in self.lines], self.notes)


_canonical = msgspec.msgpack.Encoder(order="deterministic")


def of(units: Units) -> list[Line]:
    """Lines that only name items that Qliro has, goods first."""
    return [Line(key, count) for key, count in sorted(units.items(), key=lambda item: (item[0][1] != "Product", item))]


def _item(line: Line) -> wire.Item:
    reference, kind, price = line.key
    item = wire.Item(reference, kind, line.count, wire.money(price))
    if line.ex_minor is None:
        return item
    description = (line.description or reference)[: wire.DESCRIPTION_MAX]
    return msgspec.structs.replace(item, price_per_item_ex_vat=wire.money(line.ex_minor), description=description)


def _amount(one: Extra) -> wire.Amount:
    return wire.Amount(one.reference, one.description, wire.money(one.minor), wire.money(one.ex_minor))
