"""Pages of the contract that are written by hand name every type that there is."""

import re
from pathlib import Path

import pytest

from schemas.events import OPERATOR_TYPES, event_type

CONTRACT = Path(__file__).resolve().parents[3] / "schemas" / "CONTRACT.md"


@pytest.mark.parametrize("name", sorted(event_type(event) for event in OPERATOR_TYPES))
def test_operator_event_has_its_row(name: str) -> None:
    """What it does, in the table of section 7."""
    (section,) = re.findall(r"^## 7\. .*?(?=^## |\Z)", CONTRACT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert re.search(rf"^\| `{re.escape(name)}` \| \S", section, re.MULTILINE), f"{name} has no row in section 7"
