"""What goes wrong in a run, and when: a list of faults that follows from the seed."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Literal

from msgspec import Struct

from worker.core.policy import DeliveryPolicy

FaultKind = Literal[
    "kill worker, nothing else wrong",
    "kill worker",
    "freeze worker, shorter than the lease",
    "freeze worker, longer than the lease",
    "freeze worker, longer than the hold",
    "cut worker off, silently",
    "cut worker off, refused",
    "remove worker",
    "add worker",
    "kill broker: leader of a state partition",
    "kill broker: group coordinator",
    "kill broker: transaction coordinator",
    "freeze broker",
    "kill receiver",
    "freeze receiver",
    "provider: errors",
    "provider: limits",
    "provider: outage",
    "provider: silence",
    "provider: slow",
]

FREEZE_MAX_S = 60.0
"""Longer freezes are for a run of their own."""
_FIRST_S = 6.0
"""The workers have got going by then."""
_BROKER_REST_S = 30.0
"""From one broker's fault to the next one's, so that there are two in sync: with one, nobody could commit at all."""
_ALONE_EVERY_S = 100.0
"""A kill with nothing else going on is a measurement; everything waits for it, so it is seldom."""
_LIKELIER: Mapping[FaultKind, float] = {"kill worker": 3.0}
"""How much likelier than the others."""


class Times(Struct, frozen=True):
    """Settings of the workers, in seconds. Much shorter than the defaults, so that more fits into a run."""

    session_s: float = 6.0
    heartbeat_s: float = 1.0
    attempt_deadline_s: float = 2.0
    lease_s: float = 8.0
    settle_s: float = 5.0

    @property
    def hold_s(self) -> float:
        """H: for how long a successor holds what was owed."""
        rules = DeliveryPolicy(attempt_deadline_s=self.attempt_deadline_s, lease_s=self.lease_s, settle_s=self.settle_s)
        return rules.takeover_hold_s

    @property
    def covered_freeze_s(self) -> float:
        """A worker that thaws sooner finds its orders still held by its successor. It is missed no sooner than its
        session lasts (less a heartbeat), and only then the successor's hold begins. 2 s are for the machine.
        """
        return self.session_s - self.heartbeat_s + self.hold_s - 2.0

    @property
    def freeze_max_s(self) -> float:
        """The longest freeze of an ordinary run."""
        return min(FREEZE_MAX_S, self.covered_freeze_s)


SHORT = Times()
PRODUCTION = Times(session_s=30.0, heartbeat_s=3.0, attempt_deadline_s=8.0, lease_s=20.0, settle_s=30.0)
"""The defaults of the product."""


class PlannedFault(Struct, frozen=True):
    """One fault: when it begins, and for how long it lasts. Seconds; its target is chosen when it begins."""

    at_s: float
    kind: FaultKind
    lasts_s: float


def lengths(times: Times) -> dict[FaultKind, tuple[float, float]]:
    """The shortest and the longest that each fault lasts, seconds; of a kill: until it is started again."""
    return {
        "kill worker": (0.0, 1.5 * times.session_s),
        "freeze worker, shorter than the lease": (0.3 * times.lease_s, 0.8 * times.lease_s),
        "freeze worker, longer than the lease": (1.1 * times.lease_s, times.freeze_max_s),
        "cut worker off, silently": (1.0, times.session_s + times.hold_s),
        "cut worker off, refused": (1.0, times.session_s + times.hold_s),
        "remove worker": (2.0, 15.0),
        "add worker": (10.0, 40.0),
        "kill broker: leader of a state partition": (3.0, 15.0),
        "kill broker: group coordinator": (3.0, 15.0),
        "kill broker: transaction coordinator": (3.0, 15.0),
        "freeze broker": (3.0, 12.0),
        "kill receiver": (0.5, 8.0),
        "freeze receiver": (1.0, 8.0),
        "provider: errors": (3.0, 10.0),
        "provider: limits": (3.0, 10.0),
        "provider: outage": (3.0, 10.0),
        "provider: silence": (2.0, 8.0),
        "provider: slow": (3.0, 10.0),
    }


def make_plan(
    seed: int, seconds: float, times: Times, gap_s: float, first: Sequence[FaultKind] = ()
) -> list[PlannedFault]:
    """The faults of a run that lasts so long, `gap_s` apart on average: a kill, then each kind once, then at random.

    `first`: the kinds that come first, for a run that has no time for all of them.
    """
    random = Random(f"plan {seed}")
    kinds = lengths(times)
    weights = [_LIKELIER.get(kind, 1.0) for kind in kinds]
    others = [kind for kind in kinds if kind not in first]
    random.shuffle(others)
    once = [*first, *others]
    faults: list[PlannedFault] = []
    broker_at_s = -_BROKER_REST_S
    at_s = alone_at_s = _FIRST_S
    while at_s < seconds:
        if at_s >= alone_at_s:
            faults.append(
                PlannedFault(at_s, "kill worker, nothing else wrong", random.uniform(0, 1.5 * times.session_s))
            )
            alone_at_s += _ALONE_EVERY_S
        may_be_broker = at_s - broker_at_s >= _BROKER_REST_S
        kind = next((kind for kind in once if may_be_broker or not is_broker(kind)), None)
        if kind is not None:
            once.remove(kind)
        else:
            kind = random.choices(list(kinds), weights)[0]
        if not is_broker(kind) or may_be_broker:
            broker_at_s = at_s if is_broker(kind) else broker_at_s
            faults.append(PlannedFault(at_s, kind, random.uniform(*kinds[kind])))
            at_s += random.uniform(0.3, 1.7) * gap_s
    return faults


def make_long_freezes(seed: int, seconds: float, times: Times) -> list[PlannedFault]:
    """Nothing but freezes that no hold covers, one after the other."""
    random = Random(f"freezes {seed}")
    faults: list[PlannedFault] = []
    at_s = _FIRST_S
    shortest_s = max(times.covered_freeze_s + 4.0, times.session_s + times.hold_s)
    while at_s + shortest_s < seconds:
        faults.append(
            PlannedFault(at_s, "freeze worker, longer than the hold", random.uniform(shortest_s, 1.5 * shortest_s))
        )
        at_s += random.uniform(0.4, 0.8) * shortest_s
    return faults


def is_alone(kind: FaultKind) -> bool:
    """Do the others wait for it, and it for them?"""
    return kind == "kill worker, nothing else wrong"


def is_kill(kind: FaultKind) -> bool:
    """Is a worker killed?"""
    return kind.startswith("kill worker")


def is_receiver(kind: FaultKind) -> bool:
    """Does it hit a receiver of callbacks?"""
    return "receiver" in kind


def is_broker(kind: FaultKind) -> bool:
    """Does it hit a broker?"""
    return "broker" in kind
