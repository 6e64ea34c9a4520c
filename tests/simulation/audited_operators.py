"""What operators do by events, held against what is committed: each once, in the transaction that says so."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from schemas import state
from schemas.events import OrderEvent
from schemas.operator_events import PauseData, ResumeData
from schemas.state import OrderRecord
from tests.simulation.trace import Trace
from worker.ports import Result, StateEntry


def is_paused(view: Mapping[str, bytes], account: str) -> bool:
    """Whether a process knows that an operator has paused the account."""
    value = view.get(f"{state.ACCOUNT_PREFIX}{account}")
    return value is not None and state.decode_account(value).paused is not None


class AuditedOperators:
    """Of one partition."""

    def __init__(self, trace: Trace) -> None:
        self.are_alone = False
        """Nobody asks workers without an event."""
        self._trace = trace
        self._seen: set[tuple[str, bytes]] = set()
        self._expected: list[tuple[str, str]] = []
        """(subject, event id) of those that the transaction at hand takes."""
        self._paused: dict[str, bool] = {}

    def takes(self, event: OrderEvent, *, is_known: bool) -> bool:
        """Whether it counts: the first time, unless nothing is known of its order."""
        subject, uid = event.subject, event.uid
        if (subject, uid) in self._seen:
            return False
        self._expected.append((subject, event.id))
        if isinstance(event.data, PauseData | ResumeData):
            self._paused[subject] = isinstance(event.data, PauseData)
        elif not is_known:
            return False
        self._seen.add((subject, uid))
        return True

    def committed(
        self,
        before: Mapping[str, OrderRecord],
        orders: Mapping[str, OrderRecord],
        entries: Sequence[StateEntry],
        results: Sequence[Result],
    ) -> None:
        """A transaction is there for all to see: what it replaces, its records of orders and others, its results."""
        bodies: list[dict[str, Any]] = [msgspec.json.decode(each.value) for each in results]
        told = [body for body in bodies if body["type"] == "cartsync.operated"]
        expected, self._expected = self._expected, []
        if [(body["subject"], body["data"]["event_id"]) for body in told] != expected:
            self._trace.violate(f"operators did {expected}, told was {told}")
        again = Counter(
            body["subject"]
            for body in told
            if body["data"]["done"] and body["data"]["command"] in ("release", "resend")
        )
        for subject, record in orders.items() if self.are_alone else ():
            was = before.get(subject)
            count = record.generation - (0 if was is None else was.generation)
            if count != again[subject]:
                self._trace.violate(f"{subject} was released or sent again {count} times, told was {told}")
        for entry in entries:
            if entry.key.startswith(state.ACCOUNT_PREFIX.encode()) and entry.value is not None:
                account = entry.key.decode().removeprefix(state.ACCOUNT_PREFIX)
                paused = state.decode_account(entry.value).paused is not None
                if paused != self._paused[account]:
                    self._trace.violate(f"{account} is paused: {paused}, the log says {self._paused[account]}")
