"""Where an owner keeps its orders: every implementation of `ports.OrderTable` does the same.

What outlives a process is in `test_order_tables.py`.
"""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import MsgspecError

from schemas import state
from schemas.state import OrderRecord
from tests.contract.tables import TABLES, closed
from worker.ports import OrderTable

__all__ = ["closed"]  # a fixture

Make = Callable[[], OrderTable]
each_table = pytest.mark.parametrize("make", TABLES)


def value(revision: int) -> bytes:
    """A record that is told from others by its revision."""
    return state.encode(OrderRecord(revision=revision))


@each_table
def test_what_is_put_is_there(make: Make) -> None:
    """The newest record of an order, and no other."""
    table = make()
    assert (table.get("acme/1"), "acme/1" in table, len(table)) == (None, False, 0)
    for revision in (1, 2):
        table.put("acme/1", value(revision))
        assert table.get("acme/1") == table["acme/1"] == value(revision)
    assert ("acme/1" in table, "acme/2" in table, len(table)) == (True, False, 1)


@each_table
def test_order_that_is_unknown(make: Make) -> None:
    """To ask for its record is a bug, to delete it is none."""
    table = make()
    with pytest.raises(KeyError):
        table["acme/1"]
    table.delete("acme/1")
    table.put("acme/1", value(1))
    table.delete("acme/1")
    table.delete("acme/1")
    assert (table.get("acme/1"), len(table)) == (None, 0)


@each_table
@pytest.mark.parametrize("subject", ["acme/1", "acme/a/b", "acme/é", "acme/\u2028", "a" * 255 + "/" + "b" * 1_000])
def test_any_subject_is_one(make: Make, subject: str) -> None:
    """Whatever the contract lets through."""
    table = make()
    table.put(subject, value(1))
    assert (list(table.subjects()), table.get(subject)) == ([subject], value(1))


@each_table
@pytest.mark.parametrize("content", [b"", b"\x00", b"\xff" * 1_000_000])
def test_any_value_is_kept_as_it_is(make: Make, content: bytes) -> None:
    """The table does not look into records unless it is asked for headers."""
    table = make()
    table.put("acme/1", content)
    assert (table.get("acme/1"), list(table.items())) == (content, [("acme/1", content)])


@each_table
def test_headers_say_what_records_begin_with(make: Make) -> None:
    """So that what is owed is found without reading what it is owed for."""
    table = make()
    for number in (1, 2, 3):
        table.put(f"acme/{number}", value(number))
    assert {subject: header.revision for subject, header in table.headers()} == {f"acme/{n}": n for n in (1, 2, 3)}


@each_table
def test_record_that_is_none_has_no_header(make: Make) -> None:
    """It says so, and does not leave it out."""
    table = make()
    table.put("acme/1", b"\x91")
    with pytest.raises(MsgspecError):
        list(table.headers())


@each_table
def test_orders_come_and_go_while_they_are_gone_over(make: Make) -> None:
    """Others get the loop in between: all that there were are met, however long it takes."""
    table = make()
    known = [f"acme/{number}" for number in range(5)]
    for subject in known:
        table.put(subject, value(1))
    headers, subjects = table.headers(), table.subjects()
    met = [next(headers)[0]], [next(subjects)]
    table.put("acme/new", value(1))
    table.put(known[3], value(2))
    met[0].extend(subject for subject, _ in headers)
    met[1].extend(subjects)
    assert set(known) <= set(met[0])
    assert set(known) <= set(met[1])


@each_table
def test_records_are_replaced_while_they_are_gone_over(make: Make) -> None:
    """A takeover marks orders as it meets them; each is met once."""
    table = make()
    known = [f"acme/{number}" for number in range(5)]
    for subject in known:
        table.put(subject, value(1))
    met = []
    for subject, content in table.items():
        assert content == value(1)
        table.put(subject, value(2))
        met.append(subject)
    assert sorted(met) == known
    assert all(table[subject] == value(2) for subject in known)


@each_table
def test_orders_of_accounts_are_counted(make: Make) -> None:
    """Whatever was put twice, deleted twice, or put again."""
    table = make()
    for subject in ("acme/1", "acme/2", "acme/1", "tea/1", "hats/1"):
        table.put(subject, value(1))
    for subject in ("hats/1", "acme/2", "acme/2", "hats/2"):
        table.delete(subject)
    table.put("acme/2", value(2))
    found: dict[str, int] = {}
    for account, count in table.accounts():
        found[account] = found.get(account, 0) + count
    assert (found, len(table)) == ({"acme": 2, "tea": 1}, 3)


@each_table
def test_unsettled_orders_are_found(make: Make) -> None:
    """Owed, or in doubt, or large, or no record at all; those of which nothing is to be done may be left out."""
    table = make()
    unsettled = {
        "acme/owed": state.encode(OrderRecord(revision=2, acked=1)),
        "acme/late": state.encode(OrderRecord(revision=1, acked=1, may_land_late=True)),
        "acme/none": b"\x91",
        "acme/large": state.encode(OrderRecord(revision=1, acked=1, reason="x" * 70_000)),
    }
    settled = state.encode(OrderRecord(revision=1, acked=1))
    for number in range(100):
        table.put(f"acme/{number}", unsettled["acme/owed"])
        table.put(f"acme/{number}", settled)
    for subject, content in unsettled.items():
        table.put(subject, content)
    found = dict(table.unsettled(larger_than=900_000))
    assert found.items() >= unsettled.items()
    assert dict(table.unsettled(larger_than=1_000)).items() >= unsettled.items()
    table.delete("acme/owed")
    assert "acme/owed" not in dict(table.unsettled(larger_than=900_000))


@each_table
async def test_orders_are_fetched_ahead(make: Make) -> None:
    """Those that there are, and those that there are not; what is put meanwhile stays."""
    table = make()
    for number in range(5):
        table.put(f"acme/{number}", value(number))
    await table.fetch([f"acme/{number}" for number in range(8)])
    table.put("acme/7", value(7))
    assert [table.get(f"acme/{number}") for number in (0, 4, 6, 7)] == [value(0), value(4), None, value(7)]
    assert len(table) == 6


@each_table
def test_some_orders_may_be_skipped(make: Make) -> None:
    """So that who goes around them may begin anywhere; what is left is some of them, each once."""
    table = make()
    known = {f"acme/{number}" for number in range(500)}
    for subject in known:
        table.put(subject, value(1))
    found = list(table.subjects(0.5))
    assert (len(set(found)), set(found) <= known) == (len(found), True)
    assert set(table.subjects()) == known


STEPS = st.lists(st.tuples(st.sampled_from(["put", "delete"]), st.sampled_from("abcd"), st.integers(1, 99)))


@each_table
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_it_is_a_dict(make: Make, steps: list[tuple[str, str, int]]) -> None:
    """Against one: whatever was put and deleted."""
    table, model = make(), dict[str, bytes]()
    for what, subject, revision in steps:
        if what == "put":
            table.put(subject, value(revision))
            model[subject] = value(revision)
        else:
            table.delete(subject)
            model.pop(subject, None)
        assert len(table) == len(model)
    assert dict(table.items()) == model
    assert sorted(table.subjects()) == sorted(model)
