"""Breadth-first search through all states of the protocol: the first harm found has the shortest way to it."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.model.orders import HARMS
from tests.model.protocol import Protocol
from tests.model.rules import Rules, Setup
from tests.model.states import FAULT, FREE, OPTIONAL, State, Step


@dataclass(frozen=True)
class Result:
    """What a search has found."""

    states: int
    steps: int
    seconds: float
    is_complete: bool
    """Every state was seen; otherwise a harm, or a limit, ended the search."""
    harm: str
    """The first one; empty: none."""
    trace: tuple[str, ...]
    """How it comes about, a line per step."""
    seen: frozenset[str]
    """What has happened at all: the texts of all steps."""

    def __str__(self) -> str:
        """The result in a line, and the trace below."""
        how = "complete" if self.is_complete else "harm found" if self.harm else "cut off"
        head = f"{self.states} states, {self.steps} steps, {self.seconds:.1f} s, {how}"
        return "\n".join([head, self.harm, *self.trace] if self.harm else [f"{head}: no harm"])


def search(rules: Rules, setup: Setup, *, invariants: bool = True, seconds: float = 0.0, states_max: int = 0) -> Result:
    """Explore everything that `setup` allows under `rules`; 0 is no limit.

    `invariants`: a broken invariant ends the search too, not only what a shop would see (`HARMS`).
    """
    began = time.perf_counter()
    protocol = Protocol(rules, setup)
    seen: set[str] = set()

    def result(harm: str = "", trace: Iterable[str] = (), *, is_complete: bool = False) -> Result:
        spent = time.perf_counter() - began
        return Result(len(parents), count, spent, is_complete, harm, tuple(trace), frozenset(seen))

    first, _ = protocol.canonical(protocol.first())
    parents: dict[State, State | None] = {first: None}
    queue = deque([first])
    count = 0
    while queue:
        state = queue.popleft()
        steps = protocol.steps(state)
        harm = "" if any(step.kind == FREE for step in steps) else protocol.orders.quiet_harm(state)
        if harm and (invariants or harm in HARMS):
            return result(harm, _tell(protocol, parents, state, None))
        for step in steps:
            count += 1
            seen.add(step.text)
            if step.harm and (invariants or step.harm in HARMS):
                return result(step.harm, _tell(protocol, parents, state, step))
            after, _ = protocol.canonical(step.state)
            if after in parents:
                continue
            parents[after] = state
            queue.append(after)
            if harm := protocol.orders.harm(after):
                return result(harm, _tell(protocol, parents, after, None))
        over = seconds and time.perf_counter() - began > seconds
        if over or (states_max and len(parents) >= states_max):
            return result()
    return result(is_complete=True)


def _tell(protocol: Protocol, parents: dict[State, State | None], state: State, last: Step | None) -> Iterator[str]:
    """The way to `state`, and the step out of it that does harm, if one does.

    Canonical states forget which worker is which: the names follow them through.
    """
    path = [state]
    while (parent := parents[path[-1]]) is not None:
        path.append(parent)
    path.reverse()
    names = ["A", "B"]
    for number, (before, after) in enumerate(pairwise(path), 1):
        for step in protocol.steps(before):
            reached, swapped = protocol.canonical(step.state)
            if reached == after:
                yield _line(protocol, number, step, names)
                names = names[::-1] if swapped else names
                break
    if last is not None:
        yield _line(protocol, len(path), last, names)


def _line(protocol: Protocol, number: int, step: Step, names: list[str]) -> str:
    orders = protocol.setup.orders
    order = orders[step.order]
    who = names[step.slot] if step.slot >= 0 else ""
    said = step.text.format(w=who, e=f"{order}{step.event}", o=order)
    mark = {FREE: " ", OPTIONAL: "?", FAULT: "!"}[step.kind]
    state = step.state
    topic = " ".join(f"{orders[o]}{record.event}" for o, record in enumerate(state.log.records))
    provider = " ".join(f"{orders[o]}{event}" for o, (_, event) in enumerate(state.provider))
    return f"{number:3} {mark} {said:<78} | topic {topic} next {state.log.next} | provider {provider}"
