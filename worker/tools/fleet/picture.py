"""What `cartsync status` says, made of what the group, the state topic and the workers say. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec
from msgspec import Struct

from schemas import state
from schemas.commands import FleetStatus, GroupMember, PartitionStatus
from schemas.console import LetterRow, WorkerLine
from schemas.views import STATUS_RULES, PartitionView, StatusView
from worker.core.amounts import count_text
from worker.core.retention import DAY_MS
from worker.core.view import not_configured
from worker.kafka.group import Group
from worker.model.order import account_of
from worker.tools.columns import columns
from worker.tools.control import printable
from worker.web.console.amounts import age
from worker.web.console.overview import OLD_MS

_SHOWN = tuple(name for name, rules in STATUS_RULES.items() if rules.in_overview)
"""Statuses with a column of their own, as in the console."""


class _Part(Struct):
    """What the state topic says of a partition."""

    owner: str = ""
    owned_at_ms: int | None = None
    next_offset: int | None = None
    is_clean: bool = False
    by_status: dict[str, int] = {}
    oldest_owed_ms: int | None = None


_STRANGERS_MAX = 5
"""Accounts that are not configured, one by one: an event may name any."""


class Counts:
    """What our topics say."""

    def __init__(self, *, with_orders: bool, accounts: Collection[str] = ()) -> None:
        """`with_orders`: whether orders and dead letters are counted. `accounts`: all that are configured; empty: that
        is not known here.
        """
        self.with_orders = with_orders
        self.of_strangers: dict[str, int] = {}
        """Orders by account, of those that are not configured."""
        self.letters = 0
        """Of the last day, and nobody has dealt with them."""
        self.letters_unread = ""
        """Why they could not be counted."""
        self._accounts = accounts
        self._parts: dict[int, _Part] = {}

    def met(self, partition: int) -> None:
        """There is such a partition."""
        self._part(partition)

    def note(self, partition: int, key: bytes, value: bytes | None) -> None:
        """A record that is of no order."""
        if value is None or key not in (state.OWNER_KEY, state.NEXT_KEY):
            return
        part = self._part(partition)
        try:
            if key == state.OWNER_KEY:
                owner = state.decode_owner(value)
                part.owner, part.owned_at_ms = owner.owner, owner.at_ms
            else:
                taken = state.decode_next(value)
                part.next_offset, part.is_clean = taken.offset, taken.clean
        except msgspec.MsgspecError:
            return  # the worker that serves it says what is wrong

    def letter(self, row: LetterRow, now_ms: int) -> None:
        """A dead letter."""
        self.letters += not row.handled and now_ms - row.at_ms < DAY_MS

    def order(self, partition: int, subject: str, status: str, owed_since_ms: int) -> None:
        """An order."""
        part, account = self._part(partition), account_of(subject)
        if self._accounts and account not in self._accounts:
            self.of_strangers[account] = self.of_strangers.get(account, 0) + 1
        part.by_status[status] = part.by_status.get(status, 0) + 1
        if status == "owed" and owed_since_ms:
            part.oldest_owed_ms = min(part.oldest_owed_ms or owed_since_ms, owed_since_ms)

    def part(self, partition: int) -> _Part:
        """One that may not be there."""
        return self._parts.get(partition) or _Part()

    @property
    def partitions(self) -> Sequence[int]:
        """All that were met."""
        return list(self._parts)

    def _part(self, partition: int) -> _Part:
        return self._parts.setdefault(partition, _Part())


def picture(
    group_id: str,
    group: Group,
    statuses: Sequence[tuple[WorkerLine, StatusView | None]],
    ends: Mapping[int, int],
    counts: Counts,
    *,
    now_ms: int,
) -> FleetStatus:
    """Everything, and what needs somebody. `ends`: of the event topic's partitions."""
    members = {partition: str(member) for member in group.members for partition in member.partitions}
    served: dict[int, tuple[str, PartitionView]] = {
        view.partition: (line.url, view)
        for line, status in statuses
        if status is not None
        for view in status.partitions
    }
    partitions = [
        _partition(partition, members.get(partition, ""), served.get(partition), ends.get(partition, 0), counts)
        for partition in sorted({*counts.partitions, *ends})
    ]
    workers = [line for line, _ in statuses]
    problems = [*_of_group(group, partitions), *_of_partitions(partitions), *_of_workers(statuses)]
    problems += [*_of_orders(partitions, counts, now_ms), *_of_letters(counts)]
    found = [GroupMember(each.client, each.host, list(each.partitions)) for each in group.members]
    return FleetStatus(group_id, group.state, found, workers, partitions, problems)


def _partition(
    partition: int, member: str, served: tuple[str, PartitionView] | None, end: int, counts: Counts
) -> PartitionStatus:
    part = counts.part(partition)
    url, view = served or ("", None)
    return PartitionStatus(
        partition,
        member,
        part.owner,
        part.owned_at_ms,
        part.is_clean,
        url,
        "" if view is None else view.role,
        "" if view is None else view.detail,
        view.lease_left_s if view is not None and view.role == "serving" else None,
        part.next_offset,
        max(0, end - (part.next_offset or 0)),
        sum(part.by_status.values()) if counts.with_orders else None,
        dict(sorted(part.by_status.items())) if counts.with_orders else None,
        part.oldest_owed_ms if counts.with_orders else None,
    )


