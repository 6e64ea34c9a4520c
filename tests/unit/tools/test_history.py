"""`cartsync order history`: which order is meant, and how its entries are printed."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.history import HistoryEntry
from worker.config.console import console_config
from worker.errors import UsageError
from worker.tools.control import UnknownOrderError
from worker.tools.history import chosen, lines_of, run_history


def entry(**members: Any) -> HistoryEntry:
    """An entry."""
    return HistoryEntry(**{"schema": 1, "n": 1, "at_ms": 0, "kind": "event", "what": "x", "revision": 1, **members})


FOUND = {"acme/1": [entry()], "hats/1": [entry(n=2)]}


def test_which_order() -> None:
    """A whole subject, or a reference that one account has."""
    assert chosen("hats/1", FOUND, "t") == ("hats/1", FOUND["hats/1"])
    assert chosen("1", {"acme/1": [entry()]}, "t") == ("acme/1", [entry()])
    with pytest.raises(UsageError, match="1 is ambiguous: use acme/1 or hats/1"):
        chosen("1", FOUND, "t")
    with pytest.raises(UnknownOrderError, match="has no entry of an order 2"):
        chosen("2", {}, "cartsync.state.history")


def test_lines() -> None:
    """When, what, and how it stood; amounts without a currency are in that of the others."""
    entries = [
        entry(what="order.refunded", amount_minor=250, event_id="e\x1b1"),
        entry(kind="attempt", what="applied", currency="EUR", shipped_minor=100, unshipped_minor=5, status="settled"),
    ]
    first, second = lines_of(entries, as_json=False)
    assert first == "1970-01-01 00:00:00  order.refunded; 2.50 EUR  (e\\x1b1)"
    assert second.startswith("1970-01-01 00:00:00  attempt: the provider took it  (1.00")
    assert second.endswith(" settled)")
    assert [msgspec.json.decode(line, type=HistoryEntry) for line in lines_of(entries, as_json=True)] == entries


def test_no_histories(tmp_path: Path) -> None:
    """Where none are kept, that is said."""
    path = tmp_path / "cartsync.toml"
    path.write_text('[kafka]\nbootstrap_servers = "localhost:9092"\nhistory_topic = ""\n')
    with pytest.raises(UsageError, match="no histories are kept"):
        run_history("acme/1", console_config(path, serves=False), as_json=False)
