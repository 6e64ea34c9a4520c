"""Reading responses: statuses, waiting times, error texts in any shape. Pure and total."""

import html
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from worker.model.exchange import REASON_MAX, RETRY_AFTER_MAX_S, HttpResponse, Outcome, OutcomeKind, Refusal

WORDS_MAX = REASON_MAX - 10
"""Characters of a provider's error text that are kept; the status and the ellipsis take the rest."""
_READ_MAX = 16_384
"""Bytes of an error body that are read."""

_REJECTED = frozenset({423, 425, 429, 500, 501, 503, 505})
_REFUSALS = {400: Refusal.REQUEST, 413: Refusal.REQUEST, 422: Refusal.CONTENT}


def kind_of_status(status: int) -> OutcomeKind:
    """The outcome class of a status, by the table of `DOMAIN.md` section 6."""
    if 200 <= status < 300:
        return OutcomeKind.APPLIED
    if status == 409:
        return OutcomeKind.CONFLICT
    if status in _REJECTED:
        return OutcomeKind.REJECTED
    if status == 408 or status >= 500:
        return OutcomeKind.UNKNOWN  # the origin behind a gateway may still apply it
    if status == 404:
        return OutcomeKind.NOT_FOUND
    if status == 401:
        return OutcomeKind.CREDENTIALS
    if status == 403:
        return OutcomeKind.FORBIDDEN
    return OutcomeKind.PERMANENT


def outcome_by_status(
    status: int, reason: str, retry_after_s: float | None, kind: OutcomeKind | None = None
) -> Outcome:
    """The outcome of a request that was not accepted, with all that follows from its status: a 429 or a 503 asks for
    fewer requests of the whole account, or none for a while. `kind`: where the adapter knows better.
    """
    kind = kind_of_status(status) if kind is None else kind
    return Outcome(
        kind,
        reason,
        status,
        retry_after_s,
        throttles_account=status in (429, 503),
        may_have_applied=status >= 500,
        refusal=refusal_of(status, kind),
    )


def refusal_of(status: int, kind: OutcomeKind) -> Refusal | None:
    """What a request with this status, of this class, was refused for."""
    if kind is OutcomeKind.CONFLICT:
        return Refusal.CONTENT
    return _REFUSALS.get(status) if kind is OutcomeKind.PERMANENT else None


def retry_after_s(value: str | None, now_ms: int) -> float | None:
    """Seconds that `Retry-After` asks for, in [0, 3600]; `None` if it is absent or malformed."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), RETRY_AFTER_MAX_S)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return min(max(at.timestamp() - now_ms / 1000, 0.0), RETRY_AFTER_MAX_S)


def describe(response: HttpResponse) -> str:
    """`409: error text`, from a JSON `errors` list (texts or objects with a title), plain text or HTML."""
    text = response.body[:_READ_MAX].decode("utf-8", "replace")
    words = _errors(text) if text.lstrip()[:1] in ("{", "[") else _visible(text)
    words = " ".join(words.split())
    if len(words) > WORDS_MAX:
        words = words[:WORDS_MAX] + " …"
    return f"{response.status}: {words}" if words else f"{response.status}"


def _errors(text: str) -> str:
    try:
        body: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return _visible(text)  # it only looks like JSON, or was cut
    errors = body.get("errors") if isinstance(body, dict) else body
    if not isinstance(errors, list):
        return ""
    texts = [error.get("title") if isinstance(error, dict) else error for error in errors]
    return "; ".join(text for text in texts if isinstance(text, str))


_UNSEEN = re.compile(r"<(script|style|title)\b.*?(</\1\s*>|$)|<!--.*?(-->|$)", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<[^>]*>?")
_NO_CHARACTER = re.compile(r"&#[xX]?[0-9a-fA-F]{8,};?")
"""A reference to no character: `html.unescape` fails at one of thousands of digits."""


def _visible(text: str) -> str:
    """The visible text of a page; plain text unchanged."""
    if "<" not in text:
        return text
    return html.unescape(_NO_CHARACTER.sub(" ", _TAG.sub(" ", _UNSEEN.sub(" ", text))))
