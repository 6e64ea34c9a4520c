"""The protocol does no harm, whatever happens; and without any one of its rules it does."""

import re
from functools import cache

import pytest

from tests.model.__main__ import events_of, main
from tests.model.orders import BACKWARDS, LOST, STALE
from tests.model.rules import RULES, Rules, Setup
from tests.model.search import Result, search

ALL = Rules()

WHOLE = {
    "one order, all that may happen": Setup(faults=3, warm=True, expiry=True, operator=True),
    "duplicates": Setup("a1 a2 a1 a3", faults=2),
    "two orders": Setup("a1 b1 a2=0 b2", faults=3),
    "two orders, remembered": Setup("a1 b1 a2=0", faults=2, warm=True),
    "conditional provider": Setup(faults=3, conditional_provider=True, freeze_in_send_gap=True),
    "tombstones": Setup("a1 a2 a3", faults=2, expiry=True, conditional_provider=True),
}
"""What is explored to the end, with all rules in force."""

TWO, BACK = Setup("a1 a2", faults=1), Setup("a1 a2=0", faults=1)

HARM_WITHOUT = {
    "fence": (Setup("a1 a2 b1", faults=1), LOST),
    "read_to_barrier": (TWO, BACKWARDS),
    "hold_inherited": (TWO, BACKWARDS),
    "hold_covers_lease": (TWO, BACKWARDS),
    "doubt_inherited": (BACK, BACKWARDS),
    "hold_uncertain": (Setup("a1 a2", faults=2), BACKWARDS),
    "activation_unclean": (Setup("a1 a2", faults=2), BACKWARDS),
    "reread_after_loss": (Setup("a1 b1", faults=1), LOST),
    "one_incarnation": (Setup("a1 b1", faults=1), LOST),
    "warm_expires": (Setup("a1 a2", faults=2, warm=True, expiry=True), BACKWARDS),
    "one_transaction": (Setup("a1", faults=1), LOST),
    "apply_after_commit": (TWO, BACKWARDS),
    "facts_are_a_set": (Setup("a1 a2 a1", faults=0), LOST),
    "revision_from_offset": (Setup("a1 a2 a3", faults=0, expiry=True, conditional_provider=True), STALE),
    "decision_rechecked": (Setup("a1 a2=0 a3", faults=2, operator=True), BACKWARDS),
    "lease_check": (TWO, BACKWARDS),
    "lease_from_commits": (TWO, BACKWARDS),
    "lease_from_commit_start": (TWO, BACKWARDS),
    "attempt_within_lease": (TWO, BACKWARDS),
    "one_attempt": (Setup("a1 a2", faults=0), BACKWARDS),
    "newest_only": (TWO, BACKWARDS),
    "suppress_without_doubt": (BACK, STALE),
    "ack_own_revision": (Setup("a1 a2", faults=0), STALE),
    "hold_unknown": (TWO, BACKWARDS),
    "uncertain_unknown": (Setup("a1 a2", faults=2), BACKWARDS),
    "doubt_after_5xx": (BACK, STALE),
    "park_by_revision": (TWO, STALE),
    "close_settled": (Setup("a1", faults=0, expiry=True), STALE),
    "lease_cut_on_leave": (TWO, BACKWARDS),
    "leave_drains": (TWO, BACKWARDS),
    "flags_before_clean": (Setup("a1 a2", faults=2), BACKWARDS),
}
"""By rule: where its absence shows, and as what."""

LEASE_AND_HOLDS = (
    *("lease_check", "lease_from_commits", "lease_from_commit_start", "attempt_within_lease"),
    *("hold_inherited", "hold_covers_lease", "hold_uncertain", "hold_unknown"),
)
FROZEN = Setup("a1 a2", faults=2, freeze_in_send_gap=True)


@cache
def explored(setup: Setup) -> Result:
    """All that may happen with all rules in force; searched once."""
    return search(ALL, setup)


@pytest.mark.parametrize("setup", WHOLE.values(), ids=WHOLE.keys())
def test_no_harm_with_all_rules(setup: Setup) -> None:
    """With all rules in force no interleaving does harm or breaks an invariant, and all were seen."""
    result = explored(setup)
    assert not result.harm, result
    assert result.is_complete


@pytest.mark.parametrize("name", RULES)
def test_harm_without_rule(name: str) -> None:
    """Without a rule there is a way to harm, and with it none from the same input and faults."""
    setup, harm = HARM_WITHOUT[name]
    assert search(ALL.without(name), setup, invariants=False).harm == harm
    result = explored(setup)
    assert result.is_complete
    assert not result.harm, result


