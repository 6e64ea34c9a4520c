"""The plan of faults of the sandbox: how it is written, and that chance can be repeated."""

from collections import Counter

import pytest

from worker.errors import UsageError
from worker.sandbox.faults import Fault, FaultPlan, Faults, parse_fault


def kinds(faults: Faults, count: int, order_ref: str = "1001") -> list[str | None]:
    """Return the kinds that the next requests of one order meet."""
    drawn = [faults.draw("acme", order_ref) for _ in range(count)]
    return [None if fault is None else fault.kind for fault in drawn]


def test_text() -> None:
    """Kinds, probabilities and times are read, with any blanks between them."""
    plan = FaultPlan.parse(" 500=0.05, reset_applied=0.02 ,slow=0.1:0.3s,late_applied=0.01:250ms,429=0.1:2m")
    assert plan.chances == (
        (Fault("500"), 0.05),
        (Fault("reset_applied"), 0.02),
        (Fault("slow", 0.3), 0.1),
        (Fault("late_applied", 0.25), 0.01),
        (Fault("429", 120.0), 0.1),
    )


@pytest.mark.parametrize("text", ["", " ", ","])
def test_empty_text(text: str) -> None:
    """Empty text is the plan without faults."""
    assert FaultPlan.parse(text) == FaultPlan()


def test_default_times() -> None:
    """A kind that needs a time has one, the others have none."""
    times = {kind: Fault(kind, None) if (found := parse_fault(kind)) is None else found for kind in TIMED}
    assert {kind: fault.time_s for kind, fault in times.items()} == TIMED


TIMED = {
    "429": 1.0,
    "503": None,
    "500": None,
    "reset_lost": None,
    "timeout_lost": 30.0,
    "timeout_applied": 30.0,
    "slow": 1.0,
    "late_applied": 10.0,
}


def test_round_trip() -> None:
    """The text of a plan is read as the same plan."""
    plan = FaultPlan.parse("502_applied=0.25,503=0.01:5s,timeout_lost=0.125:40ms")
    assert str(plan) == "502_applied=0.25,503=0.01:5s,timeout_lost=0.125:0.04s"
    assert FaultPlan.parse(str(plan)) == plan


def test_shorthand() -> None:
    """`5xx` is four statuses in equal shares."""
    assert str(FaultPlan.parse("5xx=0.2")) == "500=0.05,502=0.05,503=0.05,504=0.05"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("500", "fault '500': expected kind=probability"),
        ("500=", "fault '500=': expected kind=probability"),
        ("=0.5", "unknown kind ''"),
        ("crash=0.1", "unknown kind 'crash'; known are 400 to 599, 5xx, late_applied, push_doubled"),
        ("200=0.1", "unknown kind '200'"),
        ("404_applied=0.1", "unknown kind '404_applied'"),
        ("500=2", "the probability 2 is not a number from 0 to 1"),
        ("500=-0.1", "the probability -0.1 is not a number from 0 to 1"),
        ("500=nan", "the probability nan is not a number from 0 to 1"),
        ("500=5%", "the probability 5% is not a number from 0 to 1"),
        ("500=0.1:1s", "500 takes no time"),
        ("reset_lost=0.1:1s", "reset_lost takes no time"),
        ("slow=0.1:", "'' is not a time such as 300ms, 2s or 1m"),
        ("slow=0.1:3", "'3' is not a time"),
        ("slow=0.1:-3s", "'-3s' is not a time"),
        ("slow=0.1:61m", "61m is longer than 3600s"),
        ("429=0.1:300ms", "Retry-After counts whole seconds"),
        ("500=0.1,500=0.2", "fault '500=0.2': 500 is given twice"),
        ("5xx=0.1,503=0.2", "503 is given twice"),
        ("500=0.6,slow=0.6", "the probabilities add up to 1.2, more than 1"),
        ("push_lost=0.6,push_late=0.6", "the probabilities of a push add up to 1.2, more than 1"),
        ("push_lost=0.1:1s", "push_lost takes no time"),
    ],
)
def test_bad_text(text: str, message: str) -> None:
    """A text that makes no sense is refused with the entry and what is wrong with it."""
    with pytest.raises(UsageError) as caught:
        FaultPlan.parse(text)
    assert message in str(caught.value)


def test_probabilities_up_to_one() -> None:
    """Tenths that add up to 1 are not refused for a rounding error, and then every request meets a fault."""
    statuses = ",".join(f"{status}=0.1" for status in range(500, 510))
    assert None not in kinds(Faults(FaultPlan.parse(statuses), 1), 500)


