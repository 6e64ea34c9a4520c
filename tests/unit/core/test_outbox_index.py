"""The index of what is owed: when each order is to be looked at."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from schemas.state import OrderHeader, Parking
from worker.core.outbox import NEVER, UNCONFIGURED, Figures, Outbox
from worker.core.plan import Send
from worker.model.provider import Update

NOW, NOW_MS = 1_000.0, 5_000_000


def header(revision: int = 2, acked: int = 1, delay_ms: int = 0, parked: bool = False) -> OrderHeader:
    """The first members of a record."""
    found = OrderHeader(revision=revision, acked=acked, owed_since_ms=7)
    found.not_before_ms = NOW_MS + delay_ms if delay_ms else 0
    found.park = Parking("why", b"", revision, 0) if parked else None
    return found


def put(outbox: Outbox, subject: str, what: OrderHeader, hold_s: float = 0.0, at: float = 0.0) -> None:
    """Puts it `at` seconds after the start, to be held for `hold_s` from then on."""
    hold_until = NOW + at + hold_s if hold_s else 0.0
    now_ms = NOW_MS + int(at * 1000)
    outbox.put(subject, what, now=NOW + at, now_ms=now_ms, hold_until=hold_until, delay_max_s=10_800.0)


def test_empty_outbox_has_nothing_to_look_at() -> None:
    """Nothing is due before something happens."""
    outbox = Outbox()
    assert outbox.next_due() == NEVER
    assert outbox.pop_due(10**9) is None


def test_owed_order_is_due_at_once_and_given_once() -> None:
    """An order that is owed is looked at now, once."""
    outbox = Outbox()
    put(outbox, "a", header())
    entry = outbox.entries["a"]
    assert (entry.revision, entry.owed_since_ms, entry.waiting, outbox.next_due()) == (2, 7, "", NOW)
    assert outbox.pop_due(NOW) == "a"
    assert outbox.pop_due(NOW) is None
    assert outbox.next_due() == NEVER
    assert "a" in outbox.entries


def test_settled_order_is_no_entry() -> None:
    """What is acknowledged is not in the outbox, and leaves it."""
    outbox = Outbox()
    put(outbox, "a", header(acked=2))
    assert outbox.entries == {}
    put(outbox, "a", header())
    put(outbox, "a", header(acked=2))
    assert outbox.entries == {}
    assert outbox.next_due() == NEVER


def waits_s(outbox: Outbox) -> dict[str, float]:
    """By order, for how long from the start it may not be sent."""
    return {subject: entry.not_before - NOW for subject, entry in outbox.entries.items()}


def test_delay_and_hold_both_count() -> None:
    """Looked at at once, to find out what is owed; sent after the delay and after the hold, whichever is later."""
    outbox = Outbox()
    put(outbox, "delay", header(delay_ms=5_000))
    put(outbox, "hold", header(), hold_s=30.0)
    put(outbox, "both", header(delay_ms=5_000), hold_s=2.0)
    put(outbox, "past", header(delay_ms=-5_000))
    assert waits_s(outbox) == {"delay": 5.0, "hold": 30.0, "both": 5.0, "past": 0.0}
    assert {entry.due for entry in outbox.entries.values()} == {NOW}


def test_hold_outlives_an_acknowledgement() -> None:
    """What the provider itself changed is acknowledged while an old request may still land: the next change waits."""
    outbox = Outbox()
    put(outbox, "a", header(), hold_s=30.0)
    put(outbox, "a", header(acked=2), at=1.0)
    put(outbox, "a", header(revision=3, acked=2), at=2.0)
    assert waits_s(outbox) == {"a": 30.0}
    put(outbox, "a", header(revision=3, acked=3), at=30.0)
    assert outbox.entries == {}


def test_delay_of_a_wrong_clock_is_bounded() -> None:
    """A delay that was stored by a clock far ahead lasts no longer than the longest that the rules know."""
    outbox = Outbox()
    put(outbox, "a", header(delay_ms=10_800_000))
    put(outbox, "b", header(delay_ms=10_800_001))
    put(outbox, "c", header(delay_ms=10**12))
    assert set(waits_s(outbox).values()) == {10_800.0}


def test_an_event_does_not_begin_a_bounded_delay_anew() -> None:
    """Stored by a clock that was an hour ahead: it ends after the longest of its kind, however many events come."""
    outbox = Outbox()
    for revision in range(2, 9):
        at = 10.0 * (revision - 2)
        outbox.put("a", header(revision, delay_ms=3_500_000), now=NOW + at, now_ms=NOW_MS, delay_max_s=300.0)
    assert outbox.entries["a"].not_before == NOW + 300.0
    outbox.put("a", header(9, delay_ms=50_000), now=NOW + 100.0, now_ms=NOW_MS, delay_max_s=300.0)
    assert outbox.entries["a"].not_before == NOW + 150.0
    outbox.put("a", header(9), now=NOW + 110.0, now_ms=NOW_MS, delay_max_s=300.0)
    assert outbox.entries["a"].not_before == NOW + 110.0


def test_what_an_account_may_end_early_is_known() -> None:
    """Its delay, as its record says; that it has failed, too."""
    outbox = Outbox()
    outbox.put("a", header(delay_ms=5_000), now=NOW, now_ms=NOW_MS, delay_max_s=300.0, may_go_early=True)
    put(outbox, "b", header())
    assert [(entry.may_go_early, entry.not_before_ms > 0) for entry in outbox.entries.values()] == [
        (True, True),
        (False, False),
    ]


def test_hold_that_is_over_holds_nothing() -> None:
    """An acknowledged order whose hold has just ended leaves the outbox."""
    outbox = Outbox()
    outbox.put("a", header(acked=2), now=NOW, now_ms=NOW_MS, hold_until=NOW, delay_max_s=1.0)
    assert outbox.entries == {}
    outbox.put("a", header(acked=2), now=NOW, now_ms=NOW_MS, hold_until=NOW + 0.001, delay_max_s=1.0)
    assert outbox.entries["a"].not_before == NOW + 0.001


def test_hold_outlives_a_newer_revision() -> None:
    """A new event does not shorten a hold that is running, though the order is looked at again."""
    outbox = Outbox()
    put(outbox, "a", header(), hold_s=30.0)
    put(outbox, "a", header(revision=3), at=1.0)
    assert (waits_s(outbox), outbox.next_due()) == ({"a": 30.0}, NOW + 1.0)
    put(outbox, "a", header(revision=4), hold_s=60.0, at=2.0)
    assert waits_s(outbox) == {"a": 62.0}
    assert outbox.entries["a"].hold_until == NOW + 62.0


def test_newer_revision_voids_what_was_prepared() -> None:
    """A plan is for one revision."""
    outbox = Outbox()
    put(outbox, "a", header())
    outbox.entries["a"].prepared = Send(Update(b"", None, Raw()))
    put(outbox, "a", header(revision=3))
    assert outbox.entries["a"].prepared is None


def test_parked_order_waits_for_something_to_happen() -> None:
    """Parked: an entry, but never due; a newer revision is looked at."""
    outbox = Outbox()
    put(outbox, "a", header(parked=True))
    assert (outbox.entries["a"].waiting, outbox.next_due()) == ("parked", NEVER)
    newer = header(revision=3)
    newer.park = Parking("why", b"", 2, 0)
    put(outbox, "a", newer)
    assert (outbox.entries["a"].waiting, outbox.next_due()) == ("", NOW)


def test_later_appointment_replaces_an_earlier_one() -> None:
    """The newest appointment counts, be it later or sooner, and there is only one."""
    outbox = Outbox()
    put(outbox, "a", header())
    outbox.schedule("a", NOW + 5)
    assert outbox.pop_due(NOW + 4) is None
    outbox.schedule("a", NOW + 2)
    assert outbox.next_due() == NOW + 2
    assert outbox.pop_due(NOW + 9) == "a"
    assert outbox.pop_due(NOW + 9) is None
    outbox.schedule("a", NEVER)
    assert outbox.next_due() == NEVER


def test_same_appointment_twice_is_one() -> None:
    """Being scheduled twice for one moment does not make an order due twice."""
    outbox = Outbox()
    put(outbox, "a", header())
    put(outbox, "a", header())
    assert outbox.pop_due(NOW) == "a"
    assert outbox.pop_due(NOW) is None


def test_orders_come_by_time_then_in_the_order_put() -> None:
    """The earliest first; among equals the one put first, so that none starves."""
    outbox = Outbox()
    for subject, at in (("z", 0.0), ("late", 3.0), ("a", 0.0), ("soon", 1.0)):
        put(outbox, subject, header(), at=at)
    assert [outbox.pop_due(NOW + 9) for _ in range(5)] == ["z", "a", "soon", "late", None]


def test_order_in_flight_is_not_due_but_a_queued_one_is() -> None:
    """Who is under way is left alone; who waits in the publisher's queue is judged anew when something changes."""
    outbox = Outbox()
    put(outbox, "a", header())
    outbox.entries["a"].in_flight = True
    assert outbox.pop_due(NOW) is None
    put(outbox, "b", header())
    outbox.entries["b"].queued = True
    assert outbox.pop_due(NOW) == "b"


