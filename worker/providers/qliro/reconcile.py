"""What an order that is settled here comes to at Qliro: units and money, with the adapter's own arithmetic. Pure.

| what differs, in this order | verdict |
|---|---|
| another currency, another order | `other_currency`, `other_order` |
| a transaction is not final | `transactions_pending`: nothing can be said yet |
| nothing: both amounts agree; or their sum, while goods are to be shipped: charges go whole with a capture | `agrees` |
| what is captured | `captured_more`, `captured_less`; `units_differ` when only the units do |
| what is reserved, by somebody else | `changed_at_provider` |
| what is reserved, which a payment method cannot lower before the end | `released_later` |
| what is reserved | `reserved_more`, `reserved_less` |
"""

from msgspec import Struct
from msgspec.structs import replace

from schemas.reconciliation import ProviderSide, Verdict
from worker.core.amounts import amount_text
from worker.model.exchange import AwaitResult, Exchange, HttpRequest, HttpResponse, Outcome, OutcomeKind
from worker.model.reconcile import PROBED, Case, Finding, Terms
from worker.providers.qliro import reserving
from worker.providers.qliro import wanted as w
from worker.providers.qliro.memory import Memory, recall
from worker.providers.qliro.options import QliroAccount
from worker.providers.qliro.order import QliroOrder, Units, worth
from worker.providers.qliro.plan import Plan, plan
from worker.providers.qliro.responses import read_order
from worker.providers.qliro.situation import LISTED_MAX, Situation
from worker.providers.qliro.steps import Qliro, not_believed, order_request
from worker.providers.qliro.wire import RESERVES

_qliro = Qliro()
AGREES = Finding(category="agrees", verdict="agrees")


class QliroReconciler:
    """`Reconciler`: each order by GetOrder."""

    title = "Qliro"

    def ledger(self, account: QliroAccount, terms: Terms) -> None:  # noqa: ARG002 - Qliro is asked order by order
        return None

    def question(self, case: Case) -> Exchange | Finding:
        step = _qliro.next_step(case.asked)
        if isinstance(step, Exchange):
            return step
        assert isinstance(step, AwaitResult)  # without an answer the adapter reads, or says why it cannot
        return Finding(category="not_compared", verdict="cannot_be_asked", text=f"{step.why}.")

    def is_unknown(self, account: QliroAccount, outcome: Outcome) -> bool:  # noqa: ARG002 - the same for all
        return outcome.kind is OutcomeKind.NOT_FOUND

    def probe(self, account: QliroAccount) -> HttpRequest:
        return order_request(account, PROBED)

    def probed(self, account: QliroAccount, response: HttpResponse, now_ms: int) -> Outcome:  # noqa: ARG002 - the same for all
        return read_order(response, now_ms).outcome

    def compare(self, case: Case, seen: QliroOrder) -> Finding:
        wanted, memory = w.decode(case.asked.update.body), recall(case.asked.remote)
        if memory.is_cancelled:
            seen = replace(seen, reservations=[])
        side = ProviderSide(
            order=str(seen.order_id),
            captured_minor=sum(one.left_minor for one in seen.captures),
            reserved_minor=worth(seen.left),
        )
        if seen.currency != wanted.currency:
            text = f"Qliro's order {seen.order_id} is in {seen.currency}, the order in {wanted.currency}."
            return _other("other_currency", text, case, replace(side, currency=seen.currency))
        if why := not_believed(wanted, memory, seen, case.asked.reference):
            return _other("other_order", f"{why}.", case, replace(side, reference=seen.merchant_reference))
        if seen.not_final:
            text = f"Qliro works on transaction {', '.join(map(str, seen.not_final))}."
            pending = replace(side, pending=seen.not_final)
            return Finding(category="not_final", verdict="transactions_pending", text=text, held=pending)
        at = Situation(wanted, seen, memory)
        return replace(_compare(case, at, plan(wanted, seen, memory, case.asked.account.indivisible)), held=side)


def _other(verdict: Verdict, text: str, case: Case, side: ProviderSide) -> Finding:
    action = f"Correct references.provider of {case.subject} (order.details_changed): nothing is sent to another order."
    return Finding(category="differs", verdict=verdict, text=text, action=action, held=side)


class _Apart(Struct):
    """Units that are not where they should be."""

    captured: Units
    """Captured, and not kept."""
    uncaptured: Units
    """Kept, and only reserved."""
    missing: Units
    """Kept or still to be shipped, and neither captured nor reserved; at the prices of their lines."""
    missing_kept: Units
    """Those of them that are kept."""
    reserved: Units
    """Reserved, and not to be shipped."""

    @property
    def is_captured(self) -> bool:
        """Whether units are captured that should not be, or the other way around."""
        return bool(self.captured or self.uncaptured or self.missing_kept)

    @property
    def is_reserved(self) -> bool:
        """Whether units are reserved that should not be, or the other way around."""
        return bool(self.reserved or self.missing)

    @property
    def captured_minor(self) -> int:
        """What is captured too much; below 0: too little."""
        return worth(self.captured) - worth(self.uncaptured) - worth(self.missing_kept)


def _apart(at: Situation) -> _Apart:
    missing, missing_kept = Units(), Units()
    for goods, kept, pending in () if reserving.costs_nothing(at) else at.match.missing:
        key = (goods.reference, "Product", goods.unit_minor)
        missing[key] += kept + pending
        missing_kept[key] += kept
    reserved = Units({key: count for key, count in at.left.items() if key[1] == "Product"})
    return _Apart(+at.too_much, +at.match.ship, +missing, +missing_kept, reserved - at.match.ship - at.match.stay)


