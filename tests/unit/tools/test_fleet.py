"""What `cartsync status` says needs a person, and how it is printed."""

import pytest
from msgspec.structs import replace

from schemas.console import LetterRow, WorkerLine
from schemas.views import AccountView, PartitionView, StatusView
from worker.kafka.group import Group, Member
from worker.tools.fleet.picture import Counts, lines_of, picture

NOW_MS = 1_800_000_000_000
VIEW = PartitionView(0, "serving", "", 5, 0, 3, 0, 0, 0, 0.0, 20.0)
STATUS = StatusView("1.0", True, [VIEW], [])
WORKER = WorkerLine("http://a:8080", True, "", "1.0", 1, 20.0)
LETTER = LetterRow(0, 7, NOW_MS - 1, "invalid_data", "", "acme/1", "order.confirmed", "e1", "")
GROUP = Group("Stable", [Member("cartsync", "10.0.0.1", [0])])


def counts(**by_status: int) -> Counts:
    """Of one partition."""
    found = Counts(with_orders=True)
    found.met(0)
    for status, count in by_status.items():
        for _ in range(count):
            found.order(0, "acme/1", status, NOW_MS - 60_000)
    return found


def strange(accounts: int) -> Counts:
    """With orders of so many accounts that are not configured."""
    found = Counts(with_orders=True, accounts=["acme"])
    for number in range(accounts):
        found.order(0, f"amce{number}/1", "owed", NOW_MS)
    return found


def letters(*rows: LetterRow) -> Counts:
    """With dead letters."""
    found = counts()
    for row in rows:
        found.letter(row, NOW_MS)
    return found


def test_all_is_well() -> None:
    """Then it says so, in lines as wide as they have to be."""
    status = picture("cartsync", GROUP, [(WORKER, STATUS)], {0: 0}, counts(settled=3), now_ms=NOW_MS)
    assert status.problems == []
    lines = list(lines_of(status, NOW_MS))
    assert lines[0] == "group cartsync: Stable, 1 member"
    assert lines[-1] == "nothing needs a person"
    (row,) = [line.split() for line in lines if line.strip().startswith("0  ")]
    assert row == ["0", "serving", "20", "s", "0", "3", *["0"] * 6]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"group": Group("Empty"), "ends": {0: 9}}, "no worker is running (the group is Empty), and 9 events wait"),
        ({"group": replace(GROUP, state="PreparingRebalance")}, "the group is PreparingRebalance"),
        ({"ends": {0: 0, 1: 0}}, "the group has assigned partition 1 to nobody"),
        (
            {"statuses": [(WORKER, replace(STATUS, partitions=[replace(VIEW, role="halted", detail="a gap")]))]},
            "partition 0 is halted: a gap",
        ),
        (
            {"statuses": [(replace(WORKER, ok=False, detail="refused"), None)]},
            "http://a:8080 does not answer (refused)",
        ),
        ({"statuses": [(WORKER, replace(STATUS, ready=False, why="restoring"))]}, "is not ready: restoring"),
        (
            {"statuses": [(WORKER, replace(STATUS, accounts=[AccountView("acme", "sequra", "D", "401", 0, 0, 0)]))]},
            "account acme is paused at http://a:8080: 401",
        ),
        ({"counts": counts(parked=2)}, "2 orders are parked"),
        ({"counts": counts(inconsistent=1)}, "1 order contradicts itself"),
        ({"counts": counts(inconsistent=2)}, "2 orders contradict themselves"),
        ({"counts": strange(1)}, "account amce0 is not configured, and has 1 order: "),
        (
            {"counts": letters(LETTER, replace(LETTER, handled="mended"), replace(LETTER, at_ms=NOW_MS - 86_400_000))},
            "1 dead letter of the last 24 hours that nobody has dealt with",
        ),
        ({"counts": letters(LETTER, LETTER)}, "2 dead letters of the last 24 hours"),
        ({"counts": counts(owed=1), "now_ms": NOW_MS + 20 * 60_000}, "the oldest owed order has waited for 21 min"),
    ],
)
def test_what_needs_somebody(members: dict[str, object], expected: str) -> None:
    """Each with what to do or where to look."""
    usual = {
        "group": GROUP,
        "statuses": [(WORKER, STATUS)],
        "ends": {0: 0},
        "counts": counts(),
        "now_ms": NOW_MS,
    }
    status = picture("cartsync", **usual | members)  # type: ignore[arg-type]
    (problem,) = status.problems
    assert expected in problem
    assert list(lines_of(status, NOW_MS))[-1] == f"! {problem}"


def test_many_accounts_that_are_not_configured() -> None:
    """The first ones by name, the others by number."""
    status = picture("cartsync", GROUP, [(WORKER, STATUS)], {0: 0}, strange(7), now_ms=NOW_MS)
    assert len(status.problems) == 6
    assert status.problems[-1].startswith("2 more such accounts with 2 orders")
    known = Counts(with_orders=True)  # by a configuration that names no account
    known.order(0, "amce/1", "owed", NOW_MS)
    assert not picture("cartsync", GROUP, [(WORKER, STATUS)], {0: 0}, known, now_ms=NOW_MS).problems


def test_not_counted() -> None:
    """It does not say more than it knows."""
    quick = Counts(with_orders=False)
    quick.met(0)
    status = picture("cartsync", GROUP, [(WORKER, STATUS)], {0: 0}, quick, now_ms=NOW_MS)
    assert list(lines_of(status, NOW_MS))[-1] == "nothing seen needs a person (orders were not counted)"


def test_letters_that_cannot_be_counted() -> None:
    """All else is said all the same."""
    found = counts(settled=1)
    found.letters_unread = "topic dlq does not exist"
    status = picture("cartsync", GROUP, [(WORKER, STATUS)], {0: 0}, found, now_ms=NOW_MS)
    assert status.problems == ["dead letters could not be counted: topic dlq does not exist"]
