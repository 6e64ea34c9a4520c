"""Breaks of the protocol, each a line or two, put into the production code for the length of a run.

A break wraps or replaces one function of the code under test, by name: when that name is gone, the test says so. They
are what the simulation is measured by: one that no run notices is a rule that nothing holds.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Break:
    """What one function of the production code becomes; `make` gets the real one."""

    owner: Any
    name: str
    make: Callable[[Any], Any]


class Breaks(dict[str, tuple[Break, ...]]):
    """By the name of the mutation: usually one break, sometimes several together."""

    def __call__(self, owner: Any, name: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
        """Adds a break, under the name of the function that makes it."""

        def add(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
            self[make.__name__] = (*self.get(make.__name__, ()), Break(owner, name, make))
            return make

        return add


@contextmanager
def broken(breaks: Sequence[Break]) -> Iterator[None]:
    """The production code with these breaks in it, until the end of the `with` block."""
    originals = [(each, vars(each.owner)[each.name]) for each in breaks]
    try:
        for each, original in originals:
            setattr(each.owner, each.name, each.make(original))
        yield
    finally:
        for each, original in originals:
            setattr(each.owner, each.name, original)
