"""What an order's record keeps of seQura: what was reported of it, and what is being reported. Encoded; pure.

Reports tell what each delivery had in it, so what was told has to be remembered: seQura cannot be asked.
"""

from hashlib import blake2b

import msgspec
from msgspec import Struct, msgpack
from msgspec.structs import replace

from worker.model.order import Cart
from worker.providers.sequra.cents import Amounts, amounts_of

VERSION = 1


class UnderWay(Struct, array_like=True, frozen=True):
    """Entries of an order that stand in a page: just these bytes are sent, however often, and nothing else of the
    order, until it is known what became of them. They hold what seQura wants to know of the shopper.
    """

    entries: bytes
    """JSON, with commas between."""
    count: int
    revision: int
    """Of the order, when they were made."""
    digest: bytes
    """The update's, of what seQura holds once they were taken."""
    shipments: dict[str, int]
    """What they tell of, and the second that it was told as."""
    shipped: list[Amounts]
    """The whole shipped cart that seQura then knows of, …"""
    unshipped: bytes
    """… and the digest of what is left."""
    store_ref: str | None = None
    """In whose name the page is."""


class Reported(Struct, array_like=True, frozen=True):
    """What seQura was told of an order."""

    version: int = VERSION
    by_update: bool = False
    """An Order Update was taken, or may have been: from then on there is nothing but updates."""
    shipments: dict[str, int] = {}
    """The departures that reports told of, each with the second (since 1970 UTC) that it was told as."""
    shipped: list[Amounts] = []
    """What all reports together said was shipped, or the last update did."""
    unshipped: bytes = b""
    """The digest of what the last one said is left."""
    under_way: UnderWay | None = None
    refused_ms: int = 0
    """When an entry was refused that stood alone in its page; 0: never, or another one was taken since."""
    refused_status: int = 0

    @property
    def is_reported(self) -> bool:
        """Whether a report of it was taken."""
        return bool(self.shipments)


NOTHING = Reported()
_decoder = msgpack.Decoder(Reported)
_encoder = msgpack.Encoder()


def read(remote: bytes) -> Reported | None:
    """What was kept; `None`: a version that we do not know has kept it, so nobody may decide by it."""
    if not remote:
        return NOTHING
    try:
        found = _decoder.decode(remote)
    except msgspec.DecodeError:
        return None
    return found if found.version == VERSION else None


def kept(reported: Reported) -> bytes:
    """As the order's record keeps it; nothing of an order that nothing is known of."""
    return b"" if reported == NOTHING else _encoder.encode(reported)


def accepted(reported: Reported) -> Reported:
    """Once the page with its entries was taken."""
    now = reported.under_way
    assert now is not None
    return Reported(
        by_update=reported.by_update,
        shipments=reported.shipments | now.shipments,
        shipped=now.shipped,
        unshipped=now.unshipped,
    )


def refused(reported: Reported, status: int | None, now_ms: int) -> Reported:
    """Once its entries were refused, alone in their page."""
    return replace(reported, under_way=None, refused_ms=now_ms, refused_status=status or 0)


def digest_of(cart: Cart) -> bytes:
    """Tells carts apart by what they come to; empty: there is nothing in it."""
    if not cart.items:
        return b""
    return blake2b(_encoder.encode(amounts_of(cart.items)), digest_size=16).digest()
