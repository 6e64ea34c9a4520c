"""Breadth-first search through all states of the protocol: the first harm found has the shortest way to it."""

import time
from collections import deque
from dataclasses import dataclass

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
    first, _ = protocol.canonical(protocol.first())
    parents: dict[State, State | None] = {first: None}
    queue = deque([first])
    count = 0
    while queue:
        state = queue.popleft()
        steps = protocol.steps(state)
        harm = "" if any(step.kind == FREE for step in steps) else protocol.orders.quiet_harm(state)
        if harm:
            return _found(protocol, parents, state, None, harm, count, began)
        for step in steps:
            count += 1
            if step.harm and (invariants or step.harm in HARMS):
                return _found(protocol, parents, state, step, step.harm, count, began)
            after, _ = protocol.canonical(step.state)
            if after in parents:
                continue
            parents[after] = state
            queue.append(after)
            if harm := protocol.orders.harm(after):
                return _found(protocol, parents, after, None, harm, count, began)
        over = seconds and time.perf_counter() - began > seconds
        if over or (states_max and len(parents) >= states_max):
            return Result(len(parents), count, time.perf_counter() - began, False, "", ())
    return Result(len(parents), count, time.perf_counter() - began, True, "", ())


def _found(
    protocol: Protocol,
    parents: dict[State, State | None],
    state: State,
    last: Step | None,
    harm: str,
    count: int,
    began: float,
) -> Result:
    path = [state]
    while (parent := parents[path[-1]]) is not None:
        path.append(parent)
    path.reverse()
    return Result(len(parents), count, time.perf_counter() - began, False, harm, tuple(_tell(protocol, path, last)))


def _tell(protocol: Protocol, path: list[State], last: Step | None) -> list[str]:
    """The way along `path` in words. Canonical states forget who is who: names follow the workers through them."""
    names = ["A", "B"]
    lines: list[str] = []
    for before, after in zip(path, [*path[1:], None], strict=True):
        step, swapped = last, False
        if after is not None:
            step, swapped = next(
                (step, swapped)
                for step in protocol.steps(before)
                for state, swapped in [protocol.canonical(step.state)]
                if state == after
            )
        if step is None:
            break
        lines.append(_line(protocol, len(lines) + 1, step, names))
        if swapped:
            names.reverse()
    return lines


def _line(protocol: Protocol, number: int, step: Step, names: list[str]) -> str:
    orders = protocol.setup.orders
    order = orders[step.order]
    who = next((name for name, slot in zip(names, (0, 1), strict=True) if slot == step.slot), "")
    said = step.text.format(w=who, e=f"{order}{step.event}", o=order)
    mark = {FREE: " ", OPTIONAL: "?", FAULT: "!"}[step.kind]
    state = step.state
    topic = " ".join(f"{orders[o]}{record.event}" for o, record in enumerate(state.log.records))
    provider = " ".join(f"{orders[o]}{event}" for o, (_, event) in enumerate(state.provider))
    return f"{number:3} {mark} {said:<78} | topic {topic} next {state.log.next} | provider {provider}"
