"""Where an order's escrow is compared with where it should be. Pure.

| what should be so | `Pending` | `Pending II` | buyer's turn, paid | rejected, dispute | money given back |
|---|---|---|---|---|---|
| delivered | `not_delivered` | `awaits_buyer` | agrees | `awaits_buyer` | `cancelled_at_provider` |
| cancelled | `not_cancelled` | `not_cancelled` | `not_cancelled` | `not_cancelled` | agrees |
| nothing told yet | agrees | agrees | `delivered_at_provider` | `delivered_at_provider` | `cancelled_at_provider` |
| no word for it | `amount_differs` | the same | the same | the same | `cancelled_at_provider` if goods are kept |

After a dispute it is `refunded_at_provider`. `Dispute Resolved` does not say for whom, and other words may come:
`state_unknown`. Where the escrow is right, its amount is compared (`amount_differs`), in one currency.
"""

from msgspec import Raw
from msgspec.structs import replace

from schemas.reconciliation import ProviderSide, Verdict
from worker.core.amounts import amount_text
from worker.model.exchange import Exchange, HttpRequest, HttpResponse, Outcome
from worker.model.provider import Question, Update
from worker.model.reconcile import PROBED, Case, Finding, Terms
from worker.providers.atarapay import meaning
from worker.providers.atarapay.meaning import Wanted
from worker.providers.atarapay.options import AtaraPayAccount
from worker.providers.atarapay.responses import judge
from worker.providers.atarapay.steps import NO_NUMBER, order_status
from worker.providers.atarapay.wire import CANCELS, DELIVERED, Seen, State, has_any

UNKNOWN = ("no such order",)
"""Part of the message by which AtaraPay says that it knows no such order (page `order`, 2026-10)."""
_GIVEN_BACK = frozenset({State.CANCELLED, State.REFUNDED})
_BUYERS = frozenset({State.REJECTED, State.DISPUTE, State.DISPUTED})
"""Buyer, seller or AtaraPay have to decide."""

_AGREES = Finding(category="agrees", verdict="agrees")


class AtaraPayReconciler:
    """`Reconciler`: each order by Order Status."""

    title = "AtaraPay"

    def ledger(self, account: AtaraPayAccount, terms: Terms) -> None:  # noqa: ARG002 - it is asked order by order
        return None

    def question(self, case: Case) -> Exchange | Finding:
        wanted = _wanted(case)
        if not wanted.number:
            return Finding(category="not_compared", verdict="cannot_be_asked", text=f"It {NO_NUMBER}.")
        return order_status(case.asked, wanted)

    def is_unknown(self, account: AtaraPayAccount, outcome: Outcome) -> bool:  # noqa: ARG002 - the same for all
        return has_any(outcome.reason, UNKNOWN)

    def probe(self, account: AtaraPayAccount) -> HttpRequest:
        nothing = Update(b"", None, Raw(b"null"))
        return order_status(Question(PROBED, account, nothing), Wanted(number=PROBED)).request

    def probed(self, account: AtaraPayAccount, response: HttpResponse, now_ms: int) -> Outcome:
        return judge(account, response, now_ms)[0]

    def compare(self, case: Case, seen: Seen) -> Finding:
        wanted, order = _wanted(case), case.order
        side = ProviderSide(
            order=wanted.number,
            state=seen.title,
            amount_minor=seen.amount_minor,
            currency=None if seen.currency in ("", order.currency) else seen.currency,
        )
        if seen.product_id and seen.product_id != case.asked.reference and _is_numbered(case, wanted):
            return Finding(
                category="differs",
                verdict="other_order",
                text=f"AtaraPay's order {wanted.number} is the shop's {seen.product_id}, "
                f"expected {case.asked.reference}.",
                action=f"Correct references.provider of {case.subject} (order.details_changed).",
                held=replace(side, reference=seen.product_id),
            )
        return replace(_compare(case, wanted, seen), held=side)


def _wanted(case: Case) -> Wanted:
    return meaning.decode(bytes(case.asked.update.body))


def _is_numbered(case: Case, wanted: Wanted) -> bool:
    """Whether the reference is what the checkout has to have given as `product_id`: AtaraPay takes numbers alone."""
    return wanted.is_unverified or case.asked.reference.isdecimal()


def _compare(case: Case, wanted: Wanted, seen: Seen) -> Finding:
    if seen.state is None or seen.state is State.RESOLVED:
        text = f"AtaraPay holds the order as {seen.title}, which does not say who got the money."
        action = "Look at the order on AtaraPay's dashboard."
        return Finding(category="not_compared", verdict="state_unknown", text=text, action=action)
    if wanted.lack is not None:
        return _whole_amount(case, seen)
    if wanted.word == DELIVERED:
        return _delivered(case, seen)
    if wanted.word in CANCELS or wanted.is_ended:
        return _cancelled(case, seen)
    if seen.state in _GIVEN_BACK:
        return _given_back(case, seen)
    if seen.state in (State.PENDING, State.SECOND):
        return _amounts(case, seen)
    return Finding(
        category="differs",
        verdict="delivered_at_provider",
        text=f"AtaraPay holds the order as {seen.title}: it was told there that all was delivered, and the shop has "
        f"{_amount(case.order.unshipped.total_minor, case)} still to ship.",
        action="Ship what is left. If it was delivered, write order.items_shipped and order.items_delivered.",
    )


