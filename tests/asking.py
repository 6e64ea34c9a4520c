"""Asks an adapter as the publisher does, one question at a time."""

from typing import Any

import msgspec

from worker.model.account import Account
from worker.model.exchange import Exchange, HttpRequest, HttpResponse, Outcome
from worker.model.order import Order
from worker.model.provider import Provider, Question, Update


def question(provider: Provider[Any], order: Order, account: Account, **members: Any) -> Question:
    """What an adapter is asked about an order, with its usual answers unless said otherwise."""
    return Question(order.reference, account, provider.render(order, account), **members)


def totals_told(update: Update) -> tuple[int, int]:
    """Shipped and unshipped, as an update tells them to seQura."""
    told: Any = msgspec.json.decode(update.body)
    return told["shipped_cart"]["order_total_with_tax"], told["unshipped_cart"]["order_total_with_tax"]


def request_of(provider: Provider[Any], order: Order, account: Account, **members: Any) -> HttpRequest:
    """The request that it wants sent first."""
    step = provider.next_step(question(provider, order, account, **members))
    assert isinstance(step, Exchange)
    return step.request


def outcome_of(provider: Provider[Any], asked: Question, response: HttpResponse) -> Outcome:
    """What it makes of the answer to its first request."""
    step = provider.next_step(asked)
    assert isinstance(step, Exchange)
    return provider.read_response(asked, step, response).outcome