def test_an_appointment_dropped_while_in_flight_can_be_made_again() -> None:
    """At the very same moment, too: virtual time stands still between a commit and the next."""
    outbox = Outbox()
    put(outbox, "a", header())
    outbox.entries["a"].in_flight = True
    assert outbox.pop_due(NOW) is None
    outbox.entries["a"].in_flight = False
    put(outbox, "a", header())
    assert outbox.pop_due(NOW) == "a"


def test_an_appointment_can_be_taken_back() -> None:
    """What waits for an event is not due."""
    outbox = Outbox()
    put(outbox, "a", header())
    outbox.schedule("a", NEVER)
    assert outbox.next_due() == NEVER


def test_void_appointments_do_not_pile_up() -> None:
    """However many events an order gets while it waits, the index stays of the size of the orders."""
    outbox = Outbox()
    put(outbox, "a", header())
    for number in range(10_000):
        outbox.schedule("a", NOW + 3600.0 + number)
    assert len(outbox._heap) <= 1_003
    assert outbox.next_due() == NOW + 3600.0 + 9_999


def test_order_in_flight_stays_an_entry_when_it_is_acknowledged() -> None:
    """What is under way keeps its entry, with the newest revision, until its outcome is put."""
    outbox = Outbox()
    put(outbox, "a", header())
    outbox.entries["a"].in_flight = True
    put(outbox, "a", header(revision=9, acked=9))
    assert outbox.entries["a"].revision == 9
    outbox.entries["a"].in_flight = False
    put(outbox, "a", header(revision=9, acked=9))
    assert outbox.entries == {}


