"""The page of the scenario format: its examples hold, and it leaves out no step and no member."""

import re
from pathlib import Path

import msgspec
import pytest

from worker.sandbox.atarapay.escrow import Act
from worker.tools.scenario import run_file
from worker.tools.scenario.steps import (
    STEPS,
    AnswerPattern,
    AnswerValue,
    CallbackValue,
    Checkout,
    CheckoutItem,
    EndValue,
    OrderPattern,
    ProviderPattern,
    PushValue,
    QliroAct,
    RequestPattern,
)

PAGE = (Path(__file__).parents[3] / "schemas" / "SCENARIOS.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_hold(tmp_path: Path, number: int) -> None:
    """What somebody copies from the page works."""
    path = tmp_path / "example.json"
    path.write_text(EXAMPLES[number], encoding="utf-8")
    assert run_file(path).failures == []


def test_there_are_examples() -> None:
    """One of each kind of provider."""
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("kind", STEPS)
def test_every_step_is_told(kind: str) -> None:
    """In the table of steps, by what it begins with."""
    assert re.search(rf'^\| `\{{"{kind}":', PAGE, re.MULTILINE)


MEMBERS = [
    f"{each.__name__} {field.encode_name}"
    for each in (
        *(AnswerPattern, AnswerValue, CallbackValue, Checkout, CheckoutItem, EndValue, OrderPattern),
        *(ProviderPattern, PushValue, QliroAct, RequestPattern),
    )
    for field in msgspec.structs.fields(each)
]


@pytest.mark.parametrize("member", [*MEMBERS, *(f"act {act}" for act in Act)])
def test_every_member_is_told(member: str) -> None:
    """Somewhere on the page, as it is written."""
    name = member.partition(" ")[2]
    assert re.search(rf'`{name}`|"{name}"', PAGE)
