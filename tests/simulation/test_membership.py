"""Workers that the group knows again: after a crash they have their partitions back before anybody could notice."""

from tests.simulation.faults import Plan
from tests.simulation.market import ALL
from tests.simulation.simulation import simulate


def _named(plan: Plan) -> None:
    plan.has_names = True
    plan.weights["crash"] = 3.0


def test_orders_are_told_whoever_comes_back(seed: int) -> None:
    """The predecessor's requests may still land, and its fence is seconds old: the same must hold as for strangers."""
    simulate(seed, providers=ALL, operators=seed % 2 == 0, adjust=_named)
