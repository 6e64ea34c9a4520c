"""The reader of the results topic sees what must not be there."""

from typing import Any

import msgspec
import pytest

from tests.chaos.merchants import Outcome
from tests.chaos.results import ResultsReader

SUBJECT = "hats/H1000"
SETTLED = Outcome(("settled",), ((100, 0),))


def change(sequence: int, status: str = "settled", acked: int = 0, **data: Any) -> dict[str, Any]:
    """Return a result of the order."""
    carts = {"revision": acked, "unsupported": False, "shipped_minor": 100, "unshipped_minor": 0}
    return {
        "id": f"{SUBJECT}:{acked}:{status}:{sequence}",
        "type": "cartsync.order_changed",
        "subject": SUBJECT,
        "sequence": str(sequence),
        "data": {"status": status, "acked": acked} | carts | data,
    }


def fact(revision: int) -> dict[str, Any]:
    """Return something that the provider has said."""
    kind = "provider.payment_state"
    return {"id": f"{SUBJECT}:{revision}:{kind}", "type": kind, "subject": SUBJECT, "data": {"state": "approved"}}


def read(*results: dict[str, Any], foreign: frozenset[str] = frozenset()) -> ResultsReader:
    """Return a reader that has taken these, in this order."""
    reader = ResultsReader(foreign)
    for result in results:
        reader.take(0, SUBJECT.encode(), msgspec.json.encode(result))
    return reader


def wrong(*results: dict[str, Any], outcome: Outcome = SETTLED, taken: bool = False) -> list[str]:
    """Return what a reader of these says at the end."""
    return read(*results).check_end({SUBJECT: outcome}, {SUBJECT: ["approved"]} if taken else {})


def test_each_change_once_and_the_last_one_right() -> None:
    """Owed, settled, and what the provider said in between: nothing is wrong."""
    assert wrong(change(1, "owed", 0, revision=7), fact(8), change(2, "settled", 8), taken=True) == []


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ([change(1, acked=1), change(1, acked=2)], "has sequence 1, after 1"),
        ([change(1, acked=1), change(3, acked=2)], "has sequence 3, after 1"),
        ([change(2, acked=1)], "has sequence 2, after 0"),
        ([change(1, acked=2), change(2, acked=2)], "repeats the result before it"),
        ([change(1, acked=2), change(2, acked=1)], "goes back from revision 2 to 1"),
        ([fact(1), fact(1), change(1, acked=2)], "was written twice"),
        ([], "there is no result"),
        ([change(1, "owed")], "says owed, expected settled"),
        ([change(1, "parked", unsupported=True)], "says parked, expected settled"),
        ([change(1, acked=1, revision=2)], "its newest revision is not acknowledged"),
        ([change(1, acked=1, shipped_minor=99)], "has carts (99, 0), expected (100, 0)"),
    ],
)
def test_what_must_not_be_is_seen(results: list[dict[str, Any]], says: str) -> None:
    """A gap, a repeat, a step back, an order that is not settled, a cent too few."""
    assert [says in text for text in wrong(*results)] == [True]


def test_an_accepted_callback_has_to_show() -> None:
    """A provider that was answered 200 does not call again, so what it said has to be in a result."""
    assert wrong(change(1, acked=1), taken=True) == [f"{SUBJECT}: ['approved'] were answered 200, 0 results say so"]


def test_parked_only_as_unsupported() -> None:
    """An order that cannot be sent is parked and says so; one that is parked for another reason is not right."""
    outcome = Outcome(("parked",), ((100, 0),))
    assert wrong(change(1, "parked", unsupported=True), outcome=outcome) == []
    assert wrong(change(1, "parked"), outcome=outcome) != []


def test_gaps_of_foreign_accounts() -> None:
    """A result of theirs may be larger than the topic takes; an order of results that goes back is none of it."""
    foreign = frozenset({"hats"})
    assert read(change(1, acked=1), change(4, acked=2), foreign=foreign).violations == []
    assert read(change(4, acked=1), change(1, acked=2), foreign=foreign).violations != []


def test_keys_and_partitions() -> None:
    """All results of an order are under its key, in one partition."""
    reader = read(change(1, acked=1))
    reader.take(1, SUBJECT.encode(), msgspec.json.encode(change(2, acked=2)))
    reader.take(0, b"other", msgspec.json.encode(change(3, acked=3)))
    assert len(reader.violations) == 2
