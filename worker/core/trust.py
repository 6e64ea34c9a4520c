"""Whom we believe: records of what providers and operators say carry a MAC under a secret that shops do not have.

Whoever may write to the event topic could otherwise approve a payment. The MAC covers key and value, but no header: so
only structured mode is believed, where the value says it all.
"""

import hmac
from collections.abc import Sequence

from worker.errors import MalformedEventError

HEADER = "x-cartsync-mac"
GUARDED = ("provider.", "operator.")
"""What types that have to be believed begin with."""


class Trust:
    """The secrets of `[callbacks] record_secrets`: the first one signs, all are accepted. None: nothing is believed."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._keyed = [hmac.new(secret.encode(), digestmod="sha256") for secret in secrets]

    @property
    def can_sign(self) -> bool:
        """Whether there is a secret."""
        return bool(self._keyed)

    def sign(self, key: bytes, value: bytes) -> bytes:
        """The content of the header `HEADER` of a record: a MAC as hexadecimal digits. There must be a secret."""
        return _mac(self._keyed[0], key, value)

    def check(self, key: bytes, value: bytes, given: bytes | None) -> None:
        """Raises `MalformedEventError` unless this is what one of the secrets makes of the record."""
        if not self._keyed:
            raise not_trusted("expected [callbacks] record_secrets to check it by, got none")
        if given is None:
            raise not_trusted("expected a header with the MAC of key and value, got nothing")
        # All of them, and each to its end: how long it takes tells nothing.
        if not sum([hmac.compare_digest(given.lower(), _mac(keyed, key, value)) for keyed in self._keyed]):
            raise not_trusted("expected the MAC of key and value under one of [callbacks] record_secrets, got another")


def _mac(keyed: hmac.HMAC, key: bytes, value: bytes) -> bytes:
    mac = keyed.copy()
    mac.update(key)
    mac.update(b"\0")
    mac.update(value)
    return mac.hexdigest().encode()


def not_trusted(detail: str, path: str = HEADER) -> MalformedEventError:
    """The refusal of a record that is not believed."""
    return MalformedEventError("not_trusted", f"{path}: {detail}")
