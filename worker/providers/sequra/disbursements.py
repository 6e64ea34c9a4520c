"""What seQura has paid out: the list, the details, and events from their lines. Pure.

Source: docs.sequra.com, Disbursement API (2026-10): the list is an array of `{"disbursement": {…}}`, each with the
`path` of its detail; the detail's lines have `order_ref_1` and `amount_with_tax` (below 0 if something is
withdrawn). Over all disbursements they add up to the shipped cart. Pages and filters are not documented.

Unverified: what the lines of a detail are wrapped in, so we search for them; that a path never names a different
disbursement later.

A list or a detail counts as a whole or not at all: if it is cut off or not understood, it is fetched again.
"""

import re
from datetime import date
from hashlib import blake2b
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, msgpack

from schemas.base import AMOUNT_MAX_MINOR, REFERENCE_MAX, TEXT_MAX
from worker.model.callbacks import Said
from worker.model.exchange import HttpRequest, HttpResponse, Outcome, OutcomeKind
from worker.providers.sequra.calls import headers, merchant_url, url_of
from worker.providers.sequra.options import SequraAccount
from worker.providers.sequra.responses import outcome_of

RESPONSE_MAX_BYTES = 16 * 2**20
"""The largest response to be read: a detail of 100,000 lines."""
PURPOSE = "disbursements"
"""The last part of the events' `source`."""

_PATH = re.compile(r"/[A-Za-z0-9._~%!$&'()*+,;=:@/-]{1,900}", re.ASCII)
_DEPTH_MAX = 6
_Text = Annotated[str, Meta(max_length=TEXT_MAX)]


class Disbursement(Struct, frozen=True):
    """A disbursement in the list."""

    issue_date: date
    path: str
    reference: _Text | int | None = None
    """Of the bank transfer."""
    to_date: Any = None
    """The day up to which deliveries count, as a date; taken as it comes, for no payment depends on it."""
    currency: Any = None
    """The same."""


class _Listed(Struct, frozen=True):
    disbursement: Disbursement


class Line(Struct, frozen=True):
    """A disbursement's payment for one order, or for one of its shipments."""

    order_ref_1: str | int
    amount_with_tax: Annotated[int, Meta(ge=-AMOUNT_MAX_MINOR, le=AMOUNT_MAX_MINOR)]
    maximum_amount_with_tax: Annotated[int, Meta(ge=0, le=AMOUNT_MAX_MINOR)] | UnsetType = UNSET
    """The largest amount that the order ever had."""
    shipment_ref: str | int | UnsetType = UNSET


_list_decoder = msgspec.json.Decoder(list[_Listed])


class Read(Struct, frozen=True):
    """A response that was read."""

    outcome: Outcome
    """`APPLIED`: it was understood."""
    disbursements: list[Disbursement] = []
    lines: list[Line] = []


def list_request(account: SequraAccount) -> HttpRequest:
    """`GET {base}/merchants/{merchant}/disbursements`."""
    url = f"{merchant_url(account.base_url, account.merchant_id)}/disbursements"
    return HttpRequest("GET", url, headers(account), b"", account.name, RESPONSE_MAX_BYTES)


def detail_request(account: SequraAccount, found: Disbursement) -> HttpRequest:
    """`GET {base}{path}`."""
    return HttpRequest("GET", url_of(account, found.path), headers(account), b"", account.name, RESPONSE_MAX_BYTES)


def read_list(response: HttpResponse, now_ms: int) -> Read:
    """Reads the list of disbursements."""
    outcome = outcome_of(response, now_ms)
    if outcome.kind is not OutcomeKind.APPLIED:
        return Read(outcome)
    try:
        found = [each.disbursement for each in _list_decoder.decode(response.body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _not_understood(response, "the list of disbursements")
    for each in found:
        # The request carries credentials: the path must stay below the account's address.
        if not _PATH.fullmatch(each.path) or each.path.startswith("//") or ".." in each.path.split("/"):
            return _not_understood(response, "the path of a disbursement")
    return Read(outcome, disbursements=found)


def read_detail(response: HttpResponse, now_ms: int) -> Read:
    """Reads the lines of one disbursement."""
    outcome = outcome_of(response, now_ms)
    if outcome.kind is not OutcomeKind.APPLIED:
        return Read(outcome)
    try:
        lines = _lines_in(msgspec.json.decode(response.body), _DEPTH_MAX)
        if lines is not None:
            return Read(outcome, lines=msgspec.convert(lines, list[Line]))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    return _not_understood(response, "the lines of a disbursement")


def _lines_in(value: Any, depth: int) -> list[Any] | None:
    """The list that has a member with an order's reference, or an empty list named `lines`."""
    if isinstance(value, list):
        named = any(isinstance(each, dict) and "order_ref_1" in each for each in value)
        if named:
            return value
        inner = value
    elif isinstance(value, dict):
        if value.get("lines") == []:
            return []
        inner = list(value.values())
    else:
        return None
    if not depth:
        return None
    return next((found for each in inner if (found := _lines_in(each, depth - 1)) is not None), None)


def _not_understood(response: HttpResponse, what: str) -> Read:
    return Read(Outcome(OutcomeKind.REJECTED, f"{what} cannot be understood", response.status))


def said_of(found: Disbursement, lines: list[Line]) -> list[Said]:
    """The events for its lines. A line's identity is the disbursement, the order, and its number among that order's
    lines, independent of their order in the response.
    """
    counts: dict[str, int] = {}
    said = []
    for line in sorted(lines, key=lambda each: (str(each.order_ref_1), each.amount_with_tax, str(each.shipment_ref))):
        reference = str(line.order_ref_1)
        if not reference or len(reference) > REFERENCE_MAX:
            continue  # not an order of ours, and no event could name it
        number = counts[reference] = counts.get(reference, 0) + 1
        data: dict[str, Any] = {
            "disbursement": found.path,
            "amount_minor": line.amount_with_tax,
            "issued_on": found.issue_date.isoformat(),
        }
        if line.maximum_amount_with_tax is not UNSET:
            data["maximum_minor"] = line.maximum_amount_with_tax
        if found.reference is not None:
            data["reference"] = str(found.reference)
        known_by = (found.path, reference, str(number))
        said.append(Said("disbursed", data, known_by, found.issue_date.isoformat(), reference))
    return said


class Seen(Struct, array_like=True, frozen=True):
    """The disbursements that were read completely; the job's memory."""

    version: int = 1
    paths: list[bytes] = []
    """Digests."""


_seen = msgpack.Decoder(Seen)


def read_seen(value: bytes) -> Seen:
    """The inverse of `kept_seen`. Raises `msgspec.MsgspecError`."""
    return _seen.decode(value) if value else Seen()


def kept_seen(seen: Seen) -> bytes:
    """Encodes it for the job's record."""
    return msgpack.encode(seen)


def unread(seen: Seen, found: list[Disbursement]) -> list[Disbursement]:
    """The disbursements of a list that were not read yet, oldest first."""
    known = set(seen.paths)
    new = {each.path: each for each in found if _digest(each) not in known}
    return sorted(new.values(), key=lambda each: (each.issue_date, each.path))


def after_reading(seen: Seen, listed: list[Disbursement], one: Disbursement) -> Seen:
    """The memory once the events of `one` are committed, without disbursements that are no longer listed."""
    known = {*seen.paths, _digest(one)}
    return Seen(paths=[digest for digest in dict.fromkeys(map(_digest, listed)) if digest in known])


def _digest(found: Disbursement) -> bytes:
    return blake2b(found.path.encode(), digest_size=8).digest()
