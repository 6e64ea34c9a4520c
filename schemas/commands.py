"""What commands print with `--json`, where it is not one of the views: `schemas/json/command.<name>.json`.

A list is printed as JSON lines, one object each, and the schema is that of a line. An error is one object, too, on
standard output: `Refused`.
"""

from collections.abc import Mapping

from msgspec import Struct

from schemas.console import LetterRow, LetterView, OrderRow


class Refused(Struct, frozen=True):
    """Why a command has not done what it was asked."""

    ok: bool
    """False."""
    problems: list[str]
    """What is wrong, and what to do; at least one."""
    exit_code: int
    """That of the process."""


class ReplayedLetter(Struct, frozen=True):
    """What became of a dead letter that was to be replayed."""

    letter: str
    """`partition/offset` in the dead-letter topic."""
    subject: str
    """The order; empty: it cannot be told. What may be personal is `•••`."""
    type: str
    """Of the event."""
    done: bool
    """It was written to the event topic, or would be (`--dry-run`)."""
    detail: str
    """Why not; of one that was written, empty."""
    to: str = ""
    """`topic/partition/offset` of the event that was written; without an offset when nothing is written."""


PRINTED: Mapping[str, type[Struct]] = {
    "error": Refused,
    "orders_list": OrderRow,
    "dlq_list": LetterRow,
    "dlq_show": LetterView,
    "dlq_replay": ReplayedLetter,
}
"""By the name of the schema."""
