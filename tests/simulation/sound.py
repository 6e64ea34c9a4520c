"""Runs of the code as it is: each once in a process, whichever tests ask for it."""

from functools import cache

from tests.simulation.market import ALL, SEQURA
from tests.simulation.simulation import Run, simulate


@cache
def sound(seed: int, *, has_all: bool = False, operators: bool = False) -> Run:
    """Nothing is wrong with it. `has_all`: with all providers. `operators`: they act by events. Raises
    `ViolationError`.
    """
    return simulate(seed, providers=ALL if has_all else SEQURA, operators=operators)
