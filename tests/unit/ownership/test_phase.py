"""Which phase of an ownership may follow which."""

import re

import pytest

from worker.errors import InvariantError
from worker.ownership import phase as module
from worker.ownership.phase import TRANSITIONS, Phase, follow

PAIRS = [pytest.param(one, other, id=f"{one.name} {other.name}") for one in Phase for other in Phase]


@pytest.mark.parametrize(("phase", "following"), PAIRS)
def test_transitions_are_those_of_the_table(phase: Phase, following: Phase) -> None:
    """An assignment outside of it is a bug, and says which."""
    if following in TRANSITIONS[phase]:
        assert follow(phase, following, 3) is following
    else:
        with pytest.raises(InvariantError, match=f"partition 3 cannot go from {phase.name} to {following.name}"):
            follow(phase, following, 3)


@pytest.mark.parametrize("phase", Phase)
def test_everything_ends(phase: Phase) -> None:
    """From every phase there is a way to the end, and none back from it to one that works."""
    reached, found = {phase}, [phase]
    while found:
        for following in TRANSITIONS[found.pop()] - reached:
            reached.add(following)
            found.append(following)
    assert Phase.DAMAGED in reached
    if phase in (Phase.CLOSED, Phase.DAMAGED):
        assert not any(each.is_working for each in reached)


def test_diagram_names_every_phase() -> None:
    """And no other."""
    boxes = set(re.findall(r"\|\s+([A-Z]+)\s+\|", module.__doc__ or ""))
    assert boxes == {phase.name for phase in Phase}


@pytest.mark.parametrize(
    ("phase", "shown_as", "is_working", "is_served", "is_halted"),
    [
        (Phase.RESTORING, "restoring", False, False, False),
        (Phase.SERVING, "serving", True, True, False),
        (Phase.HALTED, "halted", True, True, True),
        (Phase.DRAINING, "closing", False, False, False),
        (Phase.CLOSED, "closing", False, False, False),
        (Phase.DAMAGED, "halted", False, True, True),
    ],
    ids=lambda value: value.name if isinstance(value, Phase) else "",
)
def test_what_a_phase_means(phase: Phase, shown_as: str, is_working: bool, is_served: bool, is_halted: bool) -> None:
    """For people, for operators, and for whoever asks whether the worker is ready."""
    found = (phase.shown_as, phase.is_working, phase.is_served, phase.is_halted)
    assert found == (shown_as, is_working, is_served, is_halted)
