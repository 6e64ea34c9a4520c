"""Orders of a state topic go to another one with another number of partitions: what goes where. Pure.

| record | goes |
|---|---|
| `o:` an order | where the shop's partitioner puts its key among so many partitions |
| `m:next` | is made anew: the new input is read from its first event, under a higher `topic_epoch` |
| `m:owner` | nowhere: the new owner writes its own |
| `m:targets`, `a:` accounts, `j:` reports | to every partition, merged: each may have orders of any account |
| `j:` lists that are read | to the one partition that reads them |
| `c:` closed orders | to every partition that an order of theirs may come to: of an order only a digest is known |

Which those are: with a key's hash h, an order lay in h mod P and comes to h mod N, so both are the same modulo the
greatest common divisor of P and N. From 12 to 24 partitions every digest has two places, from 12 to 13 all of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import gcd
from zlib import crc32

from msgspec import MsgspecError, Struct
from msgspec.structs import replace

from schemas import state
from schemas.state import AccountRecord, Deployment, JobRecord, Migration, NextRecord, Target, TargetsRecord
from worker.core.placing import Placing
from worker.core.retention import CHUNK_BYTES
from worker.model.order import account_of

TOPIC_EPOCH_MAX = 511
_REPORT = "report"
"""The job that every partition has; each other one is done once for an account."""
_UID_BYTES = 8
_SEEN_MAX_BYTES = 100 * _UID_BYTES

Entries = list[tuple[bytes, bytes]]


class Layout(Struct, frozen=True):
    """How orders lie, and how they are to lie."""

    placing: Placing
    before: int
    """Partitions."""
    after: int

    def place(self, subject: str) -> int:
        """The new partition of an order."""
        return self.placing.partition(self.placing.key_of(subject), self.after)

    def misplaced(self, subject: str, partition: int, key_digest: int) -> str:
        """Why an order does not lie where the partitioner puts it; empty: it does. `key_digest`: CRC-32 of the key of
        its newest event; 0: not known.
        """
        key = self.placing.key_of(subject)
        place = self.placing.partition(key, self.before)
        if place != partition:
            return (
                f"{subject} lies in partition {partition}, and {self.placing.partitioner} puts the key of "
                f"{self.placing.event_key} into {place}"
            )
        if key_digest not in (0, crc32(key)):
            return f"the newest event of {subject} came under another key than its {self.placing.event_key}"
        return ""

    def sources(self, partition: int) -> Iterator[int]:
        """The old partitions whose orders may come to this new one."""
        common = gcd(self.before, self.after)
        return iter(range(partition % common, self.before, common))


class Part(Struct):
    """What an old partition holds besides its orders."""

    next: NextRecord | None = None
    """`None`: nobody ever took anything of its input."""
    targets: Mapping[str, Target] = {}
    jobs: Mapping[str, bytes] = {}
    """By key, as are the following."""
    accounts: Mapping[str, bytes] = {}
    closed: Mapping[str, bytes] = {}


def problems(parts: Mapping[int, Part]) -> Iterator[str]:
    """What stands in the way besides orders, each with what to do."""
    told: dict[str, tuple[int, Target]] = {}
    for number, part in parts.items():
        for account, target in part.targets.items():
            first, other = told.setdefault(account, (number, target))
            if target != other:
                yield (
                    f"account {account} tells {other} in partition {first}, and {target} in partition {number}: a "
                    "change of it is not complete. Start a worker with --accept-target until it serves all partitions"
                )
        for key, decode in _decoders(part):
            try:
                decode()
            except MsgspecError as error:
                yield f"partition {number}: the record with the key {key} cannot be read ({type(error).__name__})"
        yield from _under_way(number, part)


def _decoders(part: Part) -> Iterator[tuple[str, Callable[[], object]]]:
    for key, value in part.jobs.items():
        yield key, lambda value=value: state.decode_job(value)  # type: ignore[misc]
    for key, value in part.accounts.items():
        yield key, lambda value=value: state.decode_account(value)  # type: ignore[misc]


def _under_way(number: int, part: Part) -> Iterator[str]:
    """Pages of a report name the orders of one partition: they cannot be taken apart."""
    for key, value in part.jobs.items():
        account, job = _names(key)
        try:
            is_under_way = job == _REPORT and bool(state.decode_job(value).remote)
        except MsgspecError:
            continue  # said above
        if is_under_way:
            yield (
                f"partition {number}: a page of a report of account {account} is under way. Let workers run until "
                "/status shows no pages (one that is stuck needs you: `cartsync account report`)"
            )


def _names(key: str) -> tuple[str, str]:
    """Account and job."""
    account, _, job = key.removeprefix(state.JOB_PREFIX).rpartition(":")
    return account, job


def epoch_after(parts: Iterable[Part], configured: int) -> int:
    """The `topic_epoch` of the new state: above all that there were. Raises `ValueError` when there is none left."""
    epoch = 1 + max([configured, *(part.next.topic_epoch for part in parts if part.next is not None)])
    if epoch > TOPIC_EPOCH_MAX:
        raise ValueError(f"topic_epoch {epoch}: it may be {TOPIC_EPOCH_MAX} at most")
    return epoch


def is_clean(parts: Iterable[Part]) -> bool:
    """Whether every old owner has left in order; otherwise new ones hold what may be in flight."""
    return all(part.next is None or part.next.clean for part in parts)


def marked(part: Part, migration: Migration | None, version: str, deployment: Deployment) -> NextRecord:
    """The old partition's position, as it is from now on: `None`, as it was before the migration."""
    last = part.next or NextRecord(state.SCHEMA, 0, 0, True, version, None, deployment)
    return replace(last, migration=migration)


