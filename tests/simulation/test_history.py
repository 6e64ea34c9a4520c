"""Histories in the simulation: nothing follows from them. What is in them is judged with every transaction."""

import pytest

from tests.simulation.faults import Plan
from tests.simulation.market import ALL, SEQURA
from tests.simulation.simulation import simulate


def _without(plan: Plan) -> None:
    plan.keeps_history = False


@pytest.mark.parametrize(("seed", "operators"), [(3, False), (5, True)])
def test_history_influences_nothing(seed: int, operators: bool) -> None:
    """With and without it a run is the same to the last line: every request, transaction and fault."""
    providers = SEQURA if operators else ALL
    kept = simulate(seed, events=200, providers=providers, operators=operators)
    assert kept == simulate(seed, events=200, providers=providers, operators=operators, adjust=_without)
