"""What is kept of an order at AtaraPay, in the order's record: what was tried, what was taken, what was read last."""

from typing import Any

import msgspec
from msgspec import Struct, msgpack
from msgspec.structs import replace

from schemas.facts import Stamp
from worker.providers.atarapay.meaning import Wanted
from worker.providers.atarapay.wire import BEYOND_DELIVERY, CANCELS, DELIVERED, Seen, State


class Known(Struct, array_like=True, frozen=True, gc=False):
    """Written to the state topic: members are only ever added at the end, with a default."""

    version: int = 1
    number: str = ""
    """Of the order at AtaraPay that all this is about."""
    is_confirmed: bool = False
    """Order Status has named our reference as `product_id`."""
    word: str = ""
    """The last one that was tried."""
    before: str = ""
    """What Order Status had said before it; empty: it was not asked."""
    delivery: Stamp | None = None
    """The newest delivery that the word was tried for."""
    is_open: bool = False
    """Nobody knows whether the last word, or one that is not known here, was taken."""
    accepted: str = ""
    """The last word that AtaraPay is known to hold, whoever gave it."""
    accepted_for: Stamp | None = None
    """The newest delivery that it was taken for."""
    state: str = ""
    """What Order Status said last, unless a word was taken since."""
    checked: bytes = b""
    """The claims of notifications that it was asked about."""
    by_others: bool = False
    """The `delivered` that it holds is none that is known here, of a worker that was killed or of a person: what
    delivery it was for is a guess.
    """


_encoder = msgpack.Encoder()
_decoder = msgpack.Decoder(Known)


def encode(known: Known) -> bytes:
    """As the order's record keeps it."""
    return _encoder.encode(known)


def decode(remote: bytes) -> Known:
    """What was kept; when that cannot be read, anything may have been tried."""
    if not remote:
        return Known()
    try:
        return _decoder.decode(remote)
    except msgspec.DecodeError:
        return Known(is_open=True)


def known_of(remote: bytes, wanted: Wanted, *, may_land_late: bool) -> Known:
    """What is known of the order that is meant now. What was told to another number is no news of this one."""
    known = decode(remote)
    if wanted.number and known.number and wanted.number != known.number:
        return Known(number=wanted.number, is_open=True)
    return replace(known, is_open=True) if may_land_late else known


def describe(remote: bytes) -> dict[str, Any]:
    """What people are shown."""
    known = decode(remote)
    shown = {"order": known.number, "state": known.state, "told": known.accepted, "tried": known.word}
    if known.word == known.accepted:
        del shown["tried"]
    return {name: text for name, text in shown.items() if text} | ({"in_doubt": True} if known.is_open else {})


def tried(known: Known, wanted: Wanted, seen: Seen | None) -> Known:
    """While the word that is wanted is on its way."""
    return replace(
        known,
        number=wanted.number,
        word=wanted.word,
        before="" if seen is None else seen.title,
        delivery=wanted.delivery,
        is_open=True,
    )


def accepted(known: Known) -> Known:
    """Once the word that was tried last is known to be taken."""
    accepted_for = known.delivery if known.word == DELIVERED else known.accepted_for
    return replace(known, is_open=False, accepted=known.word, accepted_for=accepted_for, state="", by_others=False)


def read(known: Known, wanted: Wanted, seen: Seen, reference: str) -> Known:
    """After Order Status: also what it tells of words whose answers were lost."""
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
    """Pending II after a lost answer: the word was taken and its delivery rejected, unless it said so before."""
    may_be_delivered = known.word in ("", DELIVERED)
    return seen.state is State.SECOND and known.is_open and may_be_delivered and known.before != State.SECOND


_NEVER: Stamp = (-2, 0, 0)


def is_newer(wanted: Wanted, known: Known) -> bool:
    """Whether a delivery is told that AtaraPay was not told of."""
    newest, accepted_for = wanted.delivery or _NEVER, known.accepted_for or _NEVER
    # The word of others was taken before a second attempt was agreed on.
    return newest > accepted_for or (known.by_others and 0 < wanted.second_attempt_us < newest[1])


def is_due(wanted: Wanted, known: Known) -> bool:
    """Whether the word may still have to be told."""
    if wanted.word == DELIVERED:
        return known.accepted != DELIVERED or is_newer(wanted, known)
    return wanted.word in CANCELS and known.accepted not in CANCELS