def _compare(case: Case, at: Situation, found: Plan) -> Finding:
    captured_minor = sum(one.left_minor for one in at.there.captures) - at.wanted.shipped_minor
    reserved_minor = worth(at.left) - at.wanted.unshipped_minor
    both_minor = captured_minor + reserved_minor
    units = _apart(at)
    if units.is_captured:
        return _captured(case, at, found, units.captured_minor if at.stays else captured_minor, units)
    if not units.is_reserved and (captured_minor == reserved_minor == 0 or (at.stays and not both_minor)):
        return AGREES
    if not at.stays:
        if captured_minor:
            return _captured(case, at, found, captured_minor, units)
        return _reserved(case, at, found, reserved_minor, units)
    # Charges lie whole on one side, so only the sum is exact: it belongs where more, or less, of it lies.
    if units.is_reserved or (both_minor * captured_minor <= 0 and not _foreign(at.there, at.memory)):
        return _reserved(case, at, found, both_minor, units)
    return _captured(case, at, found, both_minor, units)


def _captured(case: Case, at: Situation, found: Plan, minor: int, units: _Apart) -> Finding:
    currency = at.wanted.currency
    amount = amount_text(abs(minor), currency)
    named = _named(units, currency)
    action = _action(case, at, found)
    if not minor:
        return _units_differ(named, action)
    if minor > 0:
        text = f"Qliro has {amount} more captured than what was shipped and kept{named}. The shopper is owed {amount}."
        return Finding(
            category="differs",
            verdict="captured_more",
            text=text,
            action=action,
            difference_minor=minor,
            owed_to="shopper",
        )
    text = f"Qliro has {amount} less captured than what was shipped and kept{named}. The shop is owed {amount}."
    return Finding(
        category="differs",
        verdict="captured_less",
        text=text,
        action=action,
        difference_minor=minor,
        owed_to="shop",
    )


def _units_differ(named: str, action: str) -> Finding:
    text = f"The amounts at Qliro are right, its units are not those of the carts{named}. Nobody is owed anything now."
    return Finding(category="differs", verdict="units_differ", text=text, action=action)


def _reserved(case: Case, at: Situation, found: Plan, minor: int, units: _Apart) -> Finding:
    currency, there = at.wanted.currency, at.there
    amount, named, action = amount_text(abs(minor), currency), _named(units, currency), _action(case, at, found)
    if not minor:
        return _units_differ(named, action)
    more = "more" if minor > 0 else "less"
    said = f"Qliro has {amount} {more} reserved than what is still to be shipped{named}."
    if minor > 0 and at.stays and there.captures and not there.is_own:
        text = (
            f"{said} This payment method cannot lower a reservation after a capture: the rest is released in the end."
        )
        return Finding(category="not_final", verdict="released_later", text=text, difference_minor=minor)
    verdict: Verdict = "reserved_more" if minor > 0 else "reserved_less"
    if at.changed_there:
        verdict = "changed_at_provider"
        said += " It was changed there by somebody else: an upsell, or a change in Qliro's back office."
    elif minor > 0:
        said += " The shopper has not paid that, but cannot spend it."
    else:
        said += " It cannot be captured when it is shipped."
    return Finding(category="differs", verdict=verdict, text=said, action=action, difference_minor=minor)


def _named(units: _Apart, currency: str) -> str:
    """The units, in brackets; of many the first."""
    told = [
        (units.captured, "captured and not kept"),
        (units.uncaptured, "kept and only reserved"),
        (units.missing, "neither captured nor reserved"),
        (units.reserved, "reserved and not to be shipped"),
    ]
    texts = [f"{what}: {_listed(each, currency)}" for each, what in told if each]
    return f" ({'; '.join(texts)})" if texts else ""


def _listed(units: Units, currency: str) -> str:
    texts = [f"{count} × {key[0]} at {amount_text(key[2], currency)}" for key, count in sorted(units.items())]
    more = [f"{len(texts) - LISTED_MAX} more"] if len(texts) > LISTED_MAX else []
    return ", ".join(texts[:LISTED_MAX] + more)


def _action(case: Case, at: Situation, found: Plan) -> str:
    foreign = _foreign(at.there, at.memory)
    if foreign or at.changed_there:
        which = f" (transaction {', '.join(map(str, foreign[:LISTED_MAX]))})" if foreign else ""
        return (
            f"It was done at Qliro itself{which}. If it is right, write it as an event with origin qliro "
            "(order.items_shipped, order.items_returned, order.refunded, order.cart_updated); if not, undo it in "
            "Qliro's back office."
        )
    if found.command is not None:
        again = f"cartsync order resend {case.subject}"
        return f"{again} (it sends {found.command.name}), or settle it in Qliro's back office."
    if found.cannot:
        return f"Settle it in Qliro's back office, for it cannot be sent: {'; '.join(found.cannot)}."
    return (
        "Settle it by amount in Qliro's back office: it is left of a charge or a discount that Qliro cannot divide, "
        "and no command tells it."
    )


def _foreign(there: QliroOrder, memory: Memory) -> list[int]:
    """Movements of money that are none of ours, nor known to be what the shop's facts come to; of amounts that is never
    known, since a later change of the order is agreed on whatever was refunded before.
    """
    return [
        one
        for one, status in there.statuses.items()
        if status == "Success"
        and there.kinds[one] not in RESERVES
        and not (one in memory.ours if one in there.amounts else memory.is_known(one))
    ]
