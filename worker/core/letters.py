"""Dead letters as they are read again: the record that was refused, and whether somebody has dealt with it. Pure.

A letter that was dealt with has a marker behind it in its own partition: a record without a value whose headers name
the letter. It is written in the transaction that writes the event again, so there is a marker just when there is the
event; and it is younger than its letter, so retention takes the letter first. The event itself says in a header which
letter it came from.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from worker.errors import UsageError

PREFIX = "x-dlq-"
"""Of the headers that a letter adds to those of the record."""
REPLAYED_FROM = "x-cartsync-replayed-from"
"""Of an event that was written again: `topic/partition/offset` of its letter."""

_HANDLED, _LETTER, _TO, _BY, _WHY = (PREFIX + name for name in ("handled", "letter", "to", "by", "why"))
_REASON = PREFIX + "reason"
_OFFSET = re.compile(r"[0-9]{1,18}")
_TYPE_HEADER = "ce_type"

Handling = Literal["replayed", "mended", "dismissed"]
"""What somebody did with a letter."""
_HANDLINGS: dict[str, Handling] = {"replayed": "replayed", "mended": "mended", "dismissed": "dismissed"}

Headers = Sequence[tuple[str, bytes | None]]


class Marker(Struct, frozen=True):
    """Says that a letter of the same partition was dealt with."""

    offset: int
    """Of the letter."""
    handling: Handling
    by: str = ""
    to: str = ""
    """`topic/partition/offset` of the event that was written; empty: none was."""
    why: str = ""


def read_marker(headers: Headers) -> Marker | None:
    """`None`: the record is a letter, or something else."""
    said = {name: (content or b"").decode(errors="replace") for name, content in headers}
    handling = _HANDLINGS.get(said.get(_HANDLED, ""))
    if handling is None or not _OFFSET.fullmatch(said.get(_LETTER, "")):
        return None
    return Marker(int(said[_LETTER]), handling, said.get(_BY, ""), said.get(_TO, ""), said.get(_WHY, ""))


def marker_headers(marker: Marker) -> list[tuple[str, bytes]]:
    """What `read_marker` reads."""
    named = (_HANDLED, marker.handling), (_LETTER, str(marker.offset)), (_BY, marker.by), (_TO, marker.to)
    texts = *named, (_WHY, marker.why)
    return [(name, text.encode("utf-8", "backslashreplace")) for name, text in texts if text]


class Doing(Struct, frozen=True):
    """What a person may do with a letter in the console; a row of `DOINGS`."""

    name: str
    """The verb, as on the command line."""
    handling: Handling
    button: str
    what: str
    """What it does, in a sentence: for who is about to do it."""
    needs_why: bool = False
    """Nobody may do it without a reason."""
    of_many: bool = False
    """It is done to all letters that match, too."""
    about: Literal["letter"] = "letter"


DOINGS: Mapping[str, Doing] = {
    each.name: each
    for each in (
        Doing(
            "replay",
            "replayed",
            "Replay",
            "The event is written to the event topic again, as it is, once. For events that were not wrong themselves: "
            "a secret, a partitioner or a limit was, and is right now. Those that workers would refuse again are left.",
            of_many=True,
        ),
        Doing(
            "mend",
            "mended",
            "Mend and replay",
            "The event is written to the event topic as you have mended it, once, if workers would take it.",
        ),
        Doing(
            "dismiss",
            "dismissed",
            "Dismiss",
            "The letter is marked as dealt with, and its event is not written again. For events that are not needed "
            "any more.",
            needs_why=True,
        ),
    )
}
"""By name."""


class Refused(Struct, frozen=True):
    """The record that a letter holds, and where it was refused."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    """The record's own."""
    topic: str
    partition: int
    """Where it was refused; -1: the letter does not say."""
    offset: int
    why_not: str
    """Why it cannot be written again as it is; empty: it can."""

    @property
    def is_binary(self) -> bool:
        """Whether the event's attributes are headers, and the value is its data alone."""
        return any(name == "ce_specversion" for name, _ in self.headers)

    @property
    def type_in_headers(self) -> str:
        """Of an event in binary mode; empty: they have none."""
        return next((content.decode(errors="replace") for name, content in self.headers if name == _TYPE_HEADER), "")


def refused_record(key: bytes | None, value: bytes | None, headers: Headers) -> Refused:
    """What is in a letter. Raises `UsageError` when the record is none."""
    names = [name for name, _ in headers]
    if _REASON not in names:
        raise UsageError("this record is not a dead letter of cartsync")
    first = len(names) - 1 - names[::-1].index(_REASON)  # the reason comes first of what a letter adds
    said = {name: (content or b"").decode(errors="replace") for name, content in headers[first:]}
    own = [(name, content) for name, content in headers[:first] if content is not None and name != REPLAYED_FROM]
    why_not = ""
    if PREFIX + "content" in said:
        why_not = "it stands for a batch that could not be decoded, whose records are not in it"
    elif PREFIX + "truncated" in said:
        why_not = f"a part of the record had to be left out of the letter ({said[PREFIX + 'truncated']})"
    return Refused(
        key,
        value,
        own,
        said.get(PREFIX + "topic", ""),
        _number(said.get(PREFIX + "partition", "")),
        _number(said.get(PREFIX + "offset", "")),
        why_not,
    )


def _number(text: str) -> int:
    return int(text) if _OFFSET.fullmatch(text) else -1