# --- what needs somebody ---


def _of_group(group: Group, partitions: Sequence[PartitionStatus]) -> Iterator[str]:
    if not group.members:
        waiting = sum(line.lag for line in partitions)
        yield f"no worker is running (the group is {group.state}), and {waiting} events wait: start one"
        return
    nobody = [line.partition for line in partitions if not line.member]
    if group.state != "Stable":
        yield f"the group is {group.state}: partitions change hands; look again in a minute"
    elif nobody:
        yield f"the group has assigned partition {_listed(nobody)} to nobody: look again in a minute, then at the logs"


def _of_partitions(partitions: Sequence[PartitionStatus]) -> Iterator[str]:
    for line in partitions:
        if line.phase == "halted":
            yield f"partition {line.partition} is halted: {line.detail}"


def _of_workers(statuses: Sequence[tuple[WorkerLine, StatusView | None]]) -> Iterator[str]:
    for line, status in statuses:
        if not line.ok:
            yield f"worker {line.url} does not answer ({line.detail}): see whether it runs"
        elif status is not None and not status.ready:
            yield f"worker {line.url} is not ready: {status.why}"
        for account in () if status is None else status.accounts:
            if account.paused:
                yield f"account {account.name} is paused at {line.url}: {account.paused}"


def _of_orders(partitions: Sequence[PartitionStatus], counts: Counts, now_ms: int) -> Iterator[str]:
    def of(status: str) -> int:
        return sum((line.by_status or {}).get(status, 0) for line in partitions)

    if parked := of("parked"):
        are = "order is" if parked == 1 else "orders are"
        yield f"{parked} {are} parked: `cartsync orders list --status parked` says why"
    if inconsistent := of("inconsistent"):
        do = "order contradicts itself" if inconsistent == 1 else "orders contradict themselves"
        yield f"{inconsistent} {do}: `cartsync orders list --status inconsistent` says how"
    strangers = sorted(counts.of_strangers.items(), key=lambda each: (-each[1], each[0]))
    for account, count in strangers[:_STRANGERS_MAX]:
        yield (
            f"{not_configured(account)}, and has {count_text(count, 'order')}: configure it in [accounts], or find the "
            "producer that writes this name"
        )
    if more := strangers[_STRANGERS_MAX:]:
        yield f"{len(more)} more such accounts with {sum(count for _, count in more)} orders: `cartsync account list`"
    oldest = min((line.oldest_owed_ms for line in partitions if line.oldest_owed_ms is not None), default=now_ms)
    if now_ms - oldest > OLD_MS:
        waits = age((now_ms - oldest) / 1000)
        yield f"the oldest owed order has waited for {waits}: `cartsync orders list --status owed --older 15m`"


def _of_letters(counts: Counts) -> Iterator[str]:
    if counts.letters_unread:
        yield f"dead letters could not be counted: {counts.letters_unread}"
    if counts.letters:
        letters = count_text(counts.letters, "dead letter")
        yield (
            f"{letters} of the last 24 hours that nobody has dealt with: `cartsync dlq list --filter "
            "handled=no --filter newer=24h` says what is wrong"
        )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


# --- as text ---


def lines_of(status: FleetStatus, now_ms: int) -> Iterator[str]:
    """For people."""
    yield f"group {status.group}: {status.group_state}, {count_text(len(status.members), 'member')}"
    for member in status.members:
        yield f"  {printable(member.client)} at {member.host}: partitions {_listed(member.partitions) or 'none'}"
    for worker in status.workers:
        told = f"{worker.partitions} partitions, version {worker.version}" if worker.ok else "does not answer"
        yield f"  {worker.url}: {told}{f'; {printable(worker.detail)}' if worker.detail else ''}"
    with_orders = any(line.orders is not None for line in status.partitions)
    head = ["partition", "owner", "since", "phase", "lease", "lag"]
    head += ["orders", *(name.replace("_", " ") for name in _SHOWN), "oldest owed"] if with_orders else []
    yield ""
    yield from columns(head, [_row(line, now_ms, with_orders) for line in status.partitions], right=(0, *range(4, 12)))
    yield ""
    for problem in status.problems:
        yield f"! {printable(problem)}"
    if not status.problems:
        yield "nothing needs a person" if with_orders else "nothing seen needs a person (orders were not counted)"


def _row(line: PartitionStatus, now_ms: int, with_orders: bool) -> list[str]:
    def ago(ms: int | None) -> str:
        return "" if ms is None else age((now_ms - ms) / 1000)

    phase = line.phase or ("left" if line.left_in_order else "assigned" if line.member else "unowned")
    lease = f"{line.lease_left_s:.0f} s" if line.lease_left_s and line.lease_left_s > 0 else ""
    cells = [str(line.partition), printable(line.owner), ago(line.owned_since_ms), phase, lease, str(line.lag)]
    if with_orders:
        counts = line.by_status or {}
        cells += [str(line.orders), *(str(counts.get(name, 0)) for name in _SHOWN), ago(line.oldest_owed_ms)]
    return cells
