"""Dead letters that are read again: what is in them, and the markers of those that were dealt with."""

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.letters import (
    REPLAYED_FROM,
    Marker,
    Refused,
    marker_headers,
    read_marker,
    refused_record,
)
from worker.errors import UsageError
from worker.orders.letters import letter_of
from worker.ports import UndecodableRecord

OWN = [("ce_specversion", b"1.0"), ("ce_type", b"order.cancelled"), ("x-dlq-own", b"of the shop")]
SAID = {"reason": "invalid_data", "detail": "$.data: …", "topic": "orders.events", "partition": "3", "offset": "7"}


class Input(NamedTuple):
    """A record of the event topic."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


@given(
    st.integers(0, 10**18 - 1),
    st.sampled_from(["replayed", "mended", "dismissed"]),
    st.text(),
    st.text(),
    st.text(),
)
def test_marker_is_read_as_it_was_written(offset: int, handling: str, by: str, to: str, why: str) -> None:
    """Whatever is in it."""
    by, to, why = (text.encode("utf-8", "ignore").decode() for text in (by, to, why))
    marker = Marker(offset, handling, by, to, why)  # type: ignore[arg-type]
    assert read_marker(marker_headers(marker)) == marker


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("x-dlq-reason", b"not_json")],
        [("x-dlq-handled", b"replayed")],
        [("x-dlq-handled", b"replayed"), ("x-dlq-letter", b"-1")],
        [("x-dlq-handled", b"eaten"), ("x-dlq-letter", b"1")],
        [("x-dlq-handled", None), ("x-dlq-letter", b"1")],
    ],
)
def test_what_is_no_marker(headers: list[tuple[str, bytes | None]]) -> None:
    """A letter, or what somebody else wrote."""
    assert read_marker(headers) is None


def test_record_in_a_letter() -> None:
    """Key, value and headers come out as they went in, also a header of the shop that looks like ours."""
    letter = letter_of(Input(7, 0, b"k", b"{}", OWN), SAID, 10**6, lean=False)
    found = refused_record(letter.key, letter.value, letter.headers)
    assert found == Refused(b"k", b"{}", OWN, "orders.events", 3, 7, "")
    assert (found.is_binary, found.type_in_headers) == (True, "order.cancelled")
    plain = refused_record(b"k", b"{}", [("x-dlq-reason", b"no_key"), ("x-dlq-partition", b"all")])
    assert (plain.is_binary, plain.type_in_headers, plain.partition, plain.offset) == (False, "", -1, -1)


def test_letter_of_a_letter() -> None:
    """What was replayed and refused once more does not keep the header of its first letter."""
    again: list[Any] = [*OWN, (REPLAYED_FROM, b"cartsync.dlq/0/1"), ("x-null", None)]
    letter = letter_of(Input(7, 0, b"k", b"{}", again), SAID, 10**6, lean=False)
    assert refused_record(letter.key, letter.value, letter.headers).headers == OWN


def test_what_cannot_be_written_again() -> None:
    """A letter that was cut, and one that stands for a batch, say why."""
    cut = letter_of(Input(7, 0, b"k", b"x" * 5_000, OWN), SAID, 3_000, lean=False)
    assert refused_record(cut.key, cut.value, cut.headers).why_not.startswith("a part of the record had to be left out")
    batch = UndecodableRecord(7, 9, 0, "…", value=b"raw", is_batch=True)
    whole = letter_of(batch, SAID, 10**6, lean=False)
    assert refused_record(whole.key, whole.value, whole.headers).why_not.startswith("it stands for a batch")


def test_no_letter() -> None:
    """Anybody may write to the topic."""
    with pytest.raises(UsageError, match="not a dead letter"):
        refused_record(b"k", b"{}", [("reason", b"x")])
