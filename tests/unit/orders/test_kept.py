"""What is kept of a partition beside its orders comes back whole from a table on the disk."""

from msgspec.structs import fields

from schemas import state
from schemas.state import AccountRecord, TargetsRecord
from worker.orders.loading import Kept, Loading, kept_of
from worker.ports import StateEntry
from worker.store.memory import MemoryOrders

KEYS = (f"{state.JOB_PREFIX}acme/report", f"{state.CLOSED_PREFIX}1", f"{state.ACCOUNT_PREFIX}acme")


def test_each_member_has_its_records() -> None:
    """Whatever a restore finds beside orders, a warm start finds, too: a member that is forgotten stays empty here."""
    values = {key.encode(): str(number).encode() for number, key in enumerate(KEYS)}
    targets = state.encode(TargetsRecord(state.SCHEMA, {}))
    kept = kept_of(MemoryOrders(), values | {state.TARGETS_KEY: targets, b"m:next": b"x"})
    loading = Loading(0, Kept(MemoryOrders()))
    for offset, (key, value) in enumerate(values.items()):
        assert loading.load(StateEntry(offset, key, value))
    members = [member.name for member in fields(Kept) if member.name not in ("table", "targets")]
    assert len(members) == len(KEYS)
    for member in members:
        assert getattr(kept, member) == getattr(loading, member) != {}


def test_records_that_operators_made_are_read_again() -> None:
    """An account that is paused stays so when its worker starts from the disk."""
    record = state.encode(AccountRecord(state.SCHEMA))
    kept = kept_of(MemoryOrders(), {KEYS[2].encode(): record})
    assert (kept.accounts, kept.jobs, kept.closed) == ({KEYS[2]: record}, {}, {})
