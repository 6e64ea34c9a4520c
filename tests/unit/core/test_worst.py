"""What the core does is linear in what it is given: no order that the contract lets through holds the loop."""

from collections.abc import Callable

import pytest

from schemas.state import decode_order
from tests.bench.worst import STORIES, Story, walk
from worker.core.order import REASONS_MAX, assess

STEP_MAX_S = 1.0
"""Twenty times what a step may take, for busy machines. A quadratic one takes minutes."""


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_no_step_of_the_core_takes_long(story: Callable[[], Story]) -> None:
    """Decoding, reducing, assessing, rendering and showing the worst orders, each in CPU time."""
    steps, value = walk(story, record_max_bytes=400_000, events_max=600)
    assert {name: took_s for name, took_s in steps.longest_s.items() if took_s > STEP_MAX_S} == {}
    found = assess(decode_order(value).facts, "A1")
    assert len(found.reasons) <= REASONS_MAX
    assert sum(map(len, found.reasons)) < 100 * 1_000
