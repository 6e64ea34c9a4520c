"""Every cartsync error, and whose fault it is.

    CartsyncError
    ├── ConfigError            the operator's: a setting is missing, invalid, or conflicts with another one
    ├── MalformedEventError    the shop's: a record violates the input contract
    ├── UsageError             the caller's: an unreadable file or an invalid argument
    ├── TopicError             the cluster's: a topic is missing or unusable for the protocol
    ├── DamagedStateError      someone else wrote to the state topic: a record in it is not one of ours
    ├── TwoOwnersError         the deployment's: another worker keeps taking over partitions assigned to us
    ├── LogError               the cluster's: a read or write of the log failed
    │   ├── FencedError        another owner took the partition over, or our transaction timed out
    │   ├── SizeRefusedError   a record or batch is larger than the cluster accepts
    │   ├── GapError           the input no longer reaches back to where the state ends
    │   └── StoreError         the disk's: the copy of the state on it cannot be read, or does not fit
    └── InvariantError         ours: a bug; the worker must stop

Each has the exit code of a process that ends with it. A provider's response is never an error but an `Outcome`.
"""

from collections.abc import Iterable, Mapping

from schemas.base import DeadLetterReason

EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "a difference was found",
    2: "usage, or an unreadable file",
    64: "configuration",
    70: "event loop stuck, or a bug",
    71: "another deployment owns the same partitions",
    72: "topics",
    75: "try again later",
    130: "interrupted (Ctrl-C): the output is incomplete",
    143: "not drained (a second SIGTERM, or out of time)",
}
"""The program's exit codes, listed only here."""

INTERRUPTED = 130
"""As shells have it: 128 and the number of SIGINT."""


def exit_codes() -> str:
    """The list as the help and the manual print it."""
    return "Exit codes: " + ", ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."


class CartsyncError(Exception):
    """The base of all cartsync errors."""

    exit_code = 75
    """A retry may work. Subclasses override it."""


class ConfigError(CartsyncError):
    """A setting is missing, invalid, or conflicts with another one. Says which, and what to write."""

    exit_code = 64


class MalformedEventError(CartsyncError):
    """A record violates the input contract (`CONTRACT.md` section 4).

    `reason` is one of the contract's reasons; `detail` a path and what was expected there, never text from the event.
    """

    exit_code = 2

    def __init__(self, reason: DeadLetterReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class UsageError(CartsyncError):
    """Invalid usage: an unreadable file or an invalid argument."""

    exit_code = 2


class TopicError(CartsyncError):
    """A topic is missing, or its settings break the protocol. Says which topic, and how to fix it."""

    exit_code = 72


class DamagedStateError(CartsyncError):
    """A record of a state partition is not one of ours, so its orders are not served. Says where it is.

    `is_position`: only the input position is damaged, so an operator can set it. `order`: the order that the record
    belongs to; kept out of the message, which `/readyz` shows to everybody.
    """

    exit_code = 72

    def __init__(self, message: str, *, is_position: bool = False, order: str = "") -> None:
        super().__init__(message)
        self.is_position = is_position
        self.order = order


class TwoOwnersError(CartsyncError):
    """Another worker keeps taking over partitions that the group has assigned to us. Says which worker."""

    exit_code = 71


class LogError(CartsyncError):
    """A read or write of the log failed; the actor is closed and a new one starts."""


class FencedError(LogError):
    """Another owner has taken over the partition, or our transaction timed out."""


class SizeRefusedError(LogError):
    """The cluster rejects a transaction because a record or batch is too large."""


class GapError(LogError):
    """The input no longer reaches back to where the state ends: events are missing. Says in which partitions."""

    def __init__(self, message: str, partitions: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.partitions = frozenset(partitions)


class StoreError(LogError):
    """The copy of a state partition on the local disk failed, or turned out not to fit: the partition is restored from
    Kafka.
    """


class InvariantError(CartsyncError):
    """An invariant was violated: a bug in cartsync."""

    exit_code = 70
