"""`python -m tests.simulation SEED`: the whole story of one run, with the log lines of its workers; with `--all` after
it, of one with all providers.

`python -m tests.simulation --mutations [NAME …]`: which seed shows each mutation soonest, for `test_mutations.SEEDS`.
"""

import sys
import time
from collections.abc import Mapping, Sequence

from tests.simulation import broken_money
from tests.simulation.breaks import broken
from tests.simulation.market import ALL, SEQURA
from tests.simulation.money import RULES
from tests.simulation.mutations import MUTATIONS, has_operators, providers_of
from tests.simulation.simulation import simulate
from tests.simulation.trace import ViolationError

SEARCHED = 60
"""Seeds that are tried for each mutation."""
ENOUGH_S = 0.04
"""A seed that shows it as soon is good enough."""


def tell(seed: int, providers: Mapping[str, str]) -> int:
    """Prints one run; 1 when it broke an invariant."""
    try:
        sys.stdout.write(f"{simulate(seed, providers=providers, tell=sys.stdout.write)}\n")
    except ViolationError as error:
        sys.stdout.write(str(error).partition("\n")[0] + "\n")
        return 1
    return 0


def search(names: Sequence[str]) -> int:
    """Prints the table of seeds, for a break of `money.RULES` by the rule that catches it; 1 when a mutation was never
    noticed.
    """
    missed = 0
    for name in names:
        found: dict[str, tuple[float, int]] = {}
        for seed in range(SEARCHED):
            began = time.process_time()
            try:
                with broken(MUTATIONS[name]):
                    simulate(seed, providers=providers_of(name), operators=has_operators(name))
            except ViolationError as error:
                took = (time.process_time() - began, seed)
                rule = rule_of(error) if name in broken_money.breaks else ""
                found[rule] = min(took, found.get(rule, took))
                if took[0] < ENOUGH_S:
                    break
        missed += not found
        for rule, (_, seed) in found.items() or [("", (0.0, -1))]:
            sys.stdout.write(f'    "{name}": {(rule, seed) if rule else seed},\n')
        sys.stdout.flush()
    return int(missed > 0)


def rule_of(error: ViolationError) -> str:
    """The one of `money.RULES` that it names; empty: none."""
    return next((rule for rule in RULES if f" s: {rule}: " in str(error)), "")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--mutations"]:
        sys.exit(search(sys.argv[2:] or list(MUTATIONS)))
    sys.exit(tell(int(sys.argv[1]), ALL if "--all" in sys.argv[2:] else SEQURA))
