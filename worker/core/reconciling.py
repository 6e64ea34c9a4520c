"""Which orders can be compared with their provider, and what a comparison is told as. Pure."""

from msgspec import Struct

from schemas.facts import MEMBERS, Facts
from schemas.reconciliation import ComparedOrder, ProviderSide, ShopSide, Verdict
from schemas.state import OrderRecord
from schemas.views import Status
from worker.core.order import assess
from worker.core.policy import DeliveryPolicy
from worker.core.status import is_only_shown, status
from worker.core.view import not_configured, why_not_ready
from worker.model.exchange import Outcome
from worker.model.order import Order, account_of, reference_of
from worker.model.provider import Destination, Question
from worker.model.reconcile import Case, Finding

KEYS_DIFFER = "Its events came under several record keys: some may lie in another partition, as an order of their own."


class Met(Struct, frozen=True):
    """An order as the state topic has it."""

    subject: str
    partition: int
    record: OrderRecord
    provider: str
    """Empty: its account is not configured."""
    status: Status
    order: Order | None
    """`None`: it has no carts."""
    case: Case | None
    """`None`: it is not compared."""
    finding: Finding | None = None
    """Why not."""


def meet(
    subject: str,
    record: OrderRecord,
    destination: Destination | None,
    *,
    partition: int,
    now_ms: int,
    rules: DeliveryPolicy,
) -> Met:
    """Whether an order can be compared, or why not. `destination`: `None`: its account is not configured."""
    assessment = assess(record.facts, reference_of(subject))
    held_as = status(record, assessment, now_ms=now_ms, rules=rules)
    provider = "" if destination is None else destination.provider.name

    def met(case: Case | None, finding: Finding | None = None) -> Met:
        return Met(subject, partition, record, provider, held_as, assessment.order, case, finding)

    if destination is None:
        return met(None, _not_compared("no_account", f"{not_configured(account_of(subject))}: nobody can be asked."))
    if assessment.state == "unconfirmed" and is_only_shown(record):
        return met(None, _only_shown(record))
    if assessment.state != "ready":
        why = why_not_ready(assessment.state, assessment.reasons, held_as)
        return met(None, Finding(category="not_final", verdict=assessment.state, text=f"{why}."))
    if held_as == "owed":
        why = f": {record.reason}" if record.reason else ""
        text = f"An update is on its way to the provider, or waits for its turn{why}."
        return met(None, Finding(category="not_final", verdict="owed", text=text))
    order = assessment.order
    assert order is not None  # ready means that there are carts
    update = destination.provider.render(order, destination.account)
    asked = Question(reference_of(subject), destination.account, update, record.remote, now_ms=now_ms)
    return met(Case(asked, order, _changed_ms(record.facts)))


def _changed_ms(facts: Facts) -> int:
    """The time of the newest fact that the carts follow from."""
    stamps = [fact.stamp for name, each in MEMBERS.items() if each.makes_carts for _, fact in facts.stamped(name)]
    return max([time_us for _, time_us, *_ in stamps], default=0) // 1000


def _only_shown(record: OrderRecord) -> Finding:
    if record.facts.observed is not None:
        return _not_compared("observed_only", "Observed for statistics alone: it is no order of this provider.")
    return _not_compared("unknown_here", "Only the provider has said something of it: no order.confirmed has come.")


def _not_compared(verdict: Verdict, text: str) -> Finding:
    return Finding(category="not_compared", verdict=verdict, text=text)


def unread(title: str, why: str) -> Finding:
    """Of an order that its provider did not answer about. `title`: of the provider."""
    return _not_compared("not_read", f"{title} did not say what it has of the order: {why}")


def unknown_there(title: str, outcome: Outcome, subject: str) -> Finding:
    """Of an order that its provider does not know."""
    return Finding(
        category="differs",
        verdict="unknown_at_provider",
        text=f"{title} knows no such order ({outcome.reason}): whatever was shipped is not paid through it.",
        action=f"Check base_url and credentials of the account, and references.provider of {subject}.",
        held=ProviderSide(),
    )


KEEPS_CHANGING = Finding(
    category="not_final", verdict="keeps_changing", text="It changed each time that it was compared."
)


def conclude(met: Met, finding: Finding) -> ComparedOrder:
    """What is told of an order. Of one that is parked, both sides and why: it differs, or only waits."""
    record, order = met.record, met.order
    text, reason, category, verdict = finding.text, "", finding.category, finding.verdict
    action = finding.action
    if met.status == "parked" and record.park is not None:
        reason = record.park.reason
        if category == "agrees":
            category, text = "not_final", "The provider has what should be so, and something is left to be told."
        if category != "not_compared":
            verdict = "parked"
            text = f"{text} The order is parked ({reason})."
            action = action or f"cartsync order release {met.subject}, once the reason is gone."
    if record.has_several_keys and category == "differs":
        text = f"{text} {KEYS_DIFFER}"
    return ComparedOrder(
        subject=met.subject,
        provider=met.provider,
        category=category,
        verdict=verdict,
        text=text,
        action=action,
        difference_minor=finding.difference_minor,
        owed_to=finding.owed_to,
        currency=None if order is None else order.currency,
        shop=None if order is None else ShopSide(order.shipped.total_minor, order.unshipped.total_minor),
        held=finding.held,
        status=met.status,
        reason=reason,
        revision=record.revision,
        partition=met.partition,
    )


def foreign_line(account: str, provider: str, reference: str, finding: Finding) -> ComparedOrder:
    """What is told of an order that only the provider's ledger names."""
    return ComparedOrder(
        subject=f"{account}/{reference}",
        provider=provider,
        category=finding.category,
        verdict=finding.verdict,
        text=finding.text,
        action=finding.action,
        held=finding.held,
    )
