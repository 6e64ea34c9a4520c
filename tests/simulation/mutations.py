"""Every mutation, by name."""

from collections.abc import Mapping

from tests.simulation import broken_money, broken_operating, broken_owning, broken_sending
from tests.simulation.market import ALL, SEQURA

MUTATIONS = broken_sending.breaks | broken_owning.breaks | broken_money.breaks | broken_operating.breaks


def providers_of(mutation: str) -> Mapping[str, str]:
    """Those of the runs that are to notice it."""
    return ALL if mutation in broken_money.breaks else SEQURA


def has_operators(mutation: str) -> bool:
    """Whether operators act by events in these runs."""
    return mutation in broken_operating.breaks
