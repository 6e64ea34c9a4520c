"""Programs of others that look at what deploy/ has: on the PATH, or made by `make tools`."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_MADE = ROOT / ".cartsync" / "tools"


def find_program(name: str) -> str | None:
    """Its path; `None` where it is not."""
    return shutil.which(name) or shutil.which(name, path=_MADE)


def program(name: str) -> str:
    """Its path. Skips the test, visibly, where it is not."""
    if (found := find_program(name)) is None:
        pytest.skip(f"{name} is not on this machine (`make tools`)")
    return found
