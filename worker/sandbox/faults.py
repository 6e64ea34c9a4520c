"""What goes wrong between a sender and a sandbox, and back: the kinds of faults, their chances, and who gets which.

A plan is written as `500=0.05,reset_applied=0.02,push_late=0.1:2s`: kind, `=`, probability from 0 to 1, and for some
kinds `:` and a time. A request meets one fault or none, so those of requests are together at most 1; so do a push, and
the result of a command whose provider works on it after it has answered.

| kind | what happens | time |
|---|---|---|
| `400` … `599` | that answer, nothing is applied | `429`, `503`: `Retry-After`, whole seconds (429: 1 s) |
| `500_applied` … `599_applied` | the update is applied, and that answer given all the same | |
| `5xx` | shorthand for 500, 502, 503 and 504 in equal shares | |
| `reset_lost`, `reset_applied` | connection reset, before or after the update is applied | |
| `timeout_lost`, `timeout_applied` | no answer | until the client gives up, but at most (30 s) |
| `slow` | applied at once, answered late | delay of the answer (1 s) |
| `late_applied` | no answer; applied late, also when the client is gone | delay of the application (10 s) |
| `push_late` | the push comes late: newer ones overtake it | how late (2 s) |
| `push_doubled` | the push comes twice | |
| `push_lost` | the push gets lost on its way; it comes again as the provider documents, if it does | |
| `result_late` | the provider takes longer over the command | how much longer (5 s) |
| `result_error` | the command comes to nothing after all | |
"""

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from random import Random
from typing import Literal

from msgspec import Struct

from worker.errors import UsageError

SILENCE_MAX_S = 30.0
"""How long an unanswered request is held at most, when the client does not give up before."""

TIME_MAX_S = 3600.0

_DEFAULT_TIMES_S = {
    "429": 1.0,
    "timeout_lost": SILENCE_MAX_S,
    "timeout_applied": SILENCE_MAX_S,
    "slow": 1.0,
    "late_applied": 10.0,
    "push_late": 2.0,
    "result_late": 5.0,
}
_TIMED = frozenset(_DEFAULT_TIMES_S) | {"503"}
_RETRY_AFTER = frozenset({"429", "503"})
_OF_REQUESTS = frozenset({"reset_lost", "reset_applied", "timeout_lost", "timeout_applied", "slow", "late_applied"})
_LATER = frozenset({"push_late", "push_doubled", "push_lost", "result_late", "result_error"})
_NAMED = _OF_REQUESTS | _LATER
_STATUS = re.compile(r"[45]\d\d|5\d\d_applied", re.ASCII)
_SHORTHAND = {"5xx": ("500", "502", "503", "504")}
_NUMBER = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)", re.ASCII)
_TIME = re.compile(_NUMBER.pattern + r"(ms|s|m)", re.ASCII)
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0}


Sort = Literal["request", "push", "result"]


class Fault(Struct, frozen=True):
    """One fault, as it befalls one request, push or result."""

    kind: str
    time_s: float | None = None
    """Seconds; what for depends on the kind (see the table above). None where the kind has none."""

    @property
    def sort(self) -> Sort:
        """What it befalls."""
        if self.kind not in _LATER:
            return "request"
        return "push" if self.kind.startswith("push_") else "result"

    @property
    def status(self) -> int | None:
        """The answer's status, or None when there is no answer or the usual one."""
        return int(self.kind[:3]) if self.kind[0].isdigit() else None

    @property
    def applied(self) -> bool:
        """Whether the update is applied before the fault shows."""
        return self.kind.endswith("_applied") or self.kind == "slow"

    def __str__(self) -> str:
        return self.kind if self.time_s is None else f"{self.kind}:{self.time_s:g}s"


