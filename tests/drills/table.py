"""deploy/DRILLS.md: what came of each drill, as `make drills ARGS=--write` saw it."""

import re
from collections.abc import Mapping

from tests.drills.drill import DRILLS
from tests.drills.rules import DEPLOY, rules
from tests.drills.scene import Watched

PAGE = DEPLOY / "DRILLS.md"
_BEGIN, _END = "<!-- made by make drills -->\n", "<!-- until here -->"
_HEAD = (
    "| alert | provoked by | `for` | fired after | the section said | over after | what was mended |\n"
    "|---|---|---|---|---|---|---|\n"
)


def row(alert: str, seen: Watched) -> str:
    """One row of the table."""
    drill = DRILLS[alert]
    rule = next(rule for rule in rules() if rule["alert"] == alert)
    wait = rule.get("for", "0s")
    cells = (
        f"[{alert}](RUNBOOK.md#{alert.lower()})",
        drill.provoked,
        f"{wait} ÷ {drill.factor:g}",
        f"{seen.fired_s:.0f} s",
        ", ".join(dict.fromkeys(seen.steps)),
        f"{seen.resolved_s:.0f} s",
        drill.mended or "nothing",
    )
    return "| " + " | ".join(cells) + " |\n"


def rows() -> dict[str, str]:
    """The rows of the page, by alert."""
    body = PAGE.read_text(encoding="utf-8").partition(_BEGIN)[2].partition(_END)[0]
    return {found[1]: found[0] for found in re.finditer(r"^\| \[(\w+)\].*\n", body, re.MULTILINE)}


def write(seen: Mapping[str, Watched]) -> None:
    """Writes the rows of these drills; the others stay."""
    page = PAGE.read_text(encoding="utf-8")
    new = rows() | {alert: row(alert, each) for alert, each in seen.items()}
    body = "".join(new[rule["alert"]] for rule in rules() if rule["alert"] in new)
    before, _, rest = page.partition(_BEGIN)
    PAGE.write_text(before + _BEGIN + _HEAD + body + _END + rest.partition(_END)[2], encoding="utf-8")
