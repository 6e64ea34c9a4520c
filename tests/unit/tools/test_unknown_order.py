"""What is said of an order that there is not."""

import pytest

from worker.tools.unknown_order import words

ACCOUNTS = {"acme": "sequra", "hats": "qliro"}


@pytest.mark.parametrize(
    ("ref", "refused", "expected"),
    [
        (
            "garbage",
            {},
            "; an order is named account/reference; `cartsync orders list --reference garbage` lists those",
        ),
        ("nope/x", {}, "; account nope is not configured, configured are: acme, hats; `cartsync orders list"),
        ("acme/x", {}, "; `cartsync orders list --reference acme/x` lists those that begin so"),
        ("acme/x", {"acme/x": 1}, "; 1 event of acme/x was refused: `cartsync dlq list --filter order=acme/x`"),
        (
            "x",
            {"hats/x": 2, "acme/x": 1},
            "; 1 event of acme/x was refused: `cartsync dlq list --filter order=acme/x`; 2 events of hats/x were refused",
        ),
        ("\x1b[2J", {}, "--reference \\x1b[2J`"),
    ],
)
def test_words(ref: str, refused: dict[str, int], expected: str) -> None:
    """Why that may be, and which command goes on."""
    assert expected in words(ref, refused, ACCOUNTS)


def test_without_accounts() -> None:
    """Nothing is said of accounts that nobody configured."""
    assert "configured" not in words("nope/x", {}, {})