def test_one_fault_in_a_script() -> None:
    """A single fault is written as in a plan, without a probability; `ok` is none."""
    assert parse_fault("timeout_lost:50ms") == Fault("timeout_lost", 0.05)
    assert parse_fault(" ok ") is None
    for text in ("5xx", "ok:1s", "slow:", "500=0.1", "push_late:1s", "result_error"):
        with pytest.raises(UsageError):
            parse_fault(text)


def test_same_seed() -> None:
    """The same seed deals the same faults, another one others."""
    plan = FaultPlan.parse("500=0.3,reset_lost=0.3")
    first = kinds(Faults(plan, 7), 100)
    assert kinds(Faults(plan, 7), 100) == first
    assert kinds(Faults(plan, 8), 100) != first


def test_orders_do_not_disturb_each_other() -> None:
    """What an order meets does not depend on when other orders send."""
    plan = FaultPlan.parse("500=0.3,reset_lost=0.3")
    alone = Faults(plan, 7)
    mixed = Faults(plan, 7)
    kinds(mixed, 50, "other")
    assert kinds(mixed, 50) == kinds(alone, 50)
    assert kinds(Faults(plan, 7), 50, "other") != kinds(Faults(plan, 7), 50)


def test_frequency() -> None:
    """Faults come about as often as the plan says."""
    faults = Faults(FaultPlan.parse("500=0.1,slow=0.3:1ms"), 1)
    counts = Counter(kinds(faults, 5_000))
    assert 400 < counts["500"] < 600
    assert 1_350 < counts["slow"] < 1_650


def test_script_comes_first() -> None:
    """A script applies in its order, before the plan, and to its order alone."""
    faults = Faults(FaultPlan.parse("500=1"), 1)
    faults.script("acme", "1001", "reset_lost", "ok")
    faults.script("acme", "1001", "409")
    assert kinds(faults, 1, "1002") == ["500"]
    assert kinds(faults, 4) == ["reset_lost", None, "409", "500"]


def test_bad_script() -> None:
    """A script with a fault that does not exist is refused as a whole."""
    faults = Faults(FaultPlan(), 1)
    with pytest.raises(UsageError):
        faults.script("acme", "1001", "500", "crash")
    assert kinds(faults, 1) == [None]


def test_stop() -> None:
    """After the stop there are no faults: no plan, no scripts, no denied credentials."""
    faults = Faults(FaultPlan.parse("500=1"), 1)
    faults.script("acme", "1001", "409")
    faults.denied.add("acme")
    faults.stop()
    assert kinds(faults, 3) == [None, None, None]
    assert not faults.denied
    assert faults.plan == FaultPlan()


def test_new_plan_counts_anew() -> None:
    """Setting a plan begins anew, so that a run can be repeated."""
    faults = Faults(FaultPlan.parse("500=0.5"), 3)
    first = kinds(faults, 40)
    faults.plan = FaultPlan.parse("500=0.5")
    assert kinds(faults, 40) == first


def test_plan_that_goes_on() -> None:
    """Where a plan is replaced in the middle of a run, no order meets the same again from the first."""
    faults, whole = (Faults(FaultPlan.parse("500=0.5"), 3) for _ in range(2))
    first = kinds(faults, 20)
    faults.replace_plan(FaultPlan.parse("500=0.5"))
    assert first + kinds(faults, 20) == kinds(whole, 40)


def test_each_meets_its_own() -> None:
    """Pushes and results meet only what befalls them, and requests nothing of it; none takes from the others."""
    faults = Faults(FaultPlan.parse("500=1,push_late=1:1ms,result_error=1"), 1)
    assert kinds(faults, 2) == ["500", "500"]
    assert faults.draw_later("push", "acme", "1001") == Fault("push_late", 0.001)
    assert faults.draw_later("result", "acme", "1001") == Fault("result_error")
    alone, mixed = (Faults(FaultPlan.parse("500=0.5,push_lost=0.5"), 7) for _ in range(2))
    for _ in range(30):
        mixed.draw_later("push", "acme", "1001")
    assert kinds(alone, 30) == kinds(mixed, 30)
    drawn = [alone.draw_later("push", "acme", "1001") is None for _ in range(30)]
    assert drawn != [kind is None for kind in kinds(Faults(alone.plan, 7), 30)]
    faults.stop()
    assert faults.draw_later("push", "acme", "1001") is None
