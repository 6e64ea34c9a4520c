"""Small parts that commands share: which letters are meant, columns, progress."""

import io

import pytest
from msgspec.structs import replace

from schemas.console import LetterRow
from worker.errors import UsageError
from worker.tools.columns import columns
from worker.tools.letters import Place, place_of
from worker.tools.letters.choosing import NAMES, choice_of
from worker.tools.progress import EVERY_S, Progress

NOW_MS = 1_800_000_000_000
ROW = LetterRow(
    *(0, 7, NOW_MS - 3_600_000, "invalid_data", "$.data.lines: expected", "acme/A1", "order.items_shipped", "e1"),
    "orders.events/0/9",
    "",
)


@pytest.mark.parametrize(
    ("filters", "taken"),
    [
        ([], True),
        (["reason=invalid_data"], True),
        (["reason=no_key"], False),
        (["account=acme"], True),
        (["account=ac"], False),
        (["order=acme/A1"], True),
        (["order=acme/A"], False),
        (["type=order.*"], True),
        (["type=order.items_shipped"], True),
        (["type=provider.*"], False),
        (["detail=DATA.lines"], True),
        (["detail=currency"], False),
        (["source=orders.events/0"], True),
        (["source=orders.events/1"], False),
        (["older=59m"], True),
        (["older=2h"], False),
        (["newer=2h"], True),
        (["newer=59m"], False),
        (["handled=no"], True),
        (["handled=yes"], False),
        (["handled=mended"], False),
        (["reason=invalid_data", "account=hats"], False),
        (["reason=invalid_data", "account=acme", "newer=2h"], True),
    ],
)
def test_choices(filters: list[str], taken: bool) -> None:
    """All filters have to hold."""
    assert choice_of(filters).takes(ROW, NOW_MS) is taken


def test_choice_of_what_was_dealt_with() -> None:
    """By whether, and by how; a filter goes before what a command takes for granted."""
    mended = replace(ROW, handled="mended")
    for handled, taken in (("yes", True), ("mended", True), ("replayed", False), ("no", False)):
        assert choice_of([f"handled={handled}"], handled="no").takes(mended, NOW_MS) is taken
    assert not choice_of([], handled="no").takes(mended, NOW_MS)


def test_every_filter_is_tried() -> None:
    """One that nobody tests could be broken."""
    tried = {"reason", "account", "order", "type", "detail", "source", "older", "newer", "handled"}
    assert tried == set(NAMES)


@pytest.mark.parametrize("text", ["", "7", "a/1", "0/", "/1", "0/1/2", "-1/2", "٣/1"])
def test_no_place(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(UsageError, match="expected PARTITION/OFFSET"):
        place_of(text)


def test_place() -> None:
    """As it is printed."""
    assert str(place_of("3/17")) == "3/17"
    assert sorted([Place(1, 0), Place(0, 9), Place(0, 2)]) == [Place(0, 2), Place(0, 9), Place(1, 0)]


def test_columns() -> None:
    """As wide as the widest, numbers to the right, nothing behind the last."""
    lines = list(columns(["name", "count", ""], [["a", "10", "x"], ["longer", "7", ""]], right=[1]))
    assert lines == ["name    count", "a          10  x", "longer      7"]


def test_progress() -> None:
    """From time to time; what is not said is not even made."""
    now, out, made = [0.0], io.StringIO(), list[str]()
    progress = Progress(out, lambda: now[0])

    def text() -> str:
        made.append("once")
        return f"at {now[0]:g}"

    for at in (0.0, EVERY_S / 2, EVERY_S, EVERY_S + 1, 2 * EVERY_S):
        now[0] = at
        progress.say(text)
    assert out.getvalue() == f"at {EVERY_S:g}\nat {2 * EVERY_S:g}\n"
    assert len(made) == 2
