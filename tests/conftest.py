"""What every test folder shares: markers by folder, the seeds of the simulations, and one real Kafka."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis.internal.observability  # noqa: F401 - see below
import pytest

from worker.tools.local_kafka import JARS, LocalKafka, missing_requirements

TESTS = Path(__file__).parent

# Hypothesis' plugin imports that module for its summary, and pytest rewrites it then. Where a test of the run has met
# the end of the stack, the parser of CPython 3.11 refuses that ("AST constructor recursion depth mismatch").

FOLDER_MARKERS = {
    "integration": ("integration",),
    "browser": ("integration",),
    "chaos": ("integration", "slow"),
    "bench": ("integration", "slow"),
}

DEFAULT_SEEDS = "12"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--seeds`."""
    parser.addoption(
        "--seeds",
        default=DEFAULT_SEEDS,
        help="for tests that take `seed`: a count (20 is 0 to 19), a range (40-49) or a list (7,12)",
    )


def parse_seeds(text: str) -> list[int]:
    """Return the seeds that `--seeds` names; raise `pytest.UsageError` when it names none."""
    try:
        if "," in text:
            seeds = [int(part) for part in text.split(",") if part.strip()]
        elif "-" in text:
            first, last = text.split("-")
            seeds = list(range(int(first), int(last) + 1))
        else:
            seeds = list(range(int(text)))
    except ValueError:
        seeds = []
    if not seeds:
        raise pytest.UsageError(f"--seeds {text}: a count (20), a range (40-49) or a list (7,12) is expected")
    return seeds


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `seed` and does not say which once for each of `--seeds`."""
    named = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize") if mark.args]
    if "seed" in metafunc.fixturenames and not any("seed" in names for names in named):
        metafunc.parametrize("seed", parse_seeds(metafunc.config.getoption("--seeds")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the folder that they are in, so that none runs in the wrong step of `make test`."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        for marker in FOLDER_MARKERS.get(folder, ()):
            item.add_marker(marker)


@pytest.fixture(scope="session")
def kafka_jars() -> Path:
    """The folder of Kafka's jars. Skips the test where Kafka cannot be run; in CI that is a failure."""
    jars = Path(os.environ.get("KAFKA_JARS", JARS))
    if missing := missing_requirements(jars):
        reason = "; ".join(missing)
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return jars


@pytest.fixture(scope="session")
def kafka(kafka_jars: Path) -> Iterator[LocalKafka]:
    """A running Kafka of one node, shared by the whole run: use topics of your own, and leave the node alone."""
    with LocalKafka(jars=kafka_jars) as running:
        yield running
