"""Explore the ownership protocol: `python -m tests.model --faults 4 --without fence`. `--rules` lists the rules."""

import argparse
import sys
from collections.abc import Sequence

from tests.model.rules import RULES, Rules, Setup
from tests.model.search import search


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    made.add_argument("--faults", type=int, default=3, help="how many faults at most (%(default)s)")
    made.add_argument(
        "--events",
        default="a1 a2=0",
        help="the input partition, as 'a1 b1 a2=0' (a2 has the payload known at checkout), or a number: "
        "so many events of each of two orders (%(default)s)",
    )
    made.add_argument("--without", nargs="+", default=[], metavar="RULE", choices=sorted(RULES), help="rules to drop")
    made.add_argument("--seconds", type=float, default=0.0, help="stop after so long (0: when all is seen)")
    made.add_argument("--invariants", action="store_true", help="without rules: stop at a broken invariant too")
    made.add_argument("--conditional", action="store_true", help="the provider refuses older revisions")
    made.add_argument("--freeze", action="store_true", help="freezes between the lease check and the socket")
    made.add_argument("--expiry", action="store_true", help="settled orders may be removed")
    made.add_argument("--operator", action="store_true", help="orders may be sent again by hand")
    made.add_argument("--warm", action="store_true", help="processes remember partitions that they have lost")
    made.add_argument("--rules", action="store_true", help="list the rules and stop")
    return made


def events_of(text: str) -> str:
    """The input that `--events` means. Of each order the second event brings the first payload back."""
    if not text.isdigit():
        return text
    numbers = range(1, int(text) + 1)
    return " ".join(f"{order}{n}" + ("=0" if n == 2 and order == "a" else "") for n in numbers for order in "ab")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 1 when there is harm, else 0."""
    given = parser().parse_args(arguments)
    if given.rules:
        for name, (demand, reference) in RULES.items():
            sys.stdout.write(f"{name:24} {demand} ({reference})\n")
        return 0
    setup = Setup(
        events_of(given.events),
        faults=given.faults,
        conditional_provider=given.conditional,
        freeze_in_send_gap=given.freeze,
        expiry=given.expiry,
        operator=given.operator,
        warm=given.warm,
    )
    result = search(
        Rules().without(*given.without),
        setup,
        invariants=given.invariants or not given.without,
        seconds=given.seconds,
    )
    sys.stdout.write(f"{result}\n")
    return 1 if result.harm else 0


if __name__ == "__main__":
    sys.exit(main())