def begun(version: str, migration: Migration, deployment: Deployment, offset: int, *, clean: bool) -> NextRecord:
    """The position of a new partition. `migration`: while it is being filled it has this; its end has `None`."""
    return NextRecord(state.SCHEMA, offset, migration.topic_epoch, clean, version, None, deployment, migration)


# --- what each new partition gets besides its orders ------------------------------------------------------------------


def others(
    layout: Layout, parts: Mapping[int, Part], partition: int, job_partition: Callable[[str, int], int]
) -> Entries:
    """The records of a new partition besides orders and its position. `job_partition`: of an account, among so many."""
    found: Entries = []
    targets = {account: target for part in parts.values() for account, target in part.targets.items()}
    if targets:
        found.append((state.TARGETS_KEY, state.encode(TargetsRecord(state.SCHEMA, targets))))
    found += [(key.encode(), state.encode(record)) for key, record in _accounts(parts).items()]
    for key, record in _jobs(parts, layout.before, job_partition).items():
        account, job = _names(key)
        if job == _REPORT or job_partition(account, layout.after) == partition:
            found.append((key.encode(), state.encode(record)))
    return found + _closed([parts[number].closed for number in layout.sources(partition)])


def _accounts(parts: Mapping[int, Part]) -> dict[str, AccountRecord]:
    """Operators' events go to all partitions; where they have not come to all, an account stays paused."""
    merged: dict[str, AccountRecord] = {}
    for part in parts.values():
        for key, value in part.accounts.items():
            record = state.decode_account(value)
            before = merged.get(key)
            merged[key] = record if before is None else _both(before, record)
    return merged


def _both(one: AccountRecord, other: AccountRecord) -> AccountRecord:
    newer, older = sorted((one, other), key=_newness, reverse=True)
    known = _uids(newer.seen)
    seen = b"".join(uid for uid in _uids(older.seen) if uid not in known) + newer.seen
    return replace(newer, seen=seen[-_SEEN_MAX_BYTES:])


def _newness(record: AccountRecord) -> tuple[bool, int]:
    return record.paused is not None, record.operated[-1].at_ms if record.operated else 0


def _uids(seen: bytes) -> list[bytes]:
    return [seen[at : at + _UID_BYTES] for at in range(0, len(seen), _UID_BYTES)]


def _jobs(parts: Mapping[int, Part], partitions: int, job_partition: Callable[[str, int], int]) -> dict[str, JobRecord]:
    """A report's run counts as made once it was made everywhere: what it told of an order is in the order's record. A
    list counts as it was read where it is read.
    """
    merged: dict[str, JobRecord] = {}
    for number, part in parts.items():
        for key, value in part.jobs.items():
            account, job = _names(key)
            record = state.decode_job(value)
            if job != _REPORT:
                if number == job_partition(account, partitions):
                    merged[key] = record
                continue
            before = merged.setdefault(key, record)
            done_ms, asked_ms = min(before.done_ms, record.done_ms), max(before.asked_ms, record.asked_ms)
            merged[key] = replace(before, done_ms=done_ms, asked_ms=asked_ms)
    return merged


def _closed(chunks: Sequence[Mapping[str, bytes]]) -> Entries:
    """All digests of a day, in chunks as large as they may be: their numbers begin at 0 in each partition."""
    days: dict[str, bytearray] = {}
    for each in chunks:
        for key in sorted(each):
            days.setdefault(key.partition(".")[0], bytearray()).extend(each[key])
    return [
        (f"{day}.{number}".encode(), bytes(digests[at : at + CHUNK_BYTES]))
        for day, digests in sorted(days.items())
        for number, at in enumerate(range(0, len(digests), CHUNK_BYTES))
    ]


# --- how an order goes ------------------------------------------------------------------------------------------------


class Counts(Struct):
    """Of the orders that are copied."""

    orders: int = 0
    owed: int = 0
    """Orders with a change that the provider has not acknowledged."""
    in_doubt: int = 0
    """Orders of which a request may still land."""
    places: dict[int, int] = {}
    """Orders by new partition."""
    accounts: dict[str, int] = {}

    def add(self, layout: Layout, subject: str, partition: int, value: bytes) -> tuple[int, str]:
        """Counts an order; its new partition, and what is wrong with it (empty: nothing)."""
        try:
            record = state.decode_whole(value)
        except MsgspecError as error:
            return 0, f"the record of {subject} in partition {partition} cannot be read ({type(error).__name__})"
        place = layout.place(subject)
        self.orders += 1
        self.owed += record.revision > record.acked
        self.in_doubt += record.may_land_late
        self.places[place] = self.places.get(place, 0) + 1
        account = account_of(subject)
        self.accounts[account] = self.accounts.get(account, 0) + 1
        return place, layout.misplaced(subject, partition, record.key_digest)
