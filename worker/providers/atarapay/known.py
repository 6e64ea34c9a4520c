"""The adapter's memory of an order at AtaraPay: statuses that were sent and accepted, and the last Order Status."""

from typing import Any

import msgspec
from msgspec import Struct, msgpack
from msgspec.structs import replace

from schemas.facts import Stamp
from worker.providers.atarapay.meaning import Wanted
from worker.providers.atarapay.wire import BEYOND_DELIVERY, CANCELS, DELIVERED, Seen, State


class Known(Struct, array_like=True, frozen=True, gc=False):
    """Written to the state topic: add members only at the end, with a default. A *word* is the `status` of a call."""

    version: int = 1
    number: str = ""
    """AtaraPay's number of the order that the rest is about."""
    is_confirmed: bool = False
    """Order Status has named our reference as `product_id`."""
    word: str = ""
    """The last word that was sent."""
    before: str = ""
    """The Order Status before it was sent; empty: not read."""
    delivery: Stamp | None = None
    """The newest delivery that the word was sent for."""
    is_open: bool = False
    """It is unknown whether the last word, or one that we do not know of, was accepted."""
    accepted: str = ""
    """The last word that AtaraPay is known to have, no matter who sent it."""
    accepted_for: Stamp | None = None
    """The newest delivery that it was accepted for."""
    state: str = ""
    """The last Order Status, unless a word was accepted since."""
    checked: bytes = b""
    """The claims of notifications that Order Status was read for."""
    by_others: bool = False
    """Its `delivered` is not one that we know of; a worker that was killed, or a person, sent it: which delivery it was
    for is a guess.
    """


_encoder = msgpack.Encoder()
_decoder = msgpack.Decoder(Known)


def encode(known: Known) -> bytes:
    """Encodes it for the order's record."""
    return _encoder.encode(known)


def decode(remote: bytes) -> Known:
    """Decodes `remote`; if it cannot be read, anything may have been sent."""
    if not remote:
        return Known()
    try:
        return _decoder.decode(remote)
    except msgspec.DecodeError:
        return Known(is_open=True)


def known_of(remote: bytes, wanted: Wanted, *, may_land_late: bool) -> Known:
    """The memory of the order under its current number. Words sent to another number say nothing about this one."""
    known = decode(remote)
    if wanted.number and known.number and wanted.number != known.number:
        return Known(number=wanted.number, is_open=True)
    return replace(known, is_open=True) if may_land_late else known


def describe(remote: bytes) -> dict[str, Any]:
    """The memory for `order show`."""
    known = decode(remote)
    shown = {"order": known.number, "state": known.state, "told": known.accepted, "tried": known.word}
    if known.word == known.accepted:
        del shown["tried"]
    return {name: text for name, text in shown.items() if text} | ({"in_doubt": True} if known.is_open else {})


def tried(known: Known, wanted: Wanted, seen: Seen | None) -> Known:
    """The memory while the wanted word is in flight."""
    return replace(
        known,
        number=wanted.number,
        word=wanted.word,
        before="" if seen is None else seen.title,
        delivery=wanted.delivery,
        is_open=True,
    )


def accepted(known: Known) -> Known:
    """The memory once the last word is known to be accepted."""
    accepted_for = known.delivery if known.word == DELIVERED else known.accepted_for
    return replace(known, is_open=False, accepted=known.word, accepted_for=accepted_for, state="", by_others=False)


def read(known: Known, wanted: Wanted, seen: Seen, reference: str) -> Known:
    """The memory after reading Order Status, including what it shows about words whose responses were lost."""
    after = replace(
        known,
        number=wanted.number,
        is_confirmed=known.is_confirmed or seen.product_id == reference,
        is_open=known.is_open and seen.state is None,
        state=seen.title,
        checked=wanted.claims,
    )
    if seen.state is State.CANCELLED:
        return replace(after, accepted=known.word) if known.is_open and known.word in CANCELS else after
    if seen.state in BEYOND_DELIVERY or _was_taken(known, seen):
        if known.is_open and known.word == DELIVERED:
            return replace(after, accepted=DELIVERED, accepted_for=known.delivery, by_others=False)
        if known.accepted != DELIVERED:
            return replace(after, accepted=DELIVERED, accepted_for=wanted.delivery, by_others=True)
    return after


def _was_taken(known: Known, seen: Seen) -> bool:
    """Pending II after a lost response: accepted, then the delivery was rejected, unless that was its state before."""
    may_be_delivered = known.word in ("", DELIVERED)
    return seen.state is State.SECOND and known.is_open and may_be_delivered and known.before != State.SECOND


_NEVER: Stamp = (-2, 0, 0)


def is_newer(wanted: Wanted, known: Known) -> bool:
    """Whether there is a delivery that was not sent to AtaraPay."""
    newest, accepted_for = wanted.delivery or _NEVER, known.accepted_for or _NEVER
    # Somebody else's word was accepted before a second attempt was agreed on.
    return newest > accepted_for or (known.by_others and 0 < wanted.second_attempt_us < newest[1])


def is_due(wanted: Wanted, known: Known) -> bool:
    """Whether the word may still have to be sent."""
    if wanted.word == DELIVERED:
        return known.accepted != DELIVERED or is_newer(wanted, known)
    return wanted.word in CANCELS and known.accepted not in CANCELS
