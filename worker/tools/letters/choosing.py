"""Which dead letters are meant: `--filter NAME=VALUE`, all of them together. Pure."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import get_args

from msgspec import Struct
from msgspec.structs import replace

from schemas.base import DeadLetterReason
from schemas.console import LetterRow
from worker.errors import UsageError
from worker.model.order import account_of
from worker.web.console.asked import seconds_of

_REASONS: tuple[str, ...] = get_args(DeadLetterReason)
_HANDLED = ("no", "yes", "replayed", "mended", "dismissed")
NAMES = ("reason", "account", "order", "type", "detail", "source", "older", "newer", "handled")


class Choice(Struct, frozen=True):
    """Empty members: all."""

    reason: str = ""
    account: str = ""
    order: str = ""
    """`account/reference`."""
    type: str = ""
    """Of the event; `*` stands for anything."""
    detail: str = ""
    """Is somewhere in what was expected."""
    source: str = ""
    """What `topic/partition/offset` of the refused record begins with."""
    older_s: float = 0.0
    newer_s: float = 0.0
    handled: str = ""
    """`no`, `yes`, or how it was dealt with."""

    def takes(self, row: LetterRow, now_ms: int) -> bool:
        """Whether a letter is meant."""
        age_s = (now_ms - row.at_ms) / 1000
        return (
            self.reason in ("", row.reason)
            and (not self.account or account_of(row.subject) == self.account)
            and self.order in ("", row.subject)
            and (not self.type or fnmatchcase(row.type, self.type))
            and self.detail.lower() in row.detail.lower()
            and row.source.startswith(self.source)
            and age_s >= self.older_s
            and (not self.newer_s or age_s <= self.newer_s)
            and self.handled in ("", row.handled, "yes" if row.handled else "no")
        )


def choice_of(filters: Sequence[str], *, handled: str = "") -> Choice:
    """What `NAME=VALUE` say together. `handled`: where they do not say. Raises `UsageError`."""
    choice = Choice(handled=handled)
    for text in filters:
        name, equals, value = text.partition("=")
        if not equals or name not in NAMES or not value:
            raise UsageError(f"--filter {text}: expected NAME=VALUE, with one of {', '.join(NAMES)}")
        if name == "reason" and value not in _REASONS:
            raise UsageError(f"--filter {text}: there is no such reason; expected one of {', '.join(_REASONS)}")
        if name == "handled" and value not in _HANDLED:
            raise UsageError(f"--filter {text}: expected one of {', '.join(_HANDLED)}")
        if name in ("older", "newer"):
            choice = replace(choice, **{f"{name}_s": seconds_of(value, f"--filter {name}")})
        else:
            choice = replace(choice, **{name: value})
    return choice
