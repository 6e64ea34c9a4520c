"""The core against a second model that was written from the text alone, and what holds of every history."""

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shops.histories import Json, stories, story
from tests.unit.core.hunt import check, scenario_of, shrink
from tests.unit.core.naive_scenarios import disagreements
from tests.unit.core.truths import TRUTHS, model_agrees
from worker.tools.scenario.files import read_scenario

SCENARIOS = Path(__file__).parents[2] / "scenarios"
FILES = sorted([*(SCENARIOS / "sequra").glob("*.json"), *(SCENARIOS / "random").glob("*.json")])
SEEDS = 2_000
CHUNKS = 10


@pytest.mark.parametrize("folder", ["sequra", "random"])
def test_naive_model_agrees_with_the_scenarios(folder: str) -> None:
    """The model says what the scenario files say, which were written by hand: before that it judges nobody."""
    found = {file.stem: disagreements(file) for file in FILES if file.parent.name == folder}
    assert {name: lines for name, (_, lines) in found.items() if lines} == {}
    assert sum(asked for asked, _ in found.values()) > 100


@settings(max_examples=300)
@given(stories())
def test_core_agrees_with_naive_model(log: list[Json]) -> None:
    """Assessment, contradictions, both carts, trackings and the cancellation reason are those of the naive model."""
    model_agrees(log, Random(0))


@settings(max_examples=150)
@given(stories(ties=True))
def test_core_agrees_with_naive_model_on_ties(log: list[Json]) -> None:
    """With equal sequence and time the later position wins, in both."""
    model_agrees(log, Random(0))


@settings(max_examples=100)
@given(stories(size_max=20), st.integers(), st.sampled_from(sorted(TRUTHS)))
def test_truths_hold(log: list[Json], seed: int, name: str) -> None:
    """Amounts are found to the cent, arrival does not matter, nothing is lost."""
    TRUTHS[name](log, Random(seed))


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_seeds_hold(chunk: int) -> None:
    """The first seeds of `make histories`."""
    size = SEEDS // CHUNKS
    found = {seed: check(seed) for seed in range(chunk * size, (chunk + 1) * size)}
    assert {seed: failures for seed, failures in found.items() if failures} == {}


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(20_344_116, id="reduction, refund and line rounded against each other"),
        pytest.param(30_203_553, id="two reductions of one line, another line lost"),
        pytest.param(30_520_812, id="two reductions of one line, units of it lost"),
        pytest.param(30_641_010, id="reductions of some lines and of all"),
    ],
)
def test_seeds_that_failed_once_hold(seed: int) -> None:
    """Found by long runs."""
    assert check(seed) == []


def test_a_failure_becomes_a_small_scenario(tmp_path: Path) -> None:
    """What does not hold is told with as little as possible, as a file that `cartsync scenario` can read."""

    def nobody_ships(log: list[Json], chance: Random) -> None:
        assert not any(one["type"] == "order.items_shipped" for one in log), "something was shipped"

    seed = next(seed for seed in range(100) if any("shipment_id" in one["data"] for one in story(Random(seed))))
    smallest = shrink(nobody_ships, story(Random(seed)), seed)
    assert [one["type"] for one in smallest] == ["order.items_shipped"]
    assert smallest[0]["data"]["lines"] == [{"line_id": smallest[0]["data"]["lines"][0]["line_id"], "quantity": 1}]
    file = tmp_path / "small.json"
    file.write_text(json.dumps(scenario_of(smallest, "small")), encoding="utf-8")
    assert len(read_scenario(file).steps) == 3
