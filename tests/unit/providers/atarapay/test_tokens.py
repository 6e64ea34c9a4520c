"""AtaraPay's tokens, and that neither they nor the keys in them are ever shown."""

from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from msgspec.structs import replace

from tests.unit.providers.atarapay.reported import ACCOUNT, PRIVATE, PUBLIC
from worker.providers.atarapay.tokens import authtoken, notification_token, redacted

AUTHTOKEN = "YjhrUDdBMWU2N3MwamMzaDk4VDhwSDcxZHE2NkowczM6UEtwNnozalRjTGVRTmMxaDN1OWUwZmZYNzdOWTkxYWRFMTI="


@pytest.mark.parametrize("expected", [AUTHTOKEN], ids=["C44"])
def test_authtoken(expected: str) -> None:
    """The documentation's own keys and token (page `authtoken`)."""
    assert authtoken(PUBLIC, PRIVATE) == expected


@pytest.mark.parametrize(
    ("order", "amount", "end"),
    [("3021", "6051900", "MzAyMTo2MDUxOTAw"), ("3029", "450000", "MzAyOTo0NTAwMDA=")],
    ids=["C45", "C45-second"],
)
def test_notification_token(order: str, amount: str, end: str) -> None:
    """With order and amount as the JSON prints them; what the page `validation` shows is only the authtoken."""
    found = notification_token(PUBLIC, PRIVATE, order, amount)
    assert found == AUTHTOKEN.removesuffix("=") + "6" + end
    assert found != AUTHTOKEN


TOKEN = notification_token(PUBLIC, PRIVATE, "3021", "6051900")
LEAKS = {
    "authtoken": AUTHTOKEN,
    "authtoken in a form": f"authtoken={quote(AUTHTOKEN, safe='')}&order=1",
    "notification": TOKEN,
    "keys": f"{PUBLIC}:{PRIVATE}",
    "public": PUBLIC,
    "private": f"key {PRIVATE}!",
    "private in Base64": b64encode(PRIVATE.encode()).decode(),
    "both, the other way round": b64encode(f"{PRIVATE} {PUBLIC}".encode()).decode(),
    "within another text": b64encode(f"x{PUBLIC}:{PRIVATE}".encode()).decode(),
    "behind letters": "abc" + AUTHTOKEN,
    "for addresses": urlsafe_b64encode(f"???>>>{PRIVATE}".encode()).decode(),
    "cut": b64encode(PRIVATE.encode()).decode().rstrip("="),
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=[f"C54-{name}" for name in LEAKS])
def test_redacted(leak: str) -> None:
    """However the keys stand in a text, nothing of them is left."""
    found = redacted(f"before {leak} after", ACCOUNT)
    assert found.startswith("before ")
    assert found.endswith(" after")
    assert "***" in found
    for secret in (PUBLIC, PRIVATE, AUTHTOKEN[:40], b64encode(PRIVATE.encode()).decode()[:40]):
        assert secret not in found


def test_redacted_percent_encoded() -> None:
    """Keys with signs that a form encodes."""
    account = replace(ACCOUNT, private_key="k/+ y=&z-0123")
    assert redacted("a=k%2F%2B%20y%3D%26z-0123", account) == "a=***"


@pytest.mark.parametrize("text", ["The refund window for this order has passed.", "3021 " * 40, "A" * 300, ""])
def test_other_texts_stay(text: str) -> None:
    """Words and numbers are no tokens."""
    assert redacted(text, ACCOUNT) == text
