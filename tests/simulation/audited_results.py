"""What other systems are told, held against what is committed in the same transaction: true, once, without a gap."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from schemas.facts import Facts
from schemas.results import OrderChanged
from schemas.state import OrderRecord
from tests.simulation.trace import Trace
from worker.core.order import Assessment, assess, shown_of
from worker.core.status import ready_status
from worker.model.order import reference_of
from worker.ports import Result

_decode = msgspec.json.Decoder(OrderChanged).decode


class ToldPartition:
    """What was told of the orders of one partition; their newest results."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._last: dict[str, OrderChanged] = {}
        self._facts: set[str] = set()
        """Ids of what providers said."""

    def committed(
        self,
        before: Mapping[str, OrderRecord],
        orders: Mapping[str, OrderRecord],
        facts_at: Mapping[tuple[str, int], Facts],
        results: Sequence[Result],
    ) -> None:
        """A transaction is there for all to see: the records that it replaces, its own, its results."""
        for each in results:
            kind: dict[str, Any] = msgspec.json.decode(each.value)
            if kind["type"] != "cartsync.order_changed":
                if kind["id"] in self._facts:
                    self._trace.violate(f"{kind['id']} was told twice")
                self._facts.add(kind["id"])  # what operators do is judged by itself, too
                continue
            result = _decode(each.value)
            subject = result.subject
            if each.key != subject.encode() or subject not in orders:
                self._trace.violate(f"told of {subject} under the key {each.key!r}, without its record")
            self._check_row(result)
            record, revision = orders[subject], result.data.revision
            provider = record.facts.provider
            if provider is None or provider.cancelled is None:  # what reading has found changes the facts of a revision
                self._check_truth(result, facts_at.get((subject, revision)))
            self._last[subject] = result
        for subject, record in orders.items():
            self._check_record(subject, record)
            was = before.get(subject)
            if (
                was is not None
                and was.revision == record.revision
                and _status(subject, was) != _status(subject, record)
            ):
                self._check_told(subject, record)

    def _check_row(self, result: OrderChanged) -> None:
        """Each counts one up from the former, and says something else."""
        last = self._last.get(result.subject)
        if int(result.sequence) != (1 if last is None else int(last.sequence) + 1):
            self._trace.violate(f"{result.id} was told after {last and last.id}")
        if last is not None and _news(last) == _news(result):
            self._trace.violate(f"{result.id} says again what {last.id} has said")

    def _check_truth(self, result: OrderChanged, facts: Facts | None) -> None:
        data = result.data
        if facts is None:
            self._trace.violate(f"{result.id} tells of a revision that never was")
            return
        assessment = assess(facts, reference_of(result.subject))
        shown = shown_of(assessment.order)
        amounts = (None, None, None) if shown is None else (shown.currency, shown.shipped_minor, shown.unshipped_minor)
        if (data.currency, data.shipped_minor, data.unshipped_minor) != amounts:
            self._trace.violate(f"{result.id} tells {data}, its facts say {amounts}")
        if data.status not in _possible(assessment, is_settled=data.acked == data.revision):
            self._trace.violate(f"{result.id} tells {data}, its facts say {assessment.state}")

    def _check_record(self, subject: str, record: OrderRecord) -> None:
        """What was told last is what the record says was told."""
        last, told = self._last.get(subject), record.told
        said = None if last is None else (last.data.status, last.data.acked, int(last.sequence))
        if said != (None if told is None else (told.status, told.acked, told.count)):
            self._trace.violate(f"{subject} says that {told} was told, and {last and last.id} was")

    def _check_told(self, subject: str, record: OrderRecord) -> None:
        """Of an order whose status has changed in this transaction, and not by an event."""
        last, held_as = self._last.get(subject), _status(subject, record)
        if last is None or (last.data.status, last.data.acked) != (held_as, record.acked):
            self._trace.violate(f"{subject} is {held_as}, and {last and last.id} was told last")

    def check_end(self, records: Mapping[str, OrderRecord]) -> None:
        """Once nothing is owed, everybody was told so."""
        for subject, record in records.items():
            self._check_told(subject, record)
            if self._last[subject].data.status == "owed":
                self._trace.violate(f"nothing is owed, and {self._last[subject].id} was told last")


def _news(result: OrderChanged) -> tuple[Any, ...]:
    """What makes it worth telling."""
    data = result.data
    return data.status, data.acked, data.provider, None if data.status == "owed" else data.reason


def _possible(assessment: Assessment, *, is_settled: bool) -> tuple[str, ...]:
    if assessment.state == "ready":
        return ("settled",) if is_settled else ("owed", "parked")
    return ("inconsistent", "parked") if assessment.state == "inconsistent" else (assessment.state,)


def _status(subject: str, record: OrderRecord) -> str:
    """As far as the record alone says it."""
    assessment = assess(record.facts, reference_of(subject))
    return ready_status(record) if assessment.state == "ready" else assessment.state
