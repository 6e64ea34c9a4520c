"""What became of a call: the body's `status` decides where there is one, else nobody knows."""

from msgspec.structs import replace

from worker.model.exchange import HttpResponse, Outcome, OutcomeKind
from worker.providers.answers import WORDS_MAX, describe, kind_of_status, retry_after_s, throttles_account
from worker.providers.atarapay.options import AtaraPayAccount
from worker.providers.atarapay.tokens import redacted
from worker.providers.atarapay.wire import Said, has_any, said

_OVERLOADED = frozenset({429, 502, 503, 504})
"""Made by what stands in front of AtaraPay, whatever they hold."""
_BY_STATUS = frozenset({401, 403, 404, 429})
"""Without a body that can be understood, these say all the same that nothing was done."""


def judge(account: AtaraPayAccount, response: HttpResponse, now_ms: int) -> tuple[Outcome, Said | None]:
    """The outcome, and what the body says if it can be understood. Reasons hold no key of the account."""
    status = response.status
    wait_s = retry_after_s(response.headers.get("retry-after"), now_ms)
    found = said(response.body)
    if 300 <= status < 400:
        # Followed, the keys would go to whomever it names.
        return Outcome(
            OutcomeKind.PERMANENT, f"{status}: a redirect, which is not followed; check base_url", status
        ), None
    if found is not None and found.is_success:
        return Outcome(OutcomeKind.APPLIED, "", status), found
    if found is not None and not (status in _OVERLOADED and _is_unknown(found.message, account)):
        reason = _said(status, redacted(found.message, account))
        return Outcome(_kind_of_message(found.message, account), reason, status), found
    reason = redacted(describe(_without_keys(response, account)), account)
    return Outcome(_kind_of_status(status), reason, status, wait_s, throttles_account=throttles_account(status)), None


def _said(status: int, message: str) -> str:
    words = " ".join(message.split())
    words = words[:WORDS_MAX] + " …" if len(words) > WORDS_MAX else words
    return f"{status}: {words}" if words else f"{status}: an error without a message"


def _is_unknown(message: str, account: AtaraPayAccount) -> bool:
    return not has_any(message, account.already_processed + account.token_refused)


def _kind_of_message(message: str, account: AtaraPayAccount) -> OutcomeKind:
    if has_any(message, account.token_refused):
        return OutcomeKind.CREDENTIALS
    # Order Status says what it was processed to; should it contradict this, the two are not asked for ever.
    return OutcomeKind.CONFLICT if has_any(message, account.already_processed) else OutcomeKind.PERMANENT


def _kind_of_status(status: int) -> OutcomeKind:
    return kind_of_status(status) if status in _BY_STATUS else OutcomeKind.UNKNOWN


def _without_keys(response: HttpResponse, account: AtaraPayAccount) -> HttpResponse:
    """Before anything of it is cut: half a key is not found any more."""
    text = response.body.decode("utf-8", "replace")
    return replace(response, body=redacted(text, account).encode())
