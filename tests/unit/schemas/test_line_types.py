"""A new line type: every table by type has a row for it, and nothing else knows types by their names."""

import ast
from collections.abc import Collection, Iterator
from pathlib import Path
from random import Random
from typing import get_args

import pytest

from schemas.events import LINE_RULES, LineType
from tests.shops.histories import shop_story
from worker.providers.qliro.wanted import type_of
from worker.providers.sequra import wire
from worker.providers.sequra.wire import ITEM_RULES
from worker.sandbox.sequra import rules

ROOT = Path(__file__).resolve().parents[3]
TYPES = frozenset(get_args(LineType))


@pytest.mark.parametrize("table", [LINE_RULES, ITEM_RULES], ids=["events", "sequra"])
def test_every_type_has_its_row(table: Collection[str]) -> None:
    """Whoever adds a type has to say what follows from it, in the carts and at each provider."""
    assert set(table) == TYPES


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_type_has_a_word_of_sequra(name: LineType) -> None:
    """It is one that seQura's sandbox knows, and the checks of what is sent find the type by it."""
    word = ITEM_RULES[name].word
    assert word in rules._ITEMS
    assert wire.TYPES[word] == name


def test_every_type_is_in_histories() -> None:
    """The models, the simulation and the plays are asked about each type."""
    lines = [
        line for seed in range(200) for event in shop_story(Random(seed)) for line in event["data"].get("lines", ())
    ]
    assert {line.get("type", "product") for line in lines if "total_minor" in line} == TYPES


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_type_has_a_word_of_qliro(name: LineType) -> None:
    """Of the four that there are."""
    assert type_of(name) in ("Product", "Discount", "Fee", "Shipping")


def compared(text: str) -> Iterator[str]:
    """Where a module compares something named like a type with the name of one; the line, and the name."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        if {"type", "kind"} & {ast.unparse(side).rpartition(".")[2] for side in sides}:
            constants = [one.value for side in sides for one in ast.walk(side) if isinstance(one, ast.Constant)]
            yield from (f"{node.lineno}: {one}" for one in constants if isinstance(one, str) and one in TYPES)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('line.type == "voucher"', ["1: voucher"]),
        ('"handling" != kind', ["1: handling"]),
        ('item.type in ("discount", "other_payment")', ["1: discount", "1: other_payment"]),
        ("line.type in GOODS", []),
        ('question == "handling"', []),
    ],
)
def test_comparison_is_found(text: str, found: list[str]) -> None:
    """Each way of asking for a type by its name."""
    assert list(compared(text)) == found


def test_nothing_asks_for_a_type_by_its_name() -> None:
    """It asks for what the table says of it. The sandboxes have the providers' rules, from their documentation."""
    files = [*ROOT.glob("schemas/*.py"), *ROOT.glob("worker/**/*.py")]
    found = [
        f"{file.relative_to(ROOT)}:{where}"
        for file in files
        if "sandbox" not in file.parts
        for where in compared(file.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)
