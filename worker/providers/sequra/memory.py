"""The adapter's memory of an order at seQura: what was reported, and what is being reported. Pure.

A report lists the content of each delivery, so the adapter has to remember what was reported: seQura cannot be read.
"""

from hashlib import blake2b

import msgspec
from msgspec import Struct, msgpack
from msgspec.structs import replace

from worker.model.order import Cart
from worker.providers.sequra.cents import Amounts, amounts_of

VERSION = 1


class UnderWay(Struct, array_like=True, frozen=True):
    """Entries of an order that are part of a page: exactly these bytes are sent, however often, and nothing else about
    the order, until the page's outcome is known. They contain personal data.
    """

    entries: bytes
    """JSON, separated by commas."""
    count: int
    revision: int
    """The order's revision when they were made."""
    digest: bytes
    """The digest of the update for what seQura has once it accepted them."""
    shipments: dict[str, int]
    """The departures that they report, each with the second that it is reported as."""
    shipped: list[Amounts]
    """The whole shipped cart that seQura then knows, …"""
    unshipped: bytes
    """… and the digest of the rest."""
    store_ref: str | None = None
    """The page's store."""


class Reported(Struct, array_like=True, frozen=True):
    """What was reported to seQura about an order."""

    version: int = VERSION
    by_update: bool = False
    """An Order Update was accepted, or may have been: from then on only updates are sent."""
    shipments: dict[str, int] = {}
    """The departures in reports, each with the second (since 1970 UTC) that it was reported as."""
    shipped: list[Amounts] = []
    """The shipped cart according to all reports together, or to the last update."""
    unshipped: bytes = b""
    """The digest of the rest according to the last one."""
    under_way: UnderWay | None = None
    refused_ms: int = 0
    """When an entry was rejected, alone in its page; 0: never, or another one was accepted since."""
    refused_status: int = 0

    @property
    def is_reported(self) -> bool:
        """Whether a report about it was accepted."""
        return bool(self.shipments)


NOTHING = Reported()
_decoder = msgpack.Decoder(Reported)
_encoder = msgpack.Encoder()


def read(remote: bytes) -> Reported | None:
    """Decodes `remote`; `None`: an unknown version wrote it, so no decision may depend on it."""
    if not remote:
        return NOTHING
    try:
        found = _decoder.decode(remote)
    except msgspec.DecodeError:
        return None
    return found if found.version == VERSION else None


def kept(reported: Reported) -> bytes:
    """Encodes it for the order's record; empty if there is nothing to remember."""
    return b"" if reported == NOTHING else _encoder.encode(reported)


def accepted(reported: Reported) -> Reported:
    """The memory once the page with its entries was accepted."""
    now = reported.under_way
    assert now is not None
    return Reported(
        by_update=reported.by_update,
        shipments=reported.shipments | now.shipments,
        shipped=now.shipped,
        unshipped=now.unshipped,
    )


def refused(reported: Reported, status: int | None, now_ms: int) -> Reported:
    """The memory once its entries were rejected, alone in their page."""
    return replace(reported, under_way=None, refused_ms=now_ms, refused_status=status or 0)


def digest_of(cart: Cart) -> bytes:
    """A digest of a cart's amounts; empty: the cart is empty."""
    if not cart.items:
        return b""
    return blake2b(_encoder.encode(amounts_of(cart.items)), digest_size=16).digest()
