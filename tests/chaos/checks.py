"""Was anything lost, doubled, stale or left? What is read at the end, and what it comes to."""

import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median

import msgspec
from msgspec import Struct

from schemas import state
from tests.chaos.cluster import ClusterQueries
from tests.chaos.injector import InjectedFault
from tests.chaos.plan import Times, is_kill
from tests.chaos.processes import Ending
from tests.chaos.recorder import Relapse
from worker.app.process import EXIT_WATCHDOG
from worker.errors import LogError
from worker.kafka.settings import KafkaSettings

BORNE_CODES = frozenset({EXIT_WATCHDOG, LogError.exit_code})
"""With which a worker may end by itself, for an orchestrator to start it again."""
SHOWN_MAX = 5
_LANDING_S = 1.0
"""After a thaw: what was about to be written then is received."""

Place = tuple[int, int]
"""(partition, offset) in the event topic."""


class Refused(Struct, frozen=True):
    """A record that must be in the dead-letter topic."""

    value: bytes | None
    """`None`: not compared."""
    reason: str = ""
    """Empty: any."""


# --- the workers' logs ---


class Line(Struct):
    """A line of a worker's log, as far as it is of interest here."""

    event: str
    time: datetime
    level: str = "info"
    partition: int = -1
    clean: bool | None = None
    seconds: float = 0.0
    error: str = ""
    task: str = ""
    exception: str = ""


_WANTED = tuple(
    f'"event":"{name}"'.encode()
    for name in (
        *("partition_serving", "partition_released", "partition_lost", "partition_unusable", "partition_halted"),
        "partition_taken_by_another_owner",
        *(
            "worker_starting",
            "order_held",
            "order_parked",
            "task_failed",
            "slot_failed",
            "adapter_failed",
            "worker_start_failed",
            "worker_failed",
            "stuck",
        ),
    )
)
_read_line = msgspec.json.Decoder(Line).decode


class Log(Struct):
    """What one worker's process has logged."""

    name: str
    counts: dict[str, int]
    lines: list[Line]
    """Those of partitions and of failures."""
    other: list[str]
    """What is not a line of ours: a traceback, say."""


def read_log(file: Path) -> Log:
    """One pass; the lines of single orders are only counted."""
    counts: Counter[str] = Counter()
    lines: list[Line] = []
    other: list[str] = []
    with file.open("rb") as log:
        for raw in log:
            if not raw.startswith(b"{"):
                other.append(raw.decode(errors="replace").rstrip())
            elif raw.endswith(b"}\n") and _is_wanted(raw):
                line = _read_line(raw)
                counts[line.event] += 1
                if line.event not in ("order_held", "order_parked"):
                    lines.append(line)
    return Log(file.stem, counts, lines, other[:50])


def _is_wanted(raw: bytes) -> bool:
    return any(mark in raw for mark in _WANTED) or b'"level":"critical"' in raw or b'"exception"' in raw


# --- how long partitions went unserved after a kill ---


class Takeover(Struct, frozen=True):
    """A partition of a killed worker."""

    worker: str
    partition: int
    after_s: float
    """From the kill until it was served again."""
    alone: bool
    """Nothing else was going on meanwhile."""


def takeovers(injected: Sequence[InjectedFault], logs: Sequence[Log]) -> list[Takeover]:
    """How long the partitions of each killed worker went unserved; those that never came back are left out."""
    served = sorted(
        (line.time.timestamp(), line.partition)
        for log in logs
        for line in log.lines
        if line.event == "partition_serving"
    )
    by_name = {log.name: log for log in logs}
    found = []
    for fault in injected:
        if not is_kill(fault.kind):
            continue
        for partition in _served_at_the_end(by_name[fault.target]):
            again = next((at for at, which in served if which == partition and at > fault.began_at), None)
            if again is not None:
                alone = not any(
                    other is not fault and other.began_at < again and (other.ended_at or again) > fault.began_at
                    for other in injected
                    if not other.kind.startswith("provider")
                )
                found.append(Takeover(fault.target, partition, again - fault.began_at, alone))
    return found


def _served_at_the_end(log: Log) -> list[int]:
    serving: dict[int, bool] = {}
    for line in log.lines:
        if line.partition >= 0:
            serving[line.partition] = line.event == "partition_serving"
    return [partition for partition, is_served in serving.items() if is_served]


def spread(values: Sequence[float]) -> str:
    """The median and the greatest of some seconds."""
    return f"p50 {median(values):.1f} s, max {max(values):.1f} s (of {len(values)})" if values else "none"


# --- relapses ---


def is_freeze_gap(relapse: Relapse, injected: Sequence[InjectedFault], times: Times) -> bool:
    """Did it come from a worker right after a freeze that no hold covers? The gap that a blind provider leaves."""
    received = relapse.received_at.timestamp()
    return any(
        fault.kind.startswith("freeze worker")
        and fault.slot == relapse.slot
        and fault.ended_at - fault.began_at > times.attempt_deadline_s + times.settle_s
        and fault.ended_at - _LANDING_S <= received <= fault.ended_at + times.attempt_deadline_s + _LANDING_S
        for fault in injected
    )


# --- the topics ---