def _delivered(case: Case, seen: Seen) -> Finding:
    if seen.state in _GIVEN_BACK:
        return _given_back(case, seen)
    if seen.state is State.PENDING:
        return _owed_to_shop(
            case,
            "not_delivered",
            "AtaraPay still waits to hear of the delivery, and pays nothing before",
            f"cartsync order resend {case.subject}.",
        )
    if seen.state is State.SECOND:
        text = "The buyer rejected the delivery, and a second one was agreed on."
        action = "Deliver again, and write order.items_delivered."
        return Finding(category="not_final", verdict="awaits_buyer", text=text, action=action)
    if seen.state in _BUYERS:
        text = f"AtaraPay holds the order as {seen.title}: the buyer does not accept the delivery."
        action = "Agree with the buyer on AtaraPay's dashboard."
        return Finding(category="not_final", verdict="awaits_buyer", text=text, action=action)
    return _amounts(case, seen)


def _given_back(case: Case, seen: Seen) -> Finding:
    """Though the shop ships, or has shipped."""
    kept_minor = case.order.shipped.total_minor
    verdict: Verdict = "cancelled_at_provider" if seen.state is State.CANCELLED else "refunded_at_provider"
    if kept_minor:
        return _owed_to_shop(
            case,
            verdict,
            f"AtaraPay holds the order as {seen.title}: the buyer has the money back, and keeps the goods",
            "Settle it with the buyer. If the goods came back, write order.items_returned.",
        )
    return Finding(
        category="differs",
        verdict=verdict,
        text=f"AtaraPay holds the order as {seen.title}: the buyer has the money back, and the shop means to ship.",
        action=f"Ship nothing, and write order.cancelled for {case.subject}.",
    )


def _cancelled(case: Case, seen: Seen) -> Finding:
    if seen.state in _GIVEN_BACK:
        return _AGREES
    minor = case.order.confirmed_total_minor
    return Finding(
        category="differs",
        verdict="not_cancelled",
        text=f"The order was cancelled, and AtaraPay holds it as {seen.title}. "
        f"The shopper is owed {_amount(minor, case)}.",
        action=f"cartsync order resend {case.subject}, or cancel it on AtaraPay's dashboard.",
        difference_minor=minor,
        owed_to="shopper",
    )


def _whole_amount(case: Case, seen: Seen) -> Finding:
    """AtaraPay holds one amount, and the carts come to another one."""
    order = case.order
    carts_minor = order.shipped.total_minor + order.unshipped.total_minor
    if seen.state in _GIVEN_BACK:
        return _given_back(case, seen) if carts_minor else _AGREES
    minor = order.confirmed_total_minor - carts_minor
    if not minor:
        return _AGREES
    who = "shopper" if minor > 0 else "shop"
    action = "Pay it outside of AtaraPay, which has no word for a part."
    if not carts_minor:
        action = f"Write order.cancelled for {case.subject}, which AtaraPay can be told as nothing is kept."
    return Finding(
        category="differs",
        verdict="amount_differs",
        text=f"AtaraPay holds the order as {seen.title}, with its whole amount. "
        f"The {who} is owed {_amount(abs(minor), case)}.",
        action=action,
        difference_minor=minor,
        owed_to="shopper" if minor > 0 else "shop",
    )


def _amounts(case: Case, seen: Seen) -> Finding:
    """Where the escrow is right: what lies in it. AtaraPay converts, so only what is in one currency is compared."""
    confirmed_minor = case.order.confirmed_total_minor
    if seen.amount_minor is None or seen.currency in ("", case.order.currency):
        minor = 0 if seen.amount_minor is None or not seen.currency else seen.amount_minor - confirmed_minor
        if not minor:
            return _AGREES
        more = "more" if minor > 0 else "less"
        who = "shopper" if minor > 0 else "shop"
        return Finding(
            category="differs",
            verdict="amount_differs",
            text=f"AtaraPay's checkout took {_amount(abs(minor), case)} {more} than what was confirmed. "
            f"The {who} is owed {_amount(abs(minor), case)}.",
            action="Compare the shop's checkout with its order.confirmed.",
            difference_minor=minor,
            owed_to="shopper" if minor > 0 else "shop",
        )
    text = f"AtaraPay holds it in {seen.currency}, the order is in {case.order.currency}: only its state was compared."
    return Finding(category="agrees", verdict="other_currency", text=text)


def _owed_to_shop(case: Case, verdict: Verdict, said: str, action: str) -> Finding:
    minor = case.order.shipped.total_minor
    return Finding(
        category="differs",
        verdict=verdict,
        text=f"{said}. The shop is owed {_amount(minor, case)}.",
        action=action,
        difference_minor=-minor,
        owed_to="shop",
    )


def _amount(minor: int, case: Case) -> str:
    return amount_text(minor, case.order.currency)
