"""The envelope of every event, whether a shop or a provider's receiver writes it (`CONTRACT.md` section 1)."""

from typing import Literal

from msgspec import Struct

from schemas.base import NonEmpty, Sequence, Subject, Time, TraceParent


class Data(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True):
    """The base of every event's `data`. Unknown members are refused: a misspelled one must not go unnoticed."""


class Envelope(Struct, tag_field="type", omit_defaults=True, frozen=True, kw_only=True):
    """CloudEvents 1.0 attributes; extension attributes that we do not know are ignored."""

    specversion: Literal["1.0"]
    id: NonEmpty
    """With `source` it identifies the event: a repetition changes nothing."""
    source: NonEmpty
    """Where the event comes from: a shop, a system."""
    time: Time
    """When it happened in the shop; at most 24 h ahead of the record's own timestamp, if it has one."""
    subject: Subject
    sequence: Sequence | None = None
    traceparent: TraceParent | None = None
    origin: str | None = None
    """The system where the change was made; a provider's name if it was made there."""