async def check_offsets(asking: ClusterQueries, settings: KafkaSettings, partitions: int, written: int) -> list[str]:
    """The last `m:next` of every partition is the end of its input, left in order; all that was written is there."""
    wrong = []
    ends = await asking.ends(settings.event_topic, partitions)
    if sum(ends) < written:  # the receivers write, too
        wrong.append(f"the event topic holds {sum(ends)} records, the shops wrote {written}: the run proves nothing")
    for partition, end in enumerate(ends):
        records = await asking.read(settings.state_topic, partition, tail=True)
        found = [record.value for record in records if record.key == state.NEXT_KEY]
        if not found:
            wrong.append(f"partition {partition}: no m:next at the end of {settings.state_topic}")
            continue
        last = state.decode_next(found[-1])
        if last.offset != end:
            wrong.append(f"partition {partition}: m:next is {last.offset}, the input ends at {end}")
        if not last.clean:
            wrong.append(f"partition {partition}: its last owner left in order, but m:next is not clean")
    return wrong


async def check_dead_letters(
    asking: ClusterQueries, settings: KafkaSettings, partitions: int, poisoned: Mapping[Place, Refused]
) -> list[str]:
    """The dead letters are the records that must be refused, each once, as it was written and for the right reason."""
    found: Counter[Place] = Counter()
    wrong = []
    for partition in range(partitions):
        for record in await asking.read(settings.dead_letter_topic, partition):
            said = dict(record.headers)
            place = int(said["x-dlq-partition"]), int(said["x-dlq-offset"])
            found[place] += 1
            if (wanted := poisoned.get(place)) is not None:
                wrong += [
                    f"dead letter of {_at(place)}: {what}" for what in mismatches_in_letter(wanted, record.value, said)
                ]
    wrong += [f"dead letter of {_at(place)}: {count} times" for place, count in found.items() if count > 1]
    wrong += [f"dead letter of {_at(place)}: the record is a good one" for place in found.keys() - poisoned.keys()]
    wrong += [f"no dead letter of {_at(place)}, which is poisoned" for place in poisoned.keys() - found.keys()]
    return shortened(wrong)


def mismatches_in_letter(wanted: Refused, value: bytes | None, said: Mapping[str, bytes]) -> Iterator[str]:
    """What a dead letter should have said or held, and does not; a truncated one holds the beginning."""
    reason = said["x-dlq-reason"].decode()
    if wanted.reason not in ("", reason):
        yield f"for {reason}, not for {wanted.reason}"
    if wanted.value is None or wanted.value == value:
        return
    if "x-dlq-truncated" not in said or not wanted.value.startswith(value or b""):
        yield "not the value that was written"


def _at(place: Place) -> str:
    return f"partition {place[0]} offset {place[1]}"


# --- the workers ---


def check_workers(logs: Sequence[Log], endings: Sequence[Ending], borne: frozenset[int] = BORNE_CODES) -> list[str]:
    """No worker failed in a way that it should not, whatever went on around it. `borne`: codes that it may end with by
    itself.
    """
    begun = {log.name for log in logs if log.counts or log.other}
    wrong = [
        f"{ending.process} ended {'late, and was killed' if ending.code == -9 else f'with code {ending.code}'}"
        for ending in endings
        if (ending.code != 0 if ending.wanted else ending.code not in borne)
        # One that is told to leave while the interpreter starts has done nothing yet, and cannot do even this.
        and not (ending.code == -signal.SIGTERM and ending.process not in begun)
    ]
    for log in logs:
        wrong += _failures(log)
    return shortened(wrong)


_FAILURES = ("task_failed", "slot_failed", "adapter_failed", "partition_unusable", "partition_halted")


def _failures(log: Log) -> Iterator[str]:
    for line in log.lines:
        if line.event in _FAILURES:
            words = (line.event, line.task, line.error, *line.exception.splitlines()[-1:])
            yield f"{log.name}, {line.time:%H:%M:%S}: {' '.join(filter(None, words))}"
    if log.other:
        yield f"{log.name} wrote what is no log line: {log.other[-1]}"


def remarks(logs: Sequence[Log], endings: Sequence[Ending]) -> list[str]:
    """What did no fault and should not be so: exceptions that nobody took, workers that gave up."""
    found: Counter[str] = Counter()
    for log in logs:
        for line in log.lines:
            if line.exception and line.event not in ("task_failed", "slot_failed"):
                found[f"{line.event.splitlines()[0]}: {line.exception.splitlines()[-1][:200]}"] += 1
    codes = {ending.process: ending.code for ending in endings if not ending.wanted}
    for log in logs:
        if log.name in codes:
            last = [line.error for line in log.lines if line.level == "critical"][-1:]
            found[f"a worker ended by itself, code {codes[log.name]}: {''.join(last)}"] += 1
    return [f"{count} × {text}" for text, count in found.most_common(2 * SHOWN_MAX)]


def shortened(wrong: list[str]) -> list[str]:
    """The first few, and how many more there are."""
    if len(wrong) <= SHOWN_MAX:
        return wrong
    return [*wrong[:SHOWN_MAX], f"… and {len(wrong) - SHOWN_MAX} more of this kind"]
