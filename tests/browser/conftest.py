"""A real Chromium for the console's pages. Skipped visibly where there is none, and never where there is one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.driver import Browser, programs_or_skip

SHOTS = Path(__file__).resolve().parents[2] / ".cartsync" / "screenshots"
"""Where pictures of the pages are left, for people to look at."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for the whole run."""
    with Browser(*programs_or_skip()) as opened:
        yield opened


@pytest.fixture(scope="session")
def shots() -> Path:
    """A folder for pictures."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    return SHOTS
