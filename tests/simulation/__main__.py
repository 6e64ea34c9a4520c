"""`python -m tests.simulation SEED`: the whole story of one run, with the log lines of its workers; with `--all` after
it, of one with all providers.

`python -m tests.simulation --mutations [NAME …]`: which seed shows each mutation soonest, for `test_mutations.SEEDS`.
"""

import sys
import time
from collections.abc import Mapping, Sequence

from tests.simulation.breaks import broken
from tests.simulation.market import ALL, SEQURA
from tests.simulation.mutations import MUTATIONS, providers_of
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
    """Prints the table of seeds; 1 when a mutation was never noticed."""
    missed = 0
    for name in names:
        found: list[tuple[float, int]] = []
        for seed in range(SEARCHED):
            began = time.process_time()
            try:
                with broken(MUTATIONS[name]):
                    simulate(seed, providers=providers_of(name))
            except ViolationError:
                found.append((time.process_time() - began, seed))
                if found[-1][0] < ENOUGH_S:
                    break
        missed += not found
        sys.stdout.write(f'    "{name}": {min(found)[1] if found else None},\n')
        sys.stdout.flush()
    return int(missed > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--mutations"]:
        sys.exit(search(sys.argv[2:] or list(MUTATIONS)))
    sys.exit(tell(int(sys.argv[1]), ALL if "--all" in sys.argv[2:] else SEQURA))
