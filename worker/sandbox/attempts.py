"""Requests that a sandbox was sent, and its answers."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

JSON = "application/json"


class Call(NamedTuple):
    """A request as it came."""

    method: str
    raw_path: str
    """As it stood in the request line."""
    headers: Mapping[str, str]
    """Found by their names in any case of letters."""
    body: bytes


class Attempt(msgspec.Struct, gc=False):
    """One request to the provider that was received."""

    number: int
    """From 1, in order of arrival."""
    received_at: datetime
    raw_path: str
    merchant: str | None
    order_ref: str | None
    """Decoded; None, like `merchant`, when it is not about an order."""
    idempotency_key: str | None
    body_digest: str
    """BLAKE2b of the body, 8 bytes in hex: tells bodies apart, protects nothing."""
    fault: str | None = None
    """Its kind, when it met one."""
    status: int | None = None
    """None until answered, and for good when there was no answer."""
    applied_at: datetime | None = None
    """When it changed something. May be after `ended_at`: that is what `late_applied` is for."""
    ended_at: datetime | None = None
    """When it was answered, dropped, or given up by the client."""
    what: str = ""
    """What was asked for, where the path does not say it."""

    @property
    def applied(self) -> bool:
        """Whether it changed something (which may have been replaced since)."""
        return self.applied_at is not None


class Asked(NamedTuple):
    """What a shop answered to a question."""

    status: int | None
    """None: nothing."""
    body: bytes
    seconds: float
    problem: str
    """Why the provider could not use it; empty: it could."""


class Answer(NamedTuple):
    """A response before it is one."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    retry_after_s: float | None = None
