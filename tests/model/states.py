"""What a state of the model is made of. Everything is a tuple, so that states can be compared, sorted and hashed."""

from typing import NamedTuple, TypeVar

T = TypeVar("T")

OUT, FENCED, SERVING, LEFT = "out", "fenced", "serving", "left"
"""Phases of a worker. `LEFT` exists only where leaving does not cut the lease."""

OVER, RUNNING, BELIEVED = 0, 1, 2
"""A lease; the last exists only where something else than a commit extends it."""

IN_GAP, WAITED_FOR, GIVEN_UP, ANSWERED = 0, 1, 2, 3
"""A request: not written yet by a frozen process; under way; under way with nobody waiting for it; applied, with an
answer that its owner, fenced, cannot commit: until it notices, the attempt is in flight for it."""

NO_HOLD, HOLD_G, HOLD_H = 0, 1, 2

FREE, OPTIONAL, FAULT = 0, 1, 2


class Record(NamedTuple):
    """An order as the state topic has it."""

    event: int = 0
    """The number of its newest event, which stands for its facts; 0: what was confirmed at checkout."""
    revision: int = 0
    acked: int = 0
    told: int = 0
    """The payload that the provider was last known to hold (an event's number); -1: not known."""
    may_land_late: bool = False
    remote_unknown: bool = False
    parked: int = 0
    """The revision that is known to be parked."""
    refused: int = -1
    """The payload that is parked; -1: none."""


GONE = Record(told=-1)
"""After a tombstone: nothing is known."""


class Request(NamedTuple):
    """A request, from its last look at the lease until it is applied or lost."""

    order: int
    event: int
    revision: int
    epoch: int
    stage: int
    covered: bool
    """A lease lasts for as long as its owner waits for it."""


class Worker(NamedTuple):
    """A process. Out, it may still remember the partition (`records`)."""

    phase: str
    epoch: int = 0
    lease: int = OVER
    next: int = 0
    records: tuple[Record, ...] = ()
    holds: tuple[int, ...] = ()
    unread: tuple[bool, ...] = ()
    """Orders that others have written since it last read them."""
    decided: tuple[int, ...] = ()
    """Revisions that it has decided to acknowledge without a call, and not committed yet; 0: none."""
    staged: bool = False
    """Memory runs ahead of the log: only where it is applied before the commit."""
    survivor: bool = False
    """It has fetched batches as an earlier owner: only where they are not dropped."""


class Log(NamedTuple):
    """The state topic, and who may commit to it."""

    epoch: int
    next: int
    clean: bool
    records: tuple[Record, ...]
    expired: tuple[int, ...]
    """By order: the newest event at its last tombstone."""
    tombstones: tuple[bool, ...]
    """By order: its tombstone can still be read."""
    before: tuple[int, bool, tuple[Record, ...]] | None
    """As it was one commit ago: only where a restore may end early."""


class State(NamedTuple):
    """All there is. `provider` has (revision, event) by order."""

    log: Log
    workers: tuple[Worker, ...]
    requests: tuple[Request, ...]
    provider: tuple[tuple[int, int], ...]
    faults: int


class Step(NamedTuple):
    """Something that may happen. `text` has places for the worker `w` and the event `e`."""

    kind: int
    text: str
    slot: int
    order: int
    event: int
    state: State
    harm: str = ""


NOBODY = Worker(OUT)


def put(values: tuple[T, ...], place: int, value: T) -> tuple[T, ...]:
    """Return `values` with another one in a place."""
    return (*values[:place], value, *values[place + 1 :])


def acknowledged(record: Record) -> Record:
    """Return the record with its newest revision taken for told."""
    return record._replace(acked=record.revision, parked=0, refused=-1)


def given_up(requests: tuple[Request, ...], epoch: int) -> tuple[Request, ...]:
    """Return the requests when the owner of an epoch waits for none of its own any more."""
    return tuple(r._replace(stage=GIVEN_UP) if r.epoch == epoch and r.stage == WAITED_FOR else r for r in requests)
