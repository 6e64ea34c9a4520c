"""The core's arithmetic against a second model that was written from the text alone."""

from hypothesis import given, settings

from schemas.carts import Item
from schemas.events import OrderEvent
from tests.unit.core.histories import histories
from tests.unit.core.naive_carts import NaiveItem, naive_order
from tests.unit.core.shop import REFERENCE, fold
from worker.core.order import assess


def plain(items: list[Item]) -> list[NaiveItem]:
    """Items as the model writes them, in an order of their own."""
    return sorted(((item.type, item.reference, item.name, item.quantity, item.total_minor) for item in items), key=repr)


@settings(max_examples=800)
@given(histories(max_size=12))
def test_core_agrees_with_naive_model(log: list[OrderEvent]) -> None:
    """Standing, both carts, trackings and the cancellation reason are those of the naive model."""
    found, naive = assess(fold(log), REFERENCE), naive_order(log)
    assert found.state == naive.state, found.reasons
    if naive.shipped is None or naive.unshipped is None:
        assert found.order is None
        return
    order = found.order
    assert order is not None, found.reasons
    assert plain(order.shipped.items) == sorted(naive.shipped, key=repr)
    assert plain(order.unshipped.items) == sorted(naive.unshipped, key=repr)
    assert [(tracking.reference, tracking.delivered_at or None) for tracking in order.trackings] == naive.trackings
    given = None if order.cancellation is None else (order.cancellation.given, order.cancellation.by_shopper)
    assert given == naive.cancellation


@settings(max_examples=200)
@given(histories(max_size=10, ties=True))
def test_core_agrees_with_naive_model_on_ties(log: list[OrderEvent]) -> None:
    """With equal sequence and time the later position wins, in both."""
    found, naive = assess(fold(log), REFERENCE), naive_order(log)
    assert found.state == naive.state, found.reasons
    if found.order is not None and naive.shipped is not None:
        assert plain(found.order.shipped.items) == sorted(naive.shipped, key=repr)
