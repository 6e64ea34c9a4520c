"""What `cartsync account list` says of an account: from its settings, and from the records of the state topic."""

from msgspec.structs import replace

from schemas import state
from schemas.state import AccountRecord, Operated
from worker.config import account_from
from worker.tools.accounts_list import Found, texts_of

NOW_MS = 1_800_000_000_000
ACCOUNT = account_from(
    "acme",
    {
        "provider": "sequra",
        "merchant_id": "M1",
        "username": "u",
        "password": "what nobody sees",
        "base_url": "https://live.example.org:8443/api",
        "delivery": "report",
        "concurrency": 7,
    },
)


def paused(by: str, at_ms: int, why: str = "") -> bytes:
    """A record."""
    deed = Operated("pause", by, why, at_ms, True, "paused", b"12345678")
    return state.encode(AccountRecord(1, deed, (deed,)))


def test_settings_and_orders() -> None:
    """Of its address the host; nothing secret."""
    found = Found()
    for status in ("owed", "owed", "parked", "settled"):
        found.order("acme", status)
    line = found.line("acme", "sequra", ACCOUNT, partitions=2, with_orders=True)
    assert (line.host, line.merchant, line.delivery, line.concurrency) == ("live.example.org:8443", "M1", "report", 7)
    assert (line.owed, line.parked, line.paused_by, line.paused_since_ms) == (2, 1, None, None)
    head, row = texts_of([line], NOW_MS)
    assert row.split() == ["acme", "sequra", "live.example.org:8443", "M1", "report", "7", "2", "1"]
    assert head.split()[-1] == "paused"
    bare = found.line("acme", "sequra", None, partitions=2, with_orders=False)
    assert (bare.host, bare.concurrency, bare.owed, bare.parked) == (None, None, None, None)
    assert texts_of([], NOW_MS) == ["no account is configured: see [accounts.NAME] in the manual"]


def test_address_with_credentials() -> None:
    """They are not shown."""
    account = replace(account_from("hats", {"provider": "qliro"}, scenario=True), base_url="https://u:p@x.example/a")
    line = Found().line("hats", "qliro", account, partitions=1, with_orders=True)
    assert (line.host, line.delivery) == ("x.example", "update")


def test_pauses() -> None:
    """By whom last, since when, and where it was not taken yet; the newest record of a partition counts."""
    found = Found()
    found.note(0, b"a:acme", paused("ana", NOW_MS - 120_000, "maintenance"))
    found.note(0, b"o:acme/1", b"an order")
    found.note(1, b"a:acme", b"what nobody wrote")
    line = found.line("acme", None, None, partitions=2, with_orders=False)
    assert (line.paused_by, line.paused_why, line.paused_since_ms) == ("ana", "maintenance", NOW_MS - 120_000)
    assert line.not_paused_in == [1]
    (text,) = texts_of([line], NOW_MS)[1:]
    assert text.endswith("by ana, 2 min ago: maintenance (but not in partition 1)")
    assert "not configured" in text
    found.note(1, b"a:acme", paused("ben", NOW_MS - 60_000))
    line = found.line("acme", None, None, partitions=2, with_orders=False)
    assert (line.paused_by, line.paused_why, line.paused_since_ms) == ("ben", "", NOW_MS - 120_000)
    assert line.not_paused_in == []
    for partition, value in ((0, state.encode(AccountRecord(1))), (1, None)):
        found.note(partition, b"a:acme", value)
    assert found.line("acme", None, None, partitions=2, with_orders=False).paused_by is None
    assert found.names == {"acme"}