@pytest.mark.parametrize(
    ("name", "invariant", "setup"),
    [
        ("apply_after_commit", "I1", TWO),
        ("flags_before_clean", "I3", Setup("a1 a2", faults=2, warm=True)),
        ("one_attempt", "I5", TWO),
        ("lease_check", "I6", TWO),
        ("park_by_revision", "I8", BACK),
        ("fence", "I9", TWO),
    ],
)
def test_broken_invariant_is_seen(name: str, invariant: str, setup: Setup) -> None:
    """An invariant that a missing rule breaks is reported by its number, before any harm has come of it."""
    assert search(ALL.without(name), setup).harm.startswith(f"{invariant}: ")


def test_freeze_in_gap_is_only_way_to_stale_provider() -> None:
    """A freeze after the last look at the lease defeats an unconditional provider; nothing else does."""
    result = search(ALL, FROZEN)
    assert result.harm == BACKWARDS
    assert any("goes out although its lease is over" in line for line in result.trace)
    assert explored(Setup("a1 a2", faults=2)).is_complete
    assert explored(Setup("a1 a2", faults=2, freeze_in_send_gap=True, conditional_provider=True)).is_complete


def test_conditional_provider_needs_no_lease_and_no_holds() -> None:
    """A provider that refuses older revisions is never misled by a late one, even out of a frozen process."""
    setup = Setup(faults=2, freeze_in_send_gap=True, conditional_provider=True)
    assert search(ALL.without(*LEASE_AND_HOLDS), setup, invariants=False).is_complete


@pytest.mark.parametrize("name", ["fence", "leave_drains", "lease_cut_on_leave", "doubt_inherited"])
def test_conditional_provider_needs_other_rules(name: str) -> None:
    """It cannot refuse what is older than a revision that it was never told, and knows nothing of the state."""
    setup = Setup("a1 a2=0 b1", faults=1, conditional_provider=True)
    assert search(ALL.without(name), setup, invariants=False).harm


HAPPENS = (
    *("fences, though another owner", "finds itself fenced", "(clean)", "(unclean", "is held", "leaves in order"),
    *("dies", "closes: a commit raises, and was not visible", "but the commit raises", "owns no more"),
    *("is lost", "its answer is lost", "which is still under way", "lands", "vanishes", "cannot commit the ack"),
    *("answers 500", "refuses", "releases", "refused before", "told already", "sent again", "drops its decision"),
    *("removes {o}", "compaction", "freezes before it writes", "thaws", "ends while it is frozen", "lease is over"),
)


def test_everything_happens() -> None:
    """Every fault and every event that the model knows is among what was explored: no guard keeps one out."""
    seen = {text for setup in WHOLE.values() for text in explored(setup).seen}
    seen |= explored(Setup("a1 a2 a3=2", faults=2)).seen
    assert [part for part in HAPPENS if not any(part in text for text in seen)] == []


def test_trace_can_be_read() -> None:
    """A counter-example is the shortest there is, a step per line, with the names of the workers kept apart."""
    trace = search(ALL.without("hold_uncertain"), HARM_WITHOUT["hold_uncertain"][0]).trace
    assert [re.sub(r" +\|.*", "", line).strip() for line in trace] == [
        "1   A fences",
        "2   A restores and activates (clean)",
        "3   A commits a1",
        "4   A sends a1",
        "5   A commits a2",
        "6 ! A gives a1 up, which is still under way",
        "7 ! A leaves in order",
        "8   B fences",
        "9   B restores and activates (clean)",
        "10   B sends a2",
    ]


def test_search_ends_at_its_limits() -> None:
    """A search that was cut off does not claim to have seen all."""
    result = search(ALL, Setup(faults=2), states_max=50)
    assert (result.is_complete, result.harm) == (False, "")
    assert not search(ALL, Setup(faults=2), seconds=1e-9).is_complete


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The command exits with 1 and a trace when there is harm, else with 0; and lists the rules."""
    assert main(["--faults", "1", "--without", "hold_unknown"]) == 1
    assert "which is still under way" in capsys.readouterr().out
    assert main(["--faults", "1", "--events", "1"]) == 0
    assert "complete: no harm" in capsys.readouterr().out
    assert main(["--rules"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(RULES)
    assert events_of("2") == "a1 b1 a2=0 b2"
