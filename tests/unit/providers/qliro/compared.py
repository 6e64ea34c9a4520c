"""An order of a `turns.Client` compared with Qliro, as `cartsync reconcile` does it."""

from tests.shops.events import SUBJECT
from tests.unit.providers.qliro.turns import QLIRO, RULES, Client
from worker.core.reconciling import meet
from worker.model.exchange import Exchange, HttpResponse, OutcomeKind
from worker.model.provider import Destination
from worker.model.reconcile import Finding
from worker.providers.registry import RECONCILERS

RECONCILER = RECONCILERS["qliro"]


def compared(client: Client) -> Finding:
    """What the comparison comes to; the order has to be one that can be compared."""
    destination = Destination(client.account, QLIRO)
    met = meet(SUBJECT, client.record, destination, partition=0, now_ms=client.now_ms, rules=RULES)
    assert met.case is not None, met.finding
    question = RECONCILER.question(met.case)
    if isinstance(question, Finding):
        return question
    assert isinstance(question, Exchange)
    request = question.request
    status, body = client.api.answer(
        request.method, request.url, request.headers["Authorization"], request.body, client.now
    )
    answered = QLIRO.read_response(met.case.asked, question, HttpResponse(status, {}, body))
    assert answered.outcome.kind is OutcomeKind.APPLIED, answered
    return RECONCILER.compare(met.case, answered.seen)
