"""Every error of ours, and whose fault it is.

    CartsyncError
    ├── ConfigError            the operator's: a setting is missing, wrong, or breaks a rule with another one
    ├── MalformedEventError    the shop's: a record that the input contract refuses
    ├── UsageError             the caller's: a file that cannot be read, a word that means nothing
    ├── TopicError             the cluster's: a topic is missing or not as the protocol needs it
    ├── DamagedStateError      whoever's that wrote to the state topic: a record there is none of ours
    ├── TwoOwnersError         the deployment's: another worker takes partitions that the group has given to us
    ├── LogError               the cluster's: the log did not do what was asked
    │   ├── FencedError        another owner of the partition, or a transaction of ours that took too long
    │   ├── SizeRefusedError   the cluster takes no record or batch of this size
    │   └── GapError           the input does not reach back to where the state ends
    └── InvariantError         ours: the worker must stop

Each has the exit code of a process that ends with it. What a provider answers is never an error but an `Outcome`.
"""

from collections.abc import Iterable, Mapping

EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "a difference was found",
    2: "usage, or a file that cannot be read",
    64: "configuration",
    70: "stuck, or a defect",
    71: "another deployment takes the same partitions",
    72: "topics",
    75: "try again later",
    130: "interrupted (Ctrl-C): what was printed is a part",
    143: "not left in order (a second SIGTERM, or no more time)",
}
"""Of the program: the one list of them."""

INTERRUPTED = 130
"""As shells have it: 128 and the number of SIGINT."""


def exit_codes() -> str:
    """The list as help and manual say it."""
    return "Exit codes: " + ", ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."


class CartsyncError(Exception):
    """The base of all of them."""

    exit_code = 75
    """It may work later; the other codes stand with their errors."""


class ConfigError(CartsyncError):
    """A setting is missing, wrong, or breaks a rule with another one. Says which, and what to write."""

    exit_code = 64


class MalformedEventError(CartsyncError):
    """A record that the input contract refuses (`CONTRACT.md` section 4).

    `reason` is one of the contract's words; `detail` a path and what was expected there, never a text of the event.
    """

    exit_code = 2

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class UsageError(CartsyncError):
    """A file that cannot be read, or words that mean nothing here."""

    exit_code = 2


class TopicError(CartsyncError):
    """A topic is missing or is not as the protocol needs it. Says which, and how to mend it."""

    exit_code = 72


class DamagedStateError(CartsyncError):
    """A record of a state partition is none that we wrote: its orders are not served. Says where it is.

    `is_position`: only how far the input was taken is not known, so an operator can say it. `order`: whose record it
    is; that is for a field of its own, since the text is shown to whoever asks whether the worker is ready.
    """

    exit_code = 72

    def __init__(self, message: str, *, is_position: bool = False, order: str = "") -> None:
        super().__init__(message)
        self.is_position = is_position
        self.order = order


class TwoOwnersError(CartsyncError):
    """Another worker takes over partitions that the group has given to us, again and again. Says which worker."""

    exit_code = 71


class LogError(CartsyncError):
    """The log did not do what was asked; the actor is closed and starts anew."""


class FencedError(LogError):
    """Another owner of the partition has taken over, or a transaction of ours took too long."""


class SizeRefusedError(LogError):
    """The cluster refuses a transaction because of the size of a record or a batch."""


class GapError(LogError):
    """The input does not reach back to where the state ends: events are missing. Says of which partitions."""

    def __init__(self, message: str, partitions: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.partitions = frozenset(partitions)


class InvariantError(CartsyncError):
    """Something that cannot be has happened: a defect of ours."""

    exit_code = 70
