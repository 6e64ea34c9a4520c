"""What an order's facts mean for AtaraPay: a word (the `status` of a call), none, or a state it cannot express."""

from hashlib import blake2b

from msgspec import UNSET, Struct, UnsetType, msgpack
from msgspec.structs import astuple

from schemas.events import Address
from schemas.facts import Facts, Moment, Packed, Stamp, unpack_lines
from worker.model.order import Order
from worker.providers.atarapay.checks import Lack, lack_of, lack_of_cancelled, units_of
from worker.providers.atarapay.parcels import arrival_of
from worker.providers.atarapay.wire import BUYER_CANCEL, CANCELLED, DELIVERED

_encoder = msgpack.Encoder()


class Wanted(Struct, array_like=True, frozen=True, gc=False):
    """The desired state at AtaraPay. All of it comes from facts, so all of it is part of the digest."""

    word: str = ""
    """Empty: there is nothing to send."""
    lack: Lack | None = None
    """Why no word can express it."""
    is_ended: bool = False
    """The shop knows, too, that the order was cancelled at AtaraPay."""
    number: str = ""
    """The order's number at AtaraPay; empty: unknown."""
    is_unverified: bool = False
    """The number comes only from a notification."""
    phone: str = ""
    """Of the shopper; only with `delivered`, like the next member."""
    email: str = ""
    delivery: Stamp | None = None
    """The stamp of the fact that reported the newest delivery; only with `delivered`."""
    second_attempt_us: int = 0
    """When AtaraPay last reported an agreed second attempt, since 1970 UTC; 0: never. Only with `delivered`."""
    claims: bytes = b""
    """A digest of everything that notifications have reported about the order; empty: nothing."""
    is_revised: bool = False
    """Something was cancelled, returned, changed or taken back: it may have had a word that it has no more."""


_decoder = msgpack.Decoder(Wanted)


def decode(body: bytes) -> Wanted:
    """The inverse of `encode`."""
    return _decoder.decode(body)


def encode(wanted: Wanted) -> bytes:
    """Encodes it as an update's body. A last member that says nothing is left out: the digest is that of versions that
    had none.
    """
    return _encoder.encode(wanted if wanted.is_revised else astuple(wanted)[:-1])


def digest_of(encoded: bytes) -> bytes:
    """A digest of 16 bytes."""
    return blake2b(encoded, digest_size=16).digest()


def wanted(order: Order) -> Wanted:
    """The desired state of an order without contradictions whose payment is approved."""
    word, lack, is_ended, delivery = _word(order)
    number, is_unverified = _number(order)
    is_delivered = word == DELIVERED
    return Wanted(
        word,
        lack,
        is_ended,
        number,
        is_unverified,
        _phone(order) if is_delivered else "",
        _email(order) if is_delivered else "",
        delivery,
        _second_attempt_us(order) if is_delivered else 0,
        _claims(order, number if is_unverified else ""),
        _is_revised(order.facts),
    )


def _is_revised(facts: Facts) -> bool:
    content, confirmation = facts.content, facts.confirmation
    return (
        facts.cancellation is not None
        or bool(facts.item_cancellations or facts.returns or facts.statements)
        or (content is not None and confirmation is not None and content.stamp != confirmation.stamp)
        or any(shipment.is_retracted for shipment in facts.shipments.values())
    )


def _word(order: Order) -> tuple[str, Lack | None, bool, Stamp | None]:
    facts = order.facts
    cancellation = facts.cancellation_now
    if cancellation is not None and not cancellation.retracted:
        if cancellation.by == "provider":
            return "", None, True, None
        lack = lack_of_cancelled(order)
        said = BUYER_CANCEL if cancellation.by == "shopper" else CANCELLED
        return ("", lack, False, None) if lack is not None else (said, None, False, None)
    kept, pending = units_of(order.shipped), units_of(order.unshipped)
    if not (kept or pending or facts.statements) and any(each.units for each in facts.item_cancellations.values()):
        lack = lack_of_cancelled(order)
        return ("", lack, False, None) if lack is not None else (CANCELLED, None, False, None)
    lack = lack_of(order)
    if lack is not None or pending or not kept:
        return "", lack, False, None
    content = facts.content
    arrival = arrival_of(facts, [] if content is None else unpack_lines(content.lines))
    return (DELIVERED, None, False, arrival.newest) if arrival.is_complete else ("", None, False, None)


def _number(order: Order) -> tuple[str, bool]:
    references = order.details.references
    reported = _text(UNSET if references is None else references.provider)
    if reported:
        return reported, False
    pushed = order.facts.provider
    return ("", False) if pushed is None or pushed.order is None else (pushed.order[1], True)


def _phone(order: Order) -> str:
    addresses = (order.details.delivery_address, order.details.invoice_address)
    return next((phone for address in addresses if address is not None for phone in _phones(address)), "")


def _phones(address: Address) -> list[str]:
    return [phone for phone in (_text(address.mobile_phone), _text(address.phone)) if phone]


def _email(order: Order) -> str:
    customer = order.details.customer
    return _text(UNSET if customer is None else customer.email)


def _text(value: str | UnsetType) -> str:
    return "" if value is UNSET else value.strip()


def _said(facts: Facts) -> dict[str, tuple[Moment, Packed]]:
    """Facts from notifications, the newest of each kind."""
    return {} if facts.provider is None else facts.provider.said


_CLAIMS = ("cancelled", "delivery", "second_attempt")
"""Kinds that report the escrow's state."""


def _second_attempt_us(order: Order) -> int:
    said = _said(order.facts).get("second_attempt")
    return 0 if said is None else said[0][0]


def _claims(order: Order, unverified: str) -> bytes:
    """Not only the newest: notifications have no time of their own, and two receivers may have recorded them in the
    wrong order.
    """
    pushed = _said(order.facts)
    said = [(kind, pushed[kind]) for kind in _CLAIMS if kind in pushed]
    return blake2b(_encoder.encode((said, unverified)), digest_size=8).digest() if said or unverified else b""
