"""Addresses and what they ask for."""

import pytest

from worker.errors import UsageError
from worker.web.console.asked import Query, address_of, filter_of, limit_of, older_text, sort_of
from worker.web.console.queries import Filter


def test_everything() -> None:
    """Each parameter, also several times or with commas."""
    query = Query(
        "status=owed,parked&status=settled&account=a&provider=qliro&reason=not+found&older=2h&differs=1&on_hold=yes&q=A%2F1"
    )
    assert filter_of(query) == Filter(
        status=("owed", "parked", "settled"),
        accounts=("a",),
        providers=("qliro",),
        words="not found",
        older_s=7200.0,
        differs=True,
        on_hold=True,
        prefix="A/1",
    )


def test_nothing() -> None:
    """Leaves nothing out; empty parameters of a form are none."""
    assert filter_of(Query("status=&account=&q=&older=&reason=")) == Filter()
    assert filter_of(Query("")).is_empty
    assert sort_of(Query("")) == "changed"
    assert limit_of(Query("")) == 50


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("status=gone", "status: there is no 'gone'; expected one of"),
        ("older=soon", "older: expected a time such as 30s, 15m, 6h or 2d, got 'soon'"),
        ("differs=maybe", "differs: expected 1 or 0"),
        (f"q={'x' * 301}", "q: expected at most 300 characters"),
    ],
)
def test_mistakes(text: str, expected: str) -> None:
    """Each is said with what was expected."""
    with pytest.raises(UsageError, match=expected):
        filter_of(Query(text))


@pytest.mark.parametrize(("text", "expected"), [("sort=up", "sort: there is no 'up'"), ("sort=--age", "sort: ")])
def test_no_sorts(text: str, expected: str) -> None:
    """A sort that there is not."""
    with pytest.raises(UsageError, match=expected):
        sort_of(Query(text))


@pytest.mark.parametrize("text", ["limit=501", "limit=-1", "limit=1e3", "limit=\u0661"])
def test_no_limits(text: str) -> None:
    """A page has a bound."""
    with pytest.raises(UsageError, match="limit: expected an integer from 0 to 500"):
        limit_of(Query(text))


def test_too_many() -> None:
    """An address of a million parameters is refused."""
    with pytest.raises(UsageError, match="at most 100 parameters"):
        Query("a=1&" * 101)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, ""), (90.0, "90s"), (900.0, "15m"), (7200.0, "2h"), (172_800.0, "2d")]
)
def test_ages(seconds: float, text: str) -> None:
    """As they stand in an address, and back."""
    assert older_text(seconds) == text
    assert filter_of(Query(f"older={text}")).older_s == seconds


def test_there_and_back() -> None:
    """An address made of a filter asks for the same."""
    wanted = Filter(("owed",), ("ä&b",), ("qliro",), "a b", 60.0, True, True, "x/%")
    assert filter_of(Query(address_of(wanted, "age"))) == wanted
    assert sort_of(Query(address_of(wanted, "-age"))) == "-age"
    assert address_of(Filter(), "changed") == ""
