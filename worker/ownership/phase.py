"""The phases of one ownership of a partition, and which of them may follow which (as Kafka Streams' `Task.State`).

                    created
                       |
                       v
                 +-----------+
      +----------| RESTORING |
      |          +-----------+
      |                | everything before our barrier was read, and what was inherited is held
      |                v
      |          +-----------+   a gap in the input, or another topic    +-----------+
      |<---------|  SERVING  | ----------------------------------------> |  HALTED   |---+
      |          +-----------+ <---------------------------------------- +-----------+   |
      |                |            an operator moves the position             |         |
      | fenced,        |                                                       |         |
      | a failed       | the group revokes it, the worker stops,               |         |
      | commit,        v or the state cannot be read                           |         |
      | damage,  +-----------+                                                 |         |
      | a bug    | DRAINING  | <-----------------------------------------------+         |
      |          +-----------+                                                           |
      |                | drained, or too late for that                                   |
      v                v                                                                 |
    +--------------------+    the state cannot be read    +-----------+                  |
    |       CLOSED       | -----------------------------> |  DAMAGED  |                  |
    +--------------------+                                +-----------+                  |
      ^                                                                                  |
      +----------------------------------------------------------------------------------+

Whatever goes wrong closes an ownership: the partition is acquired again by another one, from its fence on. A DAMAGED
one is closed, too; it is shown, as halted, for as long as the partition is ours and somebody has to mend its state.
"""

from enum import Enum, auto

from schemas.views import Role
from worker.errors import InvariantError


class Phase(Enum):
    """Of one ownership."""

    RESTORING = auto()
    SERVING = auto()
    HALTED = auto()
    """Takes no events any more; what is owed is still sent."""
    DRAINING = auto()
    """Begins no attempt any more; waits for those in flight."""
    CLOSED = auto()
    DAMAGED = auto()

    @property
    def is_working(self) -> bool:
        """Whether attempts may begin, and operators may change orders."""
        return self in _WORKING

    @property
    def is_served(self) -> bool:
        """Whether the partition is served as far as it can be: what is halted waits for somebody to act."""
        return self in _SERVED

    @property
    def is_halted(self) -> bool:
        """Whether somebody has to act before events are taken again."""
        return self in _HALTED

    @property
    def shown_as(self) -> Role:
        """As the private port has it: what is over is about to go, or waits for somebody."""
        return _SHOWN_AS[self]


_SHOWN_AS: dict[Phase, Role] = {
    Phase.RESTORING: "restoring",
    Phase.SERVING: "serving",
    Phase.HALTED: "halted",
    Phase.DRAINING: "closing",
    Phase.CLOSED: "closing",
    Phase.DAMAGED: "halted",
}
# No sets: a tuple is searched by identity, while the hash of an `Enum` is a function in Python. Asked for every update.
_WORKING = (Phase.SERVING, Phase.HALTED)
_SERVED = (Phase.SERVING, Phase.HALTED, Phase.DAMAGED)
_HALTED = (Phase.HALTED, Phase.DAMAGED)

TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.RESTORING: frozenset({Phase.SERVING, Phase.CLOSED}),
    # For another reason it is halted once more.
    Phase.SERVING: frozenset({Phase.HALTED, Phase.DRAINING, Phase.CLOSED}),
    Phase.HALTED: frozenset({Phase.HALTED, Phase.SERVING, Phase.DRAINING, Phase.CLOSED}),
    Phase.DRAINING: frozenset({Phase.CLOSED}),
    Phase.CLOSED: frozenset({Phase.DAMAGED}),
    Phase.DAMAGED: frozenset(),
}


def follow(phase: Phase, following: Phase, partition: int) -> Phase:
    """The following phase. Raises `InvariantError` when it may not follow: a bug of ours."""
    if following not in TRANSITIONS[phase]:
        raise InvariantError(f"partition {partition} cannot go from {phase.name} to {following.name}")
    return following
