"""The overview: what needs a person, the worst first, each with the next step."""

from typing import Any

from msgspec.structs import replace

from schemas.console import IndexView, Overview, ParkedReason, WorkerLine
from schemas.views import AccountView, PartitionView, StatusView
from tests.unit.web.console.scene import NOW_MS, PROVIDERS
from worker.web.console.overview import OLD_MS, Counted, make_overview

INDEX = IndexView("following", 0, 0, "", 0, NOW_MS, 1)
NOTHING = Counted([], {}, {}, {}, {}, {}, [], [], 0)


def overview(counted: Counted = NOTHING, statuses: Any = (), ends: Any = None, providers: Any = PROVIDERS) -> Overview:
    """It."""
    return make_overview(counted, statuses, providers, ends, INDEX, NOW_MS)


def texts(found: Overview) -> list[str]:
    """What needs a person."""
    return [problem.text for problem in found.needs_person]


def worker(
    url: str, *partitions: int, role: Any = "serving", paused: str | None = None
) -> tuple[WorkerLine, StatusView]:
    """A worker that answers."""
    views = [PartitionView(p, role, "", 0, 0, 0, 0, 0, 0, 0.0, 19.0) for p in partitions]
    account = AccountView("acme", "sequra", "D", paused, 0.0, 0, 0)
    return WorkerLine(url, True, "", "1", len(partitions), 19.0), StatusView("1", True, views, [account])


def test_nothing() -> None:
    """Then nothing is asked of anybody."""
    assert overview().needs_person == []


def test_accounts() -> None:
    """Counts, ages, reasons: each problem once, with where to go."""
    counted = replace(
        NOTHING,
        accounts=["acme", "ghost"],
        by_account={
            "acme": {
                "settled": (5, 1),
                "owed": (2, NOW_MS - OLD_MS - 1),
                "parked": (3, 1),
                "inconsistent": (1, 1),
            },
            "ghost": {"owed": (1, NOW_MS)},
        },
        on_hold={"acme": 1},
        differing={"acme": 4},
        paid={"acme": {"overpaid": 4}},
        parked={"acme": [ParkedReason("422: no", 2, "acme/1"), ParkedReason("409", 1, "acme/2")]},
        dead_letters_day=1,
    )
    found = overview(counted)
    acme = found.accounts[0]
    assert (acme.provider, acme.orders, acme.by_status["parked"], acme.on_hold, acme.differs) == ("sequra", 11, 3, 1, 4)
    assert acme.oldest_owed_ms == NOW_MS - OLD_MS - 1
    assert texts(found) == [
        "acme: the oldest owed order has waited for 15 min",
        "acme: 3 orders parked, most of them: 422: no",
        "acme: the amounts of 4 orders differ from the provider's",
        "Account ghost is not configured, and has 1 order",
        "1 dead letter in the last 24 hours",
        "acme: 1 order contradicts itself",
    ]
    assert all(problem.do and problem.link for problem in found.needs_person)
    assert found.needs_person[1].link == "/orders?account=acme&status=parked&sort=age"


def test_no_accounts_configured() -> None:
    """Where the console knows of none, none is said to be missing."""
    counted = replace(NOTHING, accounts=["acme"], by_account={"acme": {"settled": (1, 1)}})
    assert texts(overview(counted, providers={})) == []


def test_paused_account() -> None:
    """What its worker says comes first."""
    counted = replace(NOTHING, accounts=["acme"], dead_letters_day=2)
    found = overview(counted, [worker("http://w1", 0, paused="401: no")], {0: 1})
    assert texts(found) == ["Account acme is paused: 401: no", "2 dead letters in the last 24 hours"]
    assert found.needs_person[0].link == "/confirm?command=resume&subject=acme"
    assert found.accounts[0].paused == "401: no"


def test_partitions() -> None:
    """Owner by the state topic, phase by the worker, lag where the ends are known."""
    counted = replace(NOTHING, partitions=[(0, 40, False, "w1", 5), (1, None, True, "w2", 6)])
    found = overview(counted, [worker("http://w1", 0), worker("http://w2", 1)], {0: 42, 1: 3, 2: 0})
    assert [(each.partition, each.owner, each.lag, each.served_by, each.phase) for each in found.partitions] == [
        (0, "w1", 2, "http://w1", "serving"),
        (1, "w2", 3, "http://w2", "serving"),
        (2, "", 0, None, ""),
    ]
    assert texts(found) == ["Partition 2 is served by none of the workers that were asked"]
    assert [each.lag for each in overview(counted).partitions] == [None, None]


def test_silent_and_halted() -> None:
    """While a worker is silent nobody knows what it serves, so that is not said of its partitions."""
    silent = (WorkerLine("http://w2", False, "no answer"), None)
    found = overview(NOTHING, [worker("http://w1", 0, role="halted"), silent], {0: 1, 1: 1})
    assert texts(found) == ["Partition 0 is halted", "Worker http://w2 does not answer: no answer"]
    found = overview(NOTHING, [worker("http://w1", 0, 1, role="halted")], {0: 1, 1: 1})
    assert texts(found) == ["Partitions 0, 1 are halted"]
