"""What goes wrong between a sender and the sandbox: the kinds of faults, their chances, and who gets which.

A plan is written as `500=0.05,reset_applied=0.02,slow=0.1:0.3s`: kind, `=`, probability per request from 0 to
1, and for some kinds `:` and a time. Together they are at most 1: a request meets one fault or none.

| kind | what happens | time |
|---|---|---|
| `400` … `599` | that answer, nothing is applied | `429`, `503`: `Retry-After`, whole seconds (429: 1 s) |
| `500_applied` … `599_applied` | the update is applied, and that answer given all the same | |
| `5xx` | shorthand for 500, 502, 503 and 504 in equal shares | |
| `reset_lost`, `reset_applied` | connection reset, before or after the update is applied | |
| `timeout_lost`, `timeout_applied` | no answer | until the client gives up, but at most (30 s) |
| `slow` | applied at once, answered late | delay of the answer (1 s) |
| `late_applied` | no answer; applied late, also when the client is gone | delay of the application (10 s) |
"""

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from itertools import accumulate
from random import Random

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
}
_TIMED = frozenset(_DEFAULT_TIMES_S) | {"503"}
_RETRY_AFTER = frozenset({"429", "503"})
_NAMED = frozenset({"reset_lost", "reset_applied", "timeout_lost", "timeout_applied", "slow", "late_applied"})
_STATUS = re.compile(r"[45]\d\d|5\d\d_applied", re.ASCII)
_SHORTHAND = {"5xx": ("500", "502", "503", "504")}
_NUMBER = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)", re.ASCII)
_TIME = re.compile(_NUMBER.pattern + r"(ms|s|m)", re.ASCII)
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0}


class Fault(Struct, frozen=True):
    """One fault, as it befalls one request."""

    kind: str
    time_s: float | None = None
    """Seconds; what for depends on the kind (see the table above). None where the kind has none."""

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
    """Faults with the probability of each, per request."""

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
        total = sum(probability for _, probability in chances.values())
        if total > 1 + 1e-9:
            raise UsageError(f"faults {text!r}: the probabilities add up to {total:g}, more than 1")
        return cls(tuple(chances.values()))

    def __str__(self) -> str:
        entries = []
        for fault, probability in self.chances:
            kind, colon, time = str(fault).partition(":")
            entries.append(f"{kind}={probability:g}{colon}{time}")
        return ",".join(entries)


def parse_fault(text: str) -> Fault | None:
    """The fault of a text such as `500` or `timeout_lost:2s`; None for `ok`. Raises `UsageError`."""
    kind, colon, time = text.strip().partition(":")
    if kind == "ok" and not colon:
        return None
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
    """Deals faults to requests.

    What a request meets depends on the seed, the order, and how many requests of this order came before since
    the plan was set: not on how the requests of different orders interleave.
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
        self._bounds = list(accumulate(probability for _, probability in plan.chances))
        self._counts: dict[tuple[str, str], int] = {}

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
        if not self._bounds:
            return None
        nth = self._counts[key] = self._counts.get(key, 0) + 1
        point = Random(f"{self._seed} {nth} {merchant!r} {order_ref!r}").random()
        index = bisect_right(self._bounds, point)
        return self._plan.chances[index][0] if index < len(self._bounds) else None
