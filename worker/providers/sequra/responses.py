"""seQura's responses as outcomes. Pure.

It has no codes of its own: the class of a status is `worker.providers.responses.kind_of_status`, and what else follows
from it, such as `may_have_applied`, `outcome_by_status`.
"""

from worker.model.exchange import HttpResponse, Outcome, OutcomeKind
from worker.providers.responses import describe, kind_of_status, outcome_by_status, retry_after_s


def outcome_of(response: HttpResponse, now_ms: int, remote: bytes | None = None) -> Outcome:
    """The status decides: 200 and 202 are success, whatever the body (docs.sequra.com, 2026-10). `remote`: the memory
    after a success.
    """
    status = response.status
    kind = kind_of_status(status)
    wait_s = retry_after_s(response.headers.get("retry-after"), now_ms)
    if kind is OutcomeKind.APPLIED:
        return Outcome(kind, "", status, wait_s, remote=remote)
    return outcome_by_status(status, describe(response), wait_s)
