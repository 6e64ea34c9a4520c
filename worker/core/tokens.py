"""Callback addresses: who may tell us something about which order. Pure.

    /callbacks/<account>/<purpose>/<token>/<reference>     about one order; each part is one percent-encoded segment
    /callbacks/<account>/<purpose>/<token>                 a provider that knows one address for each seller
    /callbacks/<account>/<purpose>                         the token stands in the body

The token is a MAC of account, purpose and reference, so that a leaked address is good for one order and one purpose.
What it does not prove is what the body says.
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from urllib.parse import quote, unquote_to_bytes

from msgspec import Struct

ROOT = "/callbacks/"
PATH_MAX = 4_096
"""Characters of a path: an account and a reference of the greatest length, every character of four encoded bytes."""
_SEGMENTS = (2, 3, 4)


class Tokens:
    """The secrets of an account's `callback_secrets`: the first one signs, all are accepted."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keyed = [hmac.new(secret.encode(), digestmod="sha256") for secret in secrets]

    def token(self, account: str, purpose: str, reference: str = "") -> str:
        """The token of an address. There must be a secret."""
        return _token(self._keyed[0], account, purpose, reference).decode()

    def which(self, given: str, account: str, purpose: str, reference: str = "") -> int | None:
        """By which of the secrets a token is right, the signing one being 0; `None`: by none of them.

        Every secret is tried, and each to its end: how long it takes tells nothing.
        """
        as_bytes = given.encode()  # as bytes: texts that are not ASCII cannot be compared so
        found = None
        for number, keyed in enumerate(self._keyed):
            if hmac.compare_digest(as_bytes, _token(keyed, account, purpose, reference)):
                found = number
        return found


def _token(keyed: hmac.HMAC, account: str, purpose: str, reference: str) -> bytes:
    mac = keyed.copy()
    mac.update(f"{account}\n{purpose}\n{reference}".encode())
    return urlsafe_b64encode(mac.digest()).rstrip(b"=")


class Address(Struct, frozen=True, gc=False):
    """What the path of a callback says."""

    account: str
    purpose: str
    token: str | None = None
    """`None`: it stands in the body."""
    reference: str = ""
    """Of the order; empty: the address is that of a seller."""

    def path(self) -> str:
        """As providers are to call it."""
        parts = [self.account, self.purpose]
        parts += [] if self.token is None else [self.token]
        parts += [self.reference] if self.reference else []
        return ROOT + "/".join(quote(part, safe="") for part in parts)


def read_path(raw: str) -> Address | None:
    """The address of a path as it came, each segment decoded once; `None`: it is none.

    Nothing is mended: no slash at the end, no query, no segment that is not UTF-8.
    """
    if len(raw) > PATH_MAX or not raw.startswith(ROOT) or not raw.isascii() or "?" in raw or "#" in raw:
        return None
    segments = raw[len(ROOT) :].split("/")
    if len(segments) not in _SEGMENTS or not all(segments):
        return None
    try:
        return Address(*[unquote_to_bytes(each).decode() if "%" in each else each for each in segments])
    except UnicodeDecodeError:
        return None
