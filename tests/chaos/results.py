"""The results topic, read as other systems read it: each change once, in order, and the last one right.

A reader with `read_committed` must see of every order a sequence without a gap, each result something new, and each
thing that a provider has said once.
"""

from collections import Counter
from collections.abc import Mapping

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from tests.chaos.checks import shortened
from tests.chaos.cluster import ClusterQueries
from tests.chaos.merchants import Outcome
from worker.kafka.settings import KafkaSettings


class _Data(Struct):
    status: str = ""
    acked: int = 0
    revision: int = 0
    unsupported: bool = False
    shipped_minor: int | None = None
    unshipped_minor: int | None = None
    provider: Raw = Raw(b"")


class _Result(Struct):
    id: str
    type: str
    subject: str
    data: Raw
    sequence: str | UnsetType = UNSET


_read = msgspec.json.Decoder(_Result).decode
_read_data = msgspec.json.Decoder(_Data).decode


class Last(Struct, frozen=True):
    """The newest result of an order."""

    sequence: int
    status: str
    acked: int
    provider: int
    """A hash of what its provider has said so far."""
    is_acked: bool
    unsupported: bool
    carts: tuple[int | None, int | None]


class ResultsReader:
    """Takes the records of the topic, each partition in its order; the orders of `foreign` accounts may have gaps."""

    def __init__(self, foreign: frozenset[str] = frozenset()) -> None:
        self.count = 0
        self.violations: list[str] = []
        self.last: dict[str, Last] = {}
        """By subject."""
        self.facts: Counter[str] = Counter()
        """By subject, how often its provider has said something."""
        self._fact_ids: set[int] = set()
        self._partitions: dict[str, int] = {}
        self._foreign = foreign

    def take(self, partition: int, key: bytes | None, value: bytes) -> None:
        """The next record."""
        result = _read(value)
        subject = result.subject
        self.count += 1
        if key != subject.encode():
            self.violations.append(f"{result.id} stands under the key {key!r}")
        if self._partitions.setdefault(subject, partition) != partition:
            self.violations.append(f"{result.id} is in partition {partition}, others of its order are not")
        if result.type == "cartsync.order_changed":
            self._take_change(result)
        else:
            self._take_fact(result)

    def _take_fact(self, result: _Result) -> None:
        name = hash(result.id)
        if name in self._fact_ids:
            self.violations.append(f"{result.id} was written twice")
        self._fact_ids.add(name)
        self.facts[result.subject] += 1

    def _take_change(self, result: _Result) -> None:
        data = _read_data(result.data)
        last, subject = self.last.get(result.subject), result.subject
        found = Last(
            int(result.sequence or 0),
            data.status,
            data.acked,
            hash(bytes(data.provider)),
            data.acked == data.revision,
            data.unsupported,
            (data.shipped_minor, data.unshipped_minor),
        )
        before = 0 if last is None else last.sequence
        is_next = (
            found.sequence > before if subject.partition("/")[0] in self._foreign else found.sequence == before + 1
        )
        if not is_next:
            self.violations.append(f"{result.id} has sequence {found.sequence}, after {before}")
        if last is not None and _news(last) == _news(found):
            self.violations.append(f"{result.id} repeats the result before it")
        if last is not None and found.acked < last.acked:
            self.violations.append(f"{result.id} goes back from revision {last.acked} to {found.acked}")
        self.last[subject] = found

    def check_end(self, outcomes: Mapping[str, Outcome], taken: Mapping[str, list[str]]) -> list[str]:
        """What is wrong at the end. `taken`: by subject, the different callbacks that a receiver has certainly accepted."""
        wrong = shortened(self.violations)
        wrong += shortened(
            [f"{subject}: {what}" for subject, of in outcomes.items() if (what := self._wrong(subject, of))]
        )
        lost = [subject for subject, of in taken.items() if subject in outcomes and self.facts[subject] < len(of)]
        return wrong + shortened(
            [f"{subject}: {taken[subject]} were answered 200, {self.facts[subject]} results say so" for subject in lost]
        )

    def _wrong(self, subject: str, outcome: Outcome) -> str:
        last = self.last.get(subject)
        if last is None:
            return "there is no result"
        if last.status not in outcome.statuses or (last.status == "parked") != last.unsupported:
            return f"the last result says {last.status}, expected {' or '.join(outcome.statuses)}"
        if last.status == "settled" and not last.is_acked:
            return "the last result says settled, and that its newest revision is not acknowledged"
        if last.carts not in outcome.carts:
            return f"the last result has carts {last.carts}, expected {' or '.join(map(str, outcome.carts))}"
        return ""


def _news(result: Last) -> tuple[object, ...]:
    return result.status, result.acked, result.provider


async def read_results(
    queries: ClusterQueries, settings: KafkaSettings, partitions: int, foreign: frozenset[str]
) -> ResultsReader:
    """Everything that a consumer which sees committed records alone gets to see."""
    reader = ResultsReader(foreign)
    for partition in range(partitions):
        async for record in queries.stream(settings.results_topic, partition):
            reader.take(partition, record.key, record.value)
    return reader
