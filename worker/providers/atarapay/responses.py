"""The outcome of a call: the body's `status` decides if there is one; otherwise the outcome is unknown."""

from msgspec.structs import replace

from worker.model.exchange import HttpResponse, Outcome, OutcomeKind
from worker.providers.atarapay.options import AtaraPayAccount
from worker.providers.atarapay.tokens import redacted
from worker.providers.atarapay.wire import Said, has_any, said
from worker.providers.responses import WORDS_MAX, describe, kind_of_status, outcome_by_status, refusal_of, retry_after_s

_OVERLOADED = frozenset({429, 502, 503, 504})
"""These come from a gateway in front of AtaraPay, whatever their body says."""
_BY_STATUS = frozenset({401, 403, 404, 429})
"""Even without a readable body, these say that nothing was done."""


def judge(account: AtaraPayAccount, response: HttpResponse, now_ms: int) -> tuple[Outcome, Said | None]:
    """The outcome, and the body if it is readable. Reasons never contain the account's keys."""
    status = response.status
    wait_s = retry_after_s(response.headers.get("retry-after"), now_ms)
    found = said(response.body)
    if 300 <= status < 400:
        # Following it would send the keys to whatever host it names.
        return Outcome(
            OutcomeKind.PERMANENT, f"{status}: a redirect, which is not followed; check base_url", status
        ), None
    if found is not None and found.is_success:
        return Outcome(OutcomeKind.APPLIED, "", status), found
    if found is not None and not (status in _OVERLOADED and _is_unknown(found.message, account)):
        reason = _said(status, redacted(found.message, account))
        kind = _kind_of_message(found.message, account)
        return Outcome(kind, reason, status, refusal=refusal_of(status, kind)), found
    reason = redacted(describe(_without_keys(response, account)), account)
    return outcome_by_status(status, reason, wait_s, _kind_of_status(status)), None


def _said(status: int, message: str) -> str:
    words = " ".join(message.split())
    words = words[:WORDS_MAX] + " …" if len(words) > WORDS_MAX else words
    return f"{status}: {words}" if words else f"{status}: an error without a message"


def _is_unknown(message: str, account: AtaraPayAccount) -> bool:
    return not has_any(message, account.already_processed + account.token_refused)


def _kind_of_message(message: str, account: AtaraPayAccount) -> OutcomeKind:
    if has_any(message, account.token_refused):
        return OutcomeKind.CREDENTIALS
    # Order Status says what it was processed to; if it contradicts this, a CONFLICT ends the loop between the two.
    return OutcomeKind.CONFLICT if has_any(message, account.already_processed) else OutcomeKind.PERMANENT


def _kind_of_status(status: int) -> OutcomeKind:
    return kind_of_status(status) if status in _BY_STATUS else OutcomeKind.UNKNOWN


def _without_keys(response: HttpResponse, account: AtaraPayAccount) -> HttpResponse:
    """Before anything is cut: half a key would not be found."""
    text = response.body.decode("utf-8", "replace")
    return replace(response, body=redacted(text, account).encode())