def test_entry_that_has_gone_is_forgotten() -> None:
    """An appointment of an order that is settled by now leads nowhere."""
    outbox = Outbox()
    put(outbox, "a", header())
    put(outbox, "a", header(acked=2))
    put(outbox, "b", header(), at=1.0)
    assert outbox.next_due() == NOW + 1.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 20), st.booleans()), max_size=30))
def test_index_agrees_with_a_plain_list(steps: list[tuple[str, int, int, bool]]) -> None:
    """Against a model that keeps one appointment per order: whatever is due is given, nothing else is."""
    outbox, now = Outbox(), 0.0
    model: dict[str, float] = {}
    holds: dict[str, float] = {}
    for subject, action, number, settled in steps:
        if action == 0:
            put(
                outbox, subject, header(acked=2 if settled else 1), hold_s=float(number) if not settled else 0.0, at=now
            )
            holds[subject] = max(holds.get(subject, 0.0), 0.0 if settled else NOW + now + number)
            if settled and holds[subject] <= NOW + now:
                model.pop(subject, None)
                del holds[subject]
            else:
                model[subject] = NOW + now
                assert outbox.entries[subject].not_before >= holds[subject]
        elif action == 1 and subject in model:
            outbox.schedule(subject, NOW + now + number)
            model[subject] = NOW + now + number
        else:
            now += number / 4
            due = {one: at for one, at in model.items() if at <= NOW + now}
            found = outbox.pop_due(NOW + now)
            assert (found is None) == (not due)
            if found is not None:
                assert due[found] == min(due.values())
                model[found] = NEVER
        assert outbox.next_due() == min(model.values(), default=NEVER)


