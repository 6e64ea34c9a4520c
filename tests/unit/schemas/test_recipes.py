"""The page "From your shop's words to events": what each example says is what the worker does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import schemas
from worker.tools.scenario import run_file

FOLDER = Path(schemas.__file__).parent
PAGE = (FOLDER / "RECIPES.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"```json\n(?P<events>.*?)```\n```text\n(?P<carts>.*?)```", re.DOTALL)
ITEM = re.compile(r"(?:(?P<quantity>\d+) × )?(?P<reference>\S+) (?P<total>-?\d+)")
SUBJECT = "acme/A14"


def sections() -> dict[str, str]:
    """The text below each heading; the first one is the order that examples continue."""
    found, heading = {"": ""}, ""
    for line in PAGE.splitlines(keepends=True):
        if line.startswith("#"):
            heading = line.strip("# \n")
            found[heading] = ""
        found[heading] += line
    return found


def examples() -> dict[str, list[tuple[list[Any], str]]]:
    """By heading, the events and what is said of the carts."""
    return {
        heading: [(json.loads(example["events"]), example["carts"]) for example in EXAMPLE.finditer(text)]
        for heading, text in sections().items()
        if EXAMPLE.search(text)
    }


FIRST, *_ = examples().values()
CASES = [(heading, *example) for heading, found in examples().items() for example in found]


def cart(line: str, name: str) -> tuple[int, list[dict[str, Any]]]:
    """Total and items of `shipped 600: 1 × mixer 500, delivery 100`."""
    head, _, items = line.partition(": ")
    assert head.split()[0] == name
    found: list[dict[str, Any]] = []
    for text in items.split(", ") if items else []:
        item = ITEM.fullmatch(text)
        assert item is not None, text
        pattern: dict[str, Any] = {"total_minor": int(item["total"])}
        if item["reference"] == "invoice_fee":
            pattern["type"] = "invoice_fee"
        else:
            pattern["reference"] = item["reference"]
        pattern |= {"quantity": int(item["quantity"])} if item["quantity"] else {"$absent": ["quantity"]}
        found.append(pattern)
    return int(head.split()[1]), found


def differences(events: list[Any], carts: str, folder: Path) -> list[str]:
    """What the worker makes of the events, where it is not what is said of the carts."""
    if events[0]["type"] != "order.confirmed":
        events = FIRST[0][0] + events
    shipped, unshipped = carts.strip().splitlines()
    expected: dict[str, Any] = {"subject": SUBJECT}
    for name, line in (("shipped", shipped), ("unshipped", unshipped)):
        expected[f"{name}_minor"], expected[name] = cart(line, name)
    steps: list[Any] = [{"event": {"subject": SUBJECT} | event} for event in events]
    file = folder / "example.json"
    file.write_text(json.dumps({"steps": [*steps, {"run": "1m"}, {"expect_order": expected}]}), encoding="utf-8")
    return [line for failure in run_file(file).failures for line in failure.differences]


@pytest.mark.parametrize(("heading", "events", "carts"), CASES, ids=[heading for heading, _, _ in CASES])
def test_example(heading: str, events: list[Any], carts: str, tmp_path: Path) -> None:
    """The carts said on the page are those that come out."""
    assert differences(events, carts, tmp_path) == []


def test_a_wrong_cent_is_noticed(tmp_path: Path) -> None:
    """An example that says another cart than comes out does not pass."""
    events, carts = FIRST[0]
    assert differences(events, carts.replace("12600", "12601"), tmp_path) != []
    assert differences(events, carts.replace("4 × cup", "3 × cup"), tmp_path) != []
    assert differences(events, carts.replace(", delivery 600", ""), tmp_path) != []


def test_every_recipe_and_every_trap_has_an_example() -> None:
    """A section without an example is one that nobody has tried."""
    small = [line.strip("# \n") for line in PAGE.splitlines() if line.startswith("### ")]
    assert len(small) >= 30
    assert [heading for heading in small if heading not in examples()] == []
    assert PAGE.count("```json") == len(CASES)


def test_links_lead_somewhere() -> None:
    """Files exist, and so does every heading that a link names."""
    links = re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", PAGE)
    assert links
    for path, anchor in links:
        text = (FOLDER / path).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}