class FaultPlan(Struct, frozen=True):
    """Faults with the probability of each, per request, push or result."""

    chances: tuple[tuple[Fault, float], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "FaultPlan":
        """The plan of a text; of empty text, the one without faults. Raises `UsageError` naming the entry."""
        chances: dict[str, tuple[Fault, float]] = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            for fault, probability in _parse_entry(entry):
                if fault.kind in chances:
                    raise UsageError(f"fault {entry!r}: {fault.kind} is given twice")
                chances[fault.kind] = (fault, probability)
        totals: dict[Sort, float] = {}
        for fault, probability in chances.values():
            totals[fault.sort] = totals.get(fault.sort, 0.0) + probability
        for sort, total in totals.items():
            if total > 1 + 1e-9:
                of = "" if sort == "request" else f" of a {sort}"
                raise UsageError(f"faults {text!r}: the probabilities{of} add up to {total:g}, more than 1")
        return cls(tuple(chances.values()))

    def __str__(self) -> str:
        entries = []
        for fault, probability in self.chances:
            kind, colon, time = str(fault).partition(":")
            entries.append(f"{kind}={probability:g}{colon}{time}")
        return ",".join(entries)


def parse_fault(text: str) -> Fault | None:
    """What a request meets, of a text such as `500` or `timeout_lost:2s`; None for `ok`. Raises `UsageError`."""
    kind, colon, time = text.strip().partition(":")
    if kind == "ok" and not colon:
        return None
    if kind in _LATER:
        raise UsageError(f"fault {text!r}: {kind} befalls no request")
    return _fault(kind, time if colon else None, text)


def _parse_entry(entry: str) -> Iterable[tuple[Fault, float]]:
    kind, equals, rest = entry.partition("=")
    number, colon, time = (part.strip() for part in rest.partition(":"))
    if not equals or not number:
        raise UsageError(f"fault {entry!r}: expected kind=probability, such as 500=0.05 or slow=0.1:300ms")
    if not _NUMBER.fullmatch(number) or float(number) > 1:
        raise UsageError(f"fault {entry!r}: the probability {number} is not a number from 0 to 1")
    kinds = _SHORTHAND.get(kind.strip(), (kind.strip(),))
    faults = [_fault(each, time if colon else None, entry) for each in kinds]
    return [(fault, float(number) / len(faults)) for fault in faults]


def _fault(kind: str, time: str | None, text: str) -> Fault:
    if kind not in _NAMED and not _STATUS.fullmatch(kind):
        known = ", ".join(sorted(_NAMED))
        raise UsageError(f"fault {text!r}: unknown kind {kind!r}; known are 400 to 599, 5xx, {known}")
    if time is None:
        return Fault(kind, _DEFAULT_TIMES_S.get(kind))
    if kind not in _TIMED:
        raise UsageError(f"fault {text!r}: {kind} takes no time")
    match = _TIME.fullmatch(time)
    if match is None:
        raise UsageError(f"fault {text!r}: {time!r} is not a time such as 300ms, 2s or 1m")
    time_s = float(match[1]) * _UNITS_S[match[2]]
    if time_s > TIME_MAX_S:
        raise UsageError(f"fault {text!r}: {time} is longer than {TIME_MAX_S:g}s")
    if kind in _RETRY_AFTER and not time_s.is_integer():
        raise UsageError(f"fault {text!r}: Retry-After counts whole seconds (RFC 9110 section 10.2.3)")
    return Fault(kind, time_s)


class Faults:
    """Deals faults to requests, pushes and results.

    What a request meets depends on the seed, the order, and how many requests of this order came before since
    the plan was set: not on how the requests of different orders interleave. So with pushes and results.
    """

    def __init__(self, plan: FaultPlan, seed: int) -> None:
        self.denied: set[str] = set()
        """Merchants whose credentials are answered 401, right or not."""
        self._seed = seed
        self._scripts: dict[tuple[str, str], deque[Fault | None]] = {}
        self.plan = plan

    @property
    def plan(self) -> FaultPlan:
        """The plan in force. Setting it begins the counts of requests anew."""
        return self._plan

    @plan.setter
    def plan(self, plan: FaultPlan) -> None:
        self._plan = plan
        self._chances: dict[Sort, tuple[list[Fault], list[float]]] = {}
        for fault, probability in plan.chances:
            faults, bounds = self._chances.setdefault(fault.sort, ([], []))
            faults.append(fault)
            bounds.append(probability + (bounds[-1] if bounds else 0.0))
        self._counts: dict[tuple[Sort, str, str], int] = {}

    def replace_plan(self, plan: FaultPlan) -> None:
        """Another plan, whose counts go on: otherwise the orders that met a fault first would meet it first again."""
        counts = self._counts
        self.plan = plan
        self._counts = counts

    def script(self, merchant: str, order_ref: str, *faults: str) -> None:
        """What the order's next requests meet, one each, before the plan applies again.

        A text is a kind with an optional time, `timeout_lost:50ms`, or `ok`. Raises `UsageError`.
        """
        parsed = [parse_fault(text) for text in faults]
        self._scripts.setdefault((merchant, order_ref), deque()).extend(parsed)

    def stop(self) -> None:
        """From now on no request meets a fault. What was received before keeps its fate, late ones too."""
        self.plan = FaultPlan()
        self._scripts.clear()
        self.denied.clear()

    def draw(self, merchant: str, order_ref: str) -> Fault | None:
        """What the order's next request meets; None when nothing goes wrong."""
        key = (merchant, order_ref)
        script = self._scripts.get(key) if self._scripts else None
        if script:
            fault = script.popleft()
            if not script:
                del self._scripts[key]
            return fault
        return self._deal("request", merchant, order_ref)

    def draw_later(self, sort: Sort, merchant: str, order_ref: str) -> Fault | None:
        """What the order's next push or result meets; None when nothing goes wrong."""
        return self._deal(sort, merchant, order_ref)

    def _deal(self, sort: Sort, merchant: str, order_ref: str) -> Fault | None:
        found = self._chances.get(sort)
        if found is None:
            return None
        faults, bounds = found
        key = (sort, merchant, order_ref)
        nth = self._counts[key] = self._counts.get(key, 0) + 1
        what = "" if sort == "request" else f"{sort} "
        point = Random(f"{what}{self._seed} {nth} {merchant!r} {order_ref!r}").random()
        index = bisect_right(bounds, point)
        return faults[index] if index < len(bounds) else None