def test_what_its_record_says_it_waits_for_is_known_at_once() -> None:
    """Unconfirmed always; inconsistent when nothing has happened since, as after a restore. Both are looked at now."""
    outbox = Outbox()
    unconfirmed, inconsistent = header(), header()
    unconfirmed.unconfirmed_since_ms = inconsistent.inconsistent_since_ms = 5
    put(outbox, "a", unconfirmed)
    put(outbox, "b", inconsistent)
    assert [entry.waiting for entry in outbox.entries.values()] == ["unconfirmed", "inconsistent"]
    assert [outbox.pop_due(NOW), outbox.pop_due(NOW)] == ["a", "b"]
    inconsistent.revision = 3
    put(outbox, "b", inconsistent)
    assert outbox.entries["b"].waiting == ""


def test_figures_by_account() -> None:
    """What is owed, since when, and what waits for something else; accounts that nobody configured are one."""
    outbox = Outbox()
    waits = {
        "acme/1": ("", False),
        "acme/2": ("", False),
        "acme/3": ("parked", False),
        "acme/4": ("on_hold", False),
        "acme/5": ("unconfirmed", False),
        "acme/6": ("unconfirmed", True),
        "acme/7": ("inconsistent", False),
        "acme/8": ("inconsistent", True),
        "beta/1": ("", False),
        "x/1": ("no_account", False),
        "y/1": ("", False),
    }
    for number, (subject, (waiting, is_overdue)) in enumerate(waits.items()):
        put(outbox, subject, header(), hold_s=9.0 if subject == "acme/2" else 0.0)
        entry = outbox.entries[subject]
        entry.waiting, entry.is_overdue, entry.owed_since_ms = waiting, is_overdue, 100 - number
    outbox.entries["acme/4"].owed_since_ms = outbox.entries["acme/7"].owed_since_ms = 1
    found = outbox.figures({"acme", "beta"}, NOW)
    assert found == {
        "acme": Figures(owed=2, held=1, parked=2, unconfirmed=2, inconsistent=2, overdue=2, owed_since_ms=99),
        "beta": Figures(owed=1, owed_since_ms=92),
        UNCONFIGURED: Figures(owed=2),
    }
    total = Figures()
    for count in found.values():
        total.add(count)
    assert total == Figures(owed=5, held=1, parked=2, unconfirmed=2, inconsistent=2, overdue=2, owed_since_ms=92)
    assert (total.oldest_s(5_092), total.oldest_s(1), Figures().oldest_s(5_092)) == (5.0, 0.0, 0.0)


def test_oldest_of_a_change_without_a_moment() -> None:
    """A record that does not say since when it is owed has no age."""
    count = Figures()
    for since_ms in (0, 7, 0, 9):
        count.note_owed_since(since_ms)
    assert count.owed_since_ms == 7


def test_what_waits_for_a_job_has_no_age() -> None:
    """It is owed, and nobody is to be woken for it before its time."""
    outbox = Outbox()
    put(outbox, "acme/1", header())
    outbox.put("acme/2", header(), now=NOW, now_ms=NOW_MS, delay_max_s=10.0, awaits_change=True)
    assert outbox.figures({"acme"}, NOW)["acme"].owed_since_ms == 7
    assert outbox.figures({"acme"}, NOW)["acme"].owed == 2
    del outbox.entries["acme/1"]
    assert outbox.figures({"acme"}, NOW)["acme"].owed_since_ms == 0
