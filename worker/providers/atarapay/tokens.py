"""AtaraPay's tokens: the account's keys in Base64, which anyone can decode. So neither tokens nor keys are ever shown.

Source: plugins.atarapay.com/docs, pages `authtoken` and `validation` (read 2026-10). The token that the page
`validation` prints lacks order and amount; it is the authtoken.
"""

import re
from base64 import b64decode, b64encode
from functools import lru_cache
from urllib.parse import quote

from worker.providers.atarapay.options import AtaraPayAccount

_HIDDEN = "***"
_RUN = re.compile(r"[A-Za-z0-9+/_-]{12,}")
"""What may be Base64 of either alphabet; anything shorter cannot contain a key."""


@lru_cache(maxsize=1_024)
def authtoken(public_key: str, private_key: str) -> str:
    """The token of every call."""
    return b64encode(f"{public_key}:{private_key}".encode()).decode()


def notification_token(public_key: str, private_key: str, order: str, amount: str) -> str:
    """The token of a notification; `order` and `amount` (`data.id`, `data.amount_payed`) as the JSON has them."""
    return b64encode(f"{public_key}:{private_key}:{order}:{amount}".encode()).decode()


def redacted(text: str, account: AtaraPayAccount) -> str:
    """The text without the account's keys: plain, percent-encoded, or in Base64 as in any token."""
    keys = (account.private_key, account.public_key)
    for key in keys:
        text = text.replace(key, _HIDDEN).replace(quote(key, safe=""), _HIDDEN)
    secrets = [key.encode() for key in keys]
    return _RUN.sub(lambda run: _HIDDEN if _contains_any(run[0], secrets) else run[0], text)


def _contains_any(run: str, secrets: list[bytes]) -> bool:
    """Whether a Base64 text contains one of these, at any position."""
    plain = run.replace("-", "+").replace("_", "/")
    for start in range(4):
        decoded = b64decode(plain[start : start + (len(plain) - start) // 4 * 4])
        if any(secret in decoded or _ends_within(decoded, secret) for secret in secrets):
            return True
    return False


def _ends_within(decoded: bytes, secret: bytes) -> bool:
    """The last group of a token may be cut, and with it the end of the key; the rest is still secret."""
    return len(secret) > 8 and secret[:-2] in decoded
