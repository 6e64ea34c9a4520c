"""Every scenario file is a test under its own name."""

from pathlib import Path

import pytest

from worker.tools.scenario import run_file
from worker.tools.scenario.report import Report, as_text

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.rglob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(FOLDER).with_suffix("").as_posix())
def test_scenario(file: Path):
    """What the scenario expects is what the worker does."""
    result = run_file(file)
    assert not result.failures, as_text(Report([result], [], result.elapsed_s))


@pytest.mark.parametrize("folder", ["sequra", "random", "own"])
def test_folders_are_found(folder):
    """A folder that was moved or emptied does not pass for one whose scenarios hold."""
    assert sum(file.parent.name == folder for file in FILES) >= 20
