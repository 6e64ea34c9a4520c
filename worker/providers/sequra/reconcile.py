"""What seQura has paid out compared with what it was told is shipped and kept. Pure.

Source of the rule: docs.sequra.com, Disbursement API (2026-10): over all disbursements, what is paid for an order adds
up to its shipped cart. A disbursement counts deliveries up to its `to_date` and comes days later, so a change that is
not older than the newest `to_date` may come yet; and without the list, one that is younger than `payout_days`.

Unverified: whether `to_date` is the last day that counts, and in whose zone: the change has to be of a day before it.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from msgspec import Struct

from schemas.reconciliation import ProviderSide
from worker.core.amounts import amount_text
from worker.model.callbacks import Said
from worker.model.exchange import HttpRequest, HttpResponse, Outcome
from worker.model.jobs import Lister
from worker.model.reconcile import Case, Finding, Terms
from worker.providers.sequra import memory
from worker.providers.sequra.disbursements import Disbursement
from worker.providers.sequra.jobs import SequraDisbursements
from worker.providers.sequra.options import SequraAccount


class Paid(Struct, frozen=True):
    """What a ledger has of one order."""

    fetched_minor: int | None
    """`None`: the disbursements were not fetched."""
    due_before: date
    """What changed before that day has been paid out by now."""
    currency: str = ""
    """Of the disbursements; empty: they do not say."""


class SequraLedger:
    """`Ledger`: of each order what all disbursements pay for it."""

    def __init__(self, lister: Lister | None, today: date, payout_days: int) -> None:
        self.lister = lister
        self._minor: dict[str, int] = {}
        self._currency: dict[str, str] = {}
        self._due_before = today - timedelta(days=payout_days)

    def note_list(self, found: list[Disbursement]) -> None:
        for each in found:
            try:
                self._due_before = max(self._due_before, date.fromisoformat(str(each.to_date)))
            except ValueError:
                continue  # it does not say what it counts

    def add(self, item: Disbursement, lines: list[Said]) -> None:
        for line in lines:
            self._minor[line.reference] = self._minor.get(line.reference, 0) + int(line.data["amount_minor"])
            if isinstance(item.currency, str):
                self._currency[line.reference] = item.currency

    def take(self, reference: str) -> Paid:
        fetched_minor = None if self.lister is None else self._minor.pop(reference, 0)
        return Paid(fetched_minor, self._due_before, self._currency.pop(reference, ""))

    def left(self) -> Iterator[tuple[str, Finding]]:
        for reference, minor in self._minor.items():
            if minor:
                yield reference, _unknown(minor, self._currency.get(reference, ""))


def _unknown(minor: int, currency: str) -> Finding:
    return Finding(
        category="not_compared",
        verdict="unknown_here",
        text=f"seQura has paid out {amount_text(minor, currency).strip()} for an order that cartsync does not know.",
        action="If it is younger than cartsync here, find out why its events did not come.",
        held=ProviderSide(paid_minor=minor, currency=currency or None),
    )


class SequraReconciler:
    """`Reconciler`: by disbursements, as the orders' facts have them, or as they are fetched."""

    title = "seQura"

    def ledger(self, account: SequraAccount, terms: Terms) -> SequraLedger:
        is_fetched = terms.is_fetching or not account.disbursements
        today = datetime.fromtimestamp(terms.now_ms / 1000, UTC).date()
        return SequraLedger(SequraDisbursements() if is_fetched else None, today, terms.payout_days)

    def question(self, case: Case) -> Finding:
        raise AssertionError(f"seQura has a ledger, and no order is asked about: {case.asked.account.name}")

    def is_unknown(self, account: SequraAccount, outcome: Outcome) -> bool:  # noqa: ARG002 - it is never asked
        return False

    def probe(self, account: SequraAccount) -> HttpRequest:
        return SequraDisbursements().list_request(account)

    def probed(self, account: SequraAccount, response: HttpResponse, now_ms: int) -> Outcome:  # noqa: ARG002 - the same for all
        return SequraDisbursements().read_list(response, now_ms).outcome

    def compare(self, case: Case, seen: Paid) -> Finding:
        order, account = case.order, case.asked.account
        facts = order.facts.provider
        known_minor = 0 if facts is None else facts.paid_minor
        paid_minor = known_minor if seen.fetched_minor is None else seen.fetched_minor
        reported_minor = _reported_minor(case)
        side = ProviderSide(reported_minor=reported_minor, paid_minor=paid_minor)

        def found(**members: Any) -> Finding:
            return Finding(**{"held": side, **members})

        def amount(minor: int) -> str:
            return amount_text(abs(minor), order.currency)

        if paid_minor and seen.currency not in ("", order.currency):
            text = f"seQura pays it in {seen.currency}, the order is in {order.currency}."
            return found(
                category="differs",
                verdict="other_currency",
                text=text,
                action="Ask seQura, and check which account the order belongs to.",
                held=ProviderSide(reported_minor=reported_minor, paid_minor=paid_minor, currency=seen.currency),
            )
        if apart_minor := reported_minor - order.shipped.total_minor:
            return found(
                category="differs",
                verdict="reported_differs",
                text=f"seQura was told of {amount(reported_minor)} shipped and kept, the cart has "
                f"{amount(order.shipped.total_minor)}. The {'shopper' if apart_minor > 0 else 'shop'} is owed "
                f"{amount(apart_minor)}.",
                action="Change the order in seQura's back office: no delivery report takes back what another one told.",
                difference_minor=apart_minor,
                owed_to="shopper" if apart_minor > 0 else "shop",
            )
        if paid_minor == reported_minor:
            if seen.fetched_minor is not None and account.disbursements and known_minor != paid_minor:
                text = (
                    f"seQura has paid what it should, {amount(paid_minor)}; cartsync has read {amount(known_minor)} of "
                    f"it so far (cartsync account report {account.name} reads it now)."
                )
                return found(category="not_final", verdict="payouts_not_read", text=text)
            return found(category="agrees", verdict="agrees")
        minor = paid_minor - reported_minor
        changed_on = datetime.fromtimestamp(case.changed_ms / 1000, UTC).date()
        if changed_on >= seen.due_before:
            text = (
                f"seQura has paid out {amount(paid_minor)} of {amount(reported_minor)}; the order changed on "
                f"{changed_on}, which a disbursement has yet to count."
            )
            return found(category="not_final", verdict="payout_due", text=text, difference_minor=minor)
        if minor > 0:
            return found(
                category="differs",
                verdict="paid_more",
                text=f"seQura has paid out {amount(minor)} more than what was shipped and kept, "
                f"{amount(reported_minor)}. seQura is owed {amount(minor)}.",
                action=_ACTION.format(subject=case.subject),
                difference_minor=minor,
                owed_to="provider",
            )
        return found(
            category="differs",
            verdict="paid_less",
            text=f"seQura has paid out {amount(minor)} less than what was shipped and kept, {amount(reported_minor)}. "
            f"The shop is owed {amount(minor)}.",
            action=_ACTION.format(subject=case.subject),
            difference_minor=minor,
            owed_to="shop",
        )


_ACTION = (
    "Look at the order in seQura's back office. If it is not as the carts are: cartsync order resend {subject}. If it "
    "is, ask seQura to correct the disbursement."
)


def _reported_minor(case: Case) -> int:
    """What seQura was told is shipped and kept: what its reports and updates add up to where orders are told by report,
    else the shipped cart, which is told whole and was acknowledged.
    """
    account: SequraAccount = case.asked.account
    told = memory.read(case.asked.remote)
    if account.delivery == "update" or told is None or not (told.is_reported or told.by_update):
        return case.order.shipped.total_minor
    return sum(each.total_minor for each in told.shipped)
