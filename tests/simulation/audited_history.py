"""The histories of orders, held against what is committed in the same transaction: each entry once, without a gap."""

from collections import Counter
from collections.abc import Mapping, Sequence

from schemas import history
from schemas.history import ENTRY_MAX_BYTES, HistoryEntry
from schemas.state import OrderRecord
from tests.simulation.trace import Trace

_ACKNOWLEDGES = {"applied", "not_needed", "adopt"}


class AuditedHistories:
    """Of the orders of one partition."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._expected: Counter[tuple[str, int]] = Counter()
        """(subject, offset) of the events that the transaction at hand takes."""

    def takes(self, subject: str, offset: int) -> None:
        """An event of the input changes the order, or an operator did something about it."""
        self._expected[subject, offset] += 1

    def committed(
        self,
        before: Mapping[str, OrderRecord],
        orders: Mapping[str, OrderRecord],
        written: Sequence[tuple[bytes, bytes | None]],
    ) -> None:
        """A transaction is there for all to see: the records that it replaces, its own, what it adds to histories."""
        expected, self._expected = self._expected, Counter()
        entries = [self._entry(key, value) for key, value in written]
        told: dict[str, list[HistoryEntry]] = {}
        for subject, entry in entries:
            told.setdefault(subject, []).append(entry)
        taken = Counter((subject, each.offset) for subject, each in entries if each.offset is not None)
        if taken != expected:
            self._trace.violate(f"histories tell of {taken - expected}, and not of {expected - taken}")
        for subject in told.keys() - orders.keys():
            self._trace.violate(f"the history of {subject} grew without its record")
        for subject, record in orders.items():
            was = before.get(subject) or OrderRecord()
            numbers = [each.n for each in told.get(subject, [])]
            if numbers != list(range(was.entries + 1, record.entries + 1)):
                self._trace.violate(
                    f"{subject} counts {was.entries} to {record.entries} entries, written are {numbers}"
                )
            self._check_told(subject, was, record, told.get(subject, []))

    def _entry(self, key: bytes, value: bytes | None) -> tuple[str, HistoryEntry]:
        place, entry = history.place_of(key), None if value is None else history.decode(value)
        assert place is not None, key
        assert value is not None, key  # nobody is forgotten here
        assert entry is not None, value
        if len(value) > ENTRY_MAX_BYTES:
            self._trace.violate(f"entry {entry.n} of {place[1]} has {len(value)} bytes")
        if place[0] != entry.n % history.KEPT:
            self._trace.violate(f"entry {entry.n} was written under {key!r}")
        return place[1], entry

    def _check_told(self, subject: str, was: OrderRecord, record: OrderRecord, told: list[HistoryEntry]) -> None:
        """What has changed about the order, and that no event says."""
        is_by_event = any(each.kind == "event" for each in told)  # made at the provider, or nothing that is told
        if record.acked > was.acked and not (is_by_event or any(each.what in _ACKNOWLEDGES for each in told)):
            self._trace.violate(f"{subject} is acknowledged up to {record.acked}, its history has {told}")
        is_held = any(each.kind in ("attempt", "report") or each.what == "held" for each in told)
        if record.may_land_late and not was.may_land_late and not is_held:
            self._trace.violate(f"{subject} is held from now on, its history has {told}")
        if (
            record.park is not None
            and (was.park is None or was.park.digest != record.park.digest)
            and not any(each.status == "parked" or (each.kind == "attempt" and each.reason) for each in told)
        ):
            self._trace.violate(f"{subject} was parked, its history has {told}")
