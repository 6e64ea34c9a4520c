"""What the receiver writes, as the workers take it."""

import json
from typing import Any

from worker.core.intake import decode
from worker.core.trust import HEADER, Trust
from worker.model.callbacks import Called, Said
from worker.providers.callbacks import cloud_event

_TRUST = Trust(["record-secret-0123456789-0123456789"])


def taken(called: Called, said: Said) -> dict[str, Any]:
    """The event that is written of a call. Fails when a worker would refuse it, or skip it."""
    subject, value = cloud_event(called, said)
    key = subject.encode()
    headers = {"content-type": b"application/cloudevents+json", HEADER: _TRUST.sign(key, value)}
    event = decode(key, value, headers, called.arrived_ms, trust=_TRUST)
    assert event is not None
    assert event.subject == subject
    found: dict[str, Any] = json.loads(value)
    assert event.id == found["id"]
    return found
