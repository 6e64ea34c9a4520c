"""The overview, made of what the index counts and the workers say. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote, urlencode

from msgspec import Struct

from schemas.console import (
    AccountLine,
    Activity,
    IndexView,
    NeedsPerson,
    Overview,
    ParkedReason,
    PartitionLine,
    WorkerLine,
)
from schemas.views import StatusView
from worker.core.amounts import count_text
from worker.web.console.amounts import age

OLD_MS = 15 * 60_000
"""An order that is owed for longer needs a look."""
_SEVERITIES = ("page", "ticket", "info")

Statuses = Sequence[tuple[WorkerLine, StatusView | None]]


class Counted(Struct, frozen=True):
    """What the index says."""

    accounts: Sequence[str]
    by_account: Mapping[str, Mapping[str, tuple[int, int]]]
    """By account and status, how many, and since when the oldest waits."""
    on_hold: Mapping[str, int]
    differing: Mapping[str, int]
    paid: Mapping[str, Mapping[str, int]]
    parked: Mapping[str, Sequence[ParkedReason]]
    partitions: Sequence[tuple[int, int | None, bool, str, int | None]]
    activity: Sequence[Activity]
    dead_letters_day: int


def make_overview(
    counted: Counted,
    statuses: Statuses,
    providers: Mapping[str, str],
    input_ends: Mapping[int, int] | None,
    index: IndexView,
    now_ms: int,
) -> Overview:
    """Everything at a glance."""
    accounts = [_account(name, counted, statuses, providers) for name in counted.accounts]
    partitions = list(_partitions(counted, statuses, input_ends))
    workers = [line for line, _ in statuses]
    problems = [*_of_workers(partitions, workers), *_of_accounts(accounts, providers, now_ms)]
    if dead := counted.dead_letters_day:
        do = "See what is wrong with them; their producer has to be mended"
        problems.append(NeedsPerson(f"{count_text(dead, 'dead letter')} in the last 24 hours", do, "/dead-letters"))
    problems.sort(key=lambda problem: _SEVERITIES.index(problem.severity))
    return Overview(problems, accounts, partitions, workers, list(counted.activity), counted.dead_letters_day, index)


def _account(name: str, counted: Counted, statuses: Statuses, providers: Mapping[str, str]) -> AccountLine:
    by_status = counted.by_account.get(name, {})
    owed = by_status.get("owed")
    paused = [
        account.paused
        for _, status in statuses
        if status is not None
        for account in status.accounts
        if account.name == name and account.paused
    ]
    return AccountLine(
        name,
        providers.get(name),
        sum(count for count, _ in by_status.values()),
        {status: count for status, (count, _) in by_status.items()},
        counted.on_hold.get(name, 0),
        counted.differing.get(name, 0),
        dict(counted.paid.get(name, {})),
        None if owed is None else owed[1],
        list(counted.parked.get(name, ())),
        paused[0] if paused else None,
    )


def _partitions(counted: Counted, statuses: Statuses, input_ends: Mapping[int, int] | None) -> Iterator[PartitionLine]:
    served = {
        view.partition: (line.url, view.role)
        for line, status in statuses
        if status is not None
        for view in status.partitions
    }
    known = {partition: rest for partition, *rest in counted.partitions}
    for partition in sorted({*known, *served, *(input_ends or ())}):
        input_next, clean, owner, since_ms = known.get(partition, [None, False, "", None])
        end = None if input_ends is None else input_ends.get(partition)
        lag = None if end is None else max(0, end - int(input_next or 0))
        url, phase = served.get(partition, (None, ""))
        yield PartitionLine(
            partition, str(owner or ""), None if since_ms is None else int(since_ms), bool(clean), lag, url, phase
        )


def _of_workers(partitions: Sequence[PartitionLine], workers: Sequence[WorkerLine]) -> Iterator[NeedsPerson]:
    if not workers:
        return
    if halted := [line.partition for line in partitions if line.phase == "halted"]:
        do = "The worker that has it says why, in its log and in /status; OPERATIONS.md says what to do"
        yield NeedsPerson(f"{_named(halted)} halted", do, "", "page")
    for worker in workers:
        if not worker.ok:
            do = "See whether it runs; others take its partitions over within a minute"
            yield NeedsPerson(f"Worker {worker.url} does not answer: {worker.detail}", do, "", "page")
    unserved = [line.partition for line in partitions if line.served_by is None]
    if unserved and all(worker.ok for worker in workers):
        do = "Start a worker, or name all of them in [console] workers"
        yield NeedsPerson(f"{_named(unserved)} served by none of the workers that were asked", do, "", "page")


def _of_accounts(accounts: Sequence[AccountLine], providers: Mapping[str, str], now_ms: int) -> Iterator[NeedsPerson]:
    for account in accounts:
        name = account.name
        if account.paused:
            do = "Mend the cause, then resume the account"
            link = f"/confirm?{urlencode({'command': 'resume', 'subject': name})}"
            yield NeedsPerson(f"Account {name} is paused: {account.paused}", do, link, "page")
        if account.provider is None and account.orders and providers:
            do = "Configure [accounts.NAME], or find the producer that writes this name"
            said = f"Account {name} is not configured, and has {count_text(account.orders, 'order')}"
            yield NeedsPerson(said, do, _orders(name))
        if account.oldest_owed_ms is not None and now_ms - account.oldest_owed_ms > OLD_MS:
            waits = age((now_ms - account.oldest_owed_ms) / 1000)
            do = "See why the oldest ones are not sent"
            where = _orders(name, status="owed", sort="age")
            yield NeedsPerson(f"{name}: the oldest owed order has waited for {waits}", do, where, "page")
        if parked := account.by_status.get("parked"):
            kinds = [each for each in account.parked if each.reason]
            most = f", most of them: {kinds[0].reason}" if kinds and len(account.parked) > 1 else ""
            most = most or (f": {kinds[0].reason}" if kinds else "")
            do = "Mend the cause, then release them; or settle them by hand, then adopt them"
            said = f"{name}: {count_text(parked, 'order')} parked{most}"
            yield NeedsPerson(said, do, _orders(name, status="parked", sort="age"))
        if count := account.by_status.get("inconsistent"):
            verb = "contradicts itself" if count == 1 else "contradict themselves"
            do = "An event of the shop is missing or wrong: see which"
            said = f"{name}: {count_text(count, 'order')} {verb}"
            yield NeedsPerson(said, do, _orders(name, status="inconsistent", sort="age"), "info")
        if account.differs:
            do = "Compare them with the provider"
            said = f"{name}: the amounts of {count_text(account.differs, 'order')} differ from the provider's"
            yield NeedsPerson(said, do, _orders(name, differs="1"))


def _orders(account: str, **query: str) -> str:
    return f"/orders?account={quote(account, safe='')}{''.join(f'&{name}={value}' for name, value in query.items())}"


def _named(partitions: Sequence[int]) -> str:
    numbers = ", ".join(map(str, partitions))
    return f"Partition {numbers} is" if len(partitions) == 1 else f"Partitions {numbers} are"
