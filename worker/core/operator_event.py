"""An operator event as it is written to the event topic. Pure."""

from typing import Any

import msgspec

from schemas.base import time_text
from worker.core.commands import Command
from worker.core.intake import decode, uid_of
from worker.core.placing import Placing
from worker.core.trust import HEADER, Trust
from worker.errors import MalformedEventError, UsageError

SOURCE = "/cartsync/operator"
_CONTENT_TYPE = ("content-type", b"application/cloudevents+json")
_encode = msgspec.json.Encoder().encode

WITHOUT_SECRETS = (
    "operators' events need [callbacks] record_secrets, by which workers believe them: set the same ones "
    "(`openssl rand -hex 32`) for all workers, the receiver and this command"
)


class Written(msgspec.Struct, frozen=True):
    """A record of it: key, value and headers."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    uid: bytes
    """What stands for the event in `schemas.state.Operated`."""


def operator_event(
    command: Command,
    target: str,
    *,
    event_id: str,
    by: str,
    why: str,
    now_ms: int,
    trust: Trust,
    placing: Placing | None,
) -> Written:
    """`target`: the order, or the account. `event_id`: the same again changes nothing. `placing`: how the shop chooses
    keys, if that is checked. Raises `UsageError`, also for a reason that is missing or too long.
    """
    if not trust.can_sign:
        raise UsageError(WITHOUT_SECRETS)
    data: dict[str, Any] = {"by": by}
    if why:
        data["why"] = why
    value = _encode(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": SOURCE,
            "type": f"operator.{command.name}",
            "time": time_text(now_ms * 1000),
            "subject": target,
            "data": data,
        }
    )
    key = target.encode() if placing is None or command.about == "account" else placing.key_of(target)
    mac = trust.sign(key, value)
    try:  # what no worker would take is not written
        decode(key, value, {HEADER: mac}, 0, trust=trust)
    except MalformedEventError as error:
        raise UsageError(error.detail.removeprefix("$.data.").removeprefix("$.")) from None
    return Written(key, value, [_CONTENT_TYPE, (HEADER, mac)], uid_of(SOURCE, event_id))
