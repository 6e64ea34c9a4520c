"""Histories in words."""

from typing import Any

import pytest

from schemas.history import HistoryEntry, key_of
from worker.core.story import kept_of, words_of


def entry(**members: Any) -> HistoryEntry:
    """An entry."""
    return HistoryEntry(**{"schema": 1, "n": 1, "at_ms": 1, "kind": "event", "what": "x", "revision": 1, **members})


WORDS: list[tuple[dict[str, Any], str]] = [
    ({"what": "order.items_shipped", "units": 1}, "order.items_shipped; 1 unit"),
    ({"what": "order.items_returned", "units": 2, "amount_minor": 250}, "order.items_returned; 2 units; 2.50 EUR"),
    ({"what": "provider.transaction", "word": "capture ok", "amount_minor": 5, "currency": "SEK"},
     "provider.transaction; capture ok; 0.05 SEK"),
    ({"what": "order.cancelled", "origin": "qliro", "superseded": True},
     "order.cancelled; made at qliro; something newer was known already"),
    ({"kind": "attempt", "what": "rejected", "http_status": 503, "reason": "503: later", "took_ms": 42,
      "hold_ms": 30_000, "wait_ms": 3_600_000},
     "attempt: the provider did not take it; HTTP 503; 503: later; took 0.042 s; held for 30 s; again in 3600 s"),
    ({"kind": "attempt", "what": "some new one"}, "attempt: some new one"),
    ({"kind": "report", "what": "applied", "word": "page a1"}, "report: the provider took it; page a1"),
    ({"kind": "report", "what": "on_page", "word": "page a1"}, "report: it is on the page that is sent next; page a1"),
    ({"kind": "decision", "what": "held", "hold_ms": 40_000},
     "another worker took over: the last request of the one before may still arrive; held for 40 s"),
    ({"kind": "decision", "what": "parked", "reason": "no"}, "parked by a check before sending; no"),
    ({"kind": "decision", "what": "newer"}, "newer"),
    ({"kind": "operator", "what": "forget", "by": "jane", "erased": ("customer", "gift")},
     "jane: forget; erased: customer, gift"),
    ({"kind": "operator", "what": "release"}, "an operator: release"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "words"), WORDS)
def test_words(members: dict[str, Any], words: str) -> None:
    """Each thing that may happen, with what is known of it."""
    assert words_of(entry(**members), "EUR") == words


def test_amount_of_an_unknown_currency() -> None:
    """Nobody can tell how many decimals it has."""
    assert words_of(entry(amount_minor=250), "") == "x; 250 minor units"


def test_what_compaction_leaves() -> None:
    """Of each slot the newest, in the order of the topic; what was removed is gone, and what is not ours left out."""
    first, second, third, other = (entry(n=n) for n in (1, 2, 51, 1))
    written = [
        (key_of("acme/1", 1), first),
        (key_of("acme/1", 2), second),
        (b"foreign", None),
        (key_of("acme/2", 1), other),
        (key_of("acme/1", 51), third),
        (key_of("acme/3", 1), other),
        (key_of("acme/3", 1), None),
    ]
    assert kept_of(written) == {"acme/1": [second, third], "acme/2": [other]}
