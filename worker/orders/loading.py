"""The orders' records of a partition, as a restore reads them from the state topic."""

from collections.abc import Mapping

from msgspec import MsgspecError, Struct

from schemas import state
from schemas.state import Target
from worker.ownership.restore import damaged
from worker.ports import OrderTable, StateEntry

_ORDER_PREFIX = state.ORDER_PREFIX.encode()
_BESIDE_ORDERS = {
    state.JOB_PREFIX.encode(): "jobs",
    state.CLOSED_PREFIX.encode(): "closed",
    state.ACCOUNT_PREFIX.encode(): "accounts",
}
"""Which member of `Kept` holds the records whose key begins so."""


class Kept(Struct):
    """What is left of the orders of a partition that was ours."""

    table: OrderTable
    targets: dict[str, Target] = {}
    """Whom the accounts sent to."""
    jobs: dict[str, bytes] = {}
    """What jobs have kept, by key."""
    closed: dict[str, bytes] = {}
    """What is remembered of closed orders, by key."""
    accounts: dict[str, bytes] = {}
    """What operators did to accounts, by key."""


def kept_of(table: OrderTable, notes: Mapping[bytes, bytes]) -> Kept:
    """What is kept when only the records beside the orders are left of it. Raises `MsgspecError`."""
    targets = state.decode_targets(notes[state.TARGETS_KEY]).targets if state.TARGETS_KEY in notes else {}
    found: dict[str, dict[str, bytes]] = {member: {} for member in _BESIDE_ORDERS.values()}
    for key, value in notes.items():
        member = _member_of(key)
        if member is not None:
            found[member][key.decode()] = value
    return Kept(table, targets, **found)


def _member_of(key: bytes) -> str | None:
    return next((member for prefix, member in _BESIDE_ORDERS.items() if key.startswith(prefix)), None)


class Loading:
    """What the records come to, on top of what was kept."""

    def __init__(self, partition: int, kept: Kept) -> None:
        self.jobs = dict(kept.jobs)
        self.closed = dict(kept.closed)
        self.accounts = dict(kept.accounts)
        self._table = kept.table
        self._partition = partition
        self._known_targets = kept.targets
        self._nameless: dict[bytes, tuple[StateEntry, UnicodeDecodeError]] = {}
        """Orders whose name is not UTF-8."""
        self._targets: StateEntry | None = None

    def load(self, entry: StateEntry) -> bool:
        """Takes the next record; False: it is none of ours."""
        key, value = entry.key, entry.value
        if key.startswith(_ORDER_PREFIX):
            try:
                subject = key[len(_ORDER_PREFIX) :].decode()
            except UnicodeDecodeError as error:
                self._nameless.pop(key, None)
                if value is not None:
                    self._nameless[key] = entry, error
                return True
            if value is None:
                self._table.delete(subject)
            else:
                self._table.put(subject, value)
        elif key == state.TARGETS_KEY:
            if value is not None:
                self._targets = entry
                self._table.note(key, value)
        elif (member := _member_of(key)) is not None:
            found: dict[str, bytes] = getattr(self, member)
            name = key.decode(errors="backslashreplace")
            if value is None:
                found.pop(name, None)
            else:
                found[name] = value
            self._table.note(key, value)
        else:
            return False
        return True

    def targets(self) -> dict[str, Target]:
        """Whom the accounts sent to, as far as it was written. Raises `DamagedStateError` when the newest record of a
        key is none that we wrote.
        """
        for nameless, error in self._nameless.values():
            raise damaged(self._partition, nameless.offset, nameless.key, error) from error
        entry = self._targets
        if entry is None or entry.value is None:
            return self._known_targets
        try:
            return state.decode_targets(entry.value).targets
        except MsgspecError as error:
            raise damaged(self._partition, entry.offset, entry.key, error) from error
