"""What goes where when a state gets another number of partitions."""

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas import state
from schemas.facts import SealedFacts
from schemas.state import AccountRecord, Deployment, JobRecord, Migration, NextRecord, Operated, OrderRecord, Target
from worker.core.placing import Placing
from worker.core.repartition import Counts, Layout, Part, begun, epoch_after, is_clean, marked, others, problems
from worker.core.retention import CHUNK_BYTES, ClosedOrders, digest_of

PLACING = Placing("murmur2")
HERE = Target("sequra", "https://here.example", "acme")
THERE = replace(HERE, base_url="https://there.example")
NEXT = NextRecord(state.SCHEMA, 7, 2, True, "1")
MARK = Migration(True, "e2", "s2", 24, 3)
MARK_BACK = Migration(False, "e", "s", 12, 3)


def job_partition(account: str, partitions: int) -> int:
    """Where an account's lists are read."""
    return crc32(account.encode()) % partitions


def placed(parts: dict[int, Part], before: int, after: int) -> list[dict[str, bytes]]:
    """What each new partition gets besides orders."""
    layout = Layout(PLACING, before, after)
    return [{key.decode(): value for key, value in others(layout, parts, each, job_partition)} for each in range(after)]


# --- orders ------------------------------------------------------------------------------------------------------------


@given(st.text(min_size=1, max_size=20), st.integers(1, 60), st.integers(1, 60))
def test_an_order_comes_from_one_of_the_sources(subject: str, before: int, after: int) -> None:
    """The digests of closed orders go to every partition that the order may come to, for any two numbers."""
    layout = Layout(PLACING, before, after)
    key = PLACING.key_of(subject)
    assert PLACING.partition(key, before) in list(layout.sources(layout.place(subject)))


def test_sources_of_a_multiple_are_few() -> None:
    """From 12 to 24 there is one, from 12 to 13 there are all."""
    assert list(Layout(PLACING, 12, 24).sources(13)) == [1]
    assert list(Layout(PLACING, 12, 13).sources(5)) == list(range(12))


def test_where_an_order_does_not_belong() -> None:
    """A partitioner that is not the shop's, or another key, is noticed by where the order lies."""
    layout = Layout(PLACING, 2, 3)
    place = PLACING.partition(b"acme/1", 2)
    assert layout.misplaced("acme/1", place, 0) == layout.misplaced("acme/1", place, crc32(b"acme/1")) == ""
    assert f"lies in partition {1 - place}" in layout.misplaced("acme/1", 1 - place, 0)
    assert "another key than its subject" in layout.misplaced("acme/1", place, 5)


def test_counts() -> None:
    """Orders, what is owed of them, and one that cannot be read."""
    layout, counts = Layout(PLACING, 1, 3), Counts()
    settled = OrderRecord(revision=2, acked=2)
    for subject, record in (
        ("acme/1", settled),
        ("acme/2", replace(settled, acked=1)),
        ("b/1", replace(settled, may_land_late=True)),
    ):
        assert counts.add(layout, subject, 0, state.encode(record)) == (layout.place(subject), "")
    assert "cannot be read" in counts.add(layout, "acme/3", 0, b"none of ours")[1]
    broken = OrderRecord(sealed=SealedFacts(confirmation=b"\xc1"))
    assert "cannot be read" in counts.add(layout, "acme/4", 0, state.encode(broken))[1]
    assert (counts.orders, counts.owed, counts.in_doubt) == (3, 1, 1)
    assert sum(counts.places.values()) == 3


# --- positions ---------------------------------------------------------------------------------------------------------


def test_epoch_is_above_all() -> None:
    """So that no order's revision goes back, whichever partition it comes from."""
    parts = [Part(), Part(NEXT), Part(replace(NEXT, topic_epoch=5))]
    assert (epoch_after(parts, 0), epoch_after(parts, 9), epoch_after([Part()], 0)) == (6, 10, 1)
    with pytest.raises(ValueError, match="topic_epoch 512"):
        epoch_after(parts, 511)


def test_clean_only_if_all_were() -> None:
    """One worker that was killed may have had any order in flight, wherever that comes to."""
    assert is_clean([Part(), Part(NEXT)])
    assert not is_clean([Part(NEXT), Part(replace(NEXT, clean=False))])


def test_marks() -> None:
    """A mark leaves the position what it is, and can be taken away; the new input is read from its beginning."""
    ours = Deployment(event_topic="e")
    assert marked(Part(NEXT), MARK, "2", ours) == replace(NEXT, migration=MARK)
    assert marked(Part(replace(NEXT, migration=MARK)), None, "2", ours) == NEXT
    fresh = marked(Part(), MARK, "2", ours)
    assert (fresh.offset, fresh.clean, fresh.deployment, fresh.migration) == (0, True, ours, MARK)
    first = begun("2", MARK_BACK, ours, 0, clean=False)
    assert first == NextRecord(state.SCHEMA, 0, 3, False, "2", None, ours, MARK_BACK)
    assert state.decode_next(state.encode(first)) == first


# --- the rest ----------------------------------------------------------------------------------------------------------


def deed(command: str, at_ms: int, uid: bytes) -> Operated:
    """Of an operator."""
    return Operated(command, "ann", "", at_ms, True, "", uid)


def test_accounts_stay_paused() -> None:
    """Where a resume has not come to all partitions, nothing is sent until somebody looks; no event is taken twice."""
    pause, resume = deed("pause", 5, b"a" * 8), deed("resume", 9, b"b" * 8)
    paused = AccountRecord(state.SCHEMA, pause, (pause,), pause.uid)
    resumed = AccountRecord(state.SCHEMA, None, (pause, resume), pause.uid + resume.uid)
    never = AccountRecord(state.SCHEMA)
    parts = {number: Part(accounts={"a:acme": state.encode(each)}) for number, each in enumerate((resumed, paused))}
    for found in placed(parts, 2, 3):
        merged = state.decode_account(found["a:acme"])
        assert merged.paused == pause
        assert sorted(merged.seen) == sorted(resumed.seen)
    parts = {number: Part(accounts={"a:acme": state.encode(each)}) for number, each in enumerate((never, resumed))}
    assert [state.decode_account(found["a:acme"]) for found in placed(parts, 2, 3)] == [resumed] * 3


def test_jobs() -> None:
    """A report is done again where it was not done everywhere; a list goes to the one partition that reads it."""
    lists = job_partition("acme", 2), job_partition("acme", 5)
    report, read = JobRecord(state.SCHEMA, 10, b"", 3), JobRecord(state.SCHEMA, 20, b"read")
    parts = {
        0: Part(jobs={"j:acme:report": state.encode(report), "j:acme:disbursements": state.encode(read)}),
        1: Part(jobs={"j:acme:report": state.encode(replace(report, done_ms=7, asked_ms=0))}),
    }
    parts[1 - lists[0]].jobs = dict(parts[1 - lists[0]].jobs) | {
        "j:acme:disbursements": state.encode(replace(read, done_ms=1))
    }
    parts[lists[0]].jobs = dict(parts[lists[0]].jobs) | {"j:acme:disbursements": state.encode(read)}
    found = placed(parts, 2, 5)
    assert [state.decode_job(each["j:acme:report"]) for each in found] == [replace(report, done_ms=7)] * 5
    has = [number for number, each in enumerate(found) if "j:acme:disbursements" in each]
    assert has == [lists[1]]
    assert state.decode_job(found[lists[1]]["j:acme:disbursements"]) == read


def test_closed_orders_are_remembered() -> None:
    """Each where its order would come to, whatever the chunks were."""
    now_ms, subjects = 20_000 * 86_400_000, [f"acme/{number}" for number in range(5000)]
    old = [ClosedOrders({}) for _ in range(4)]
    for at in range(0, len(subjects), 50):
        for number, closed in enumerate(old):
            some = [each for each in subjects[at : at + 50] if PLACING.partition(each.encode(), 4) == number]
            if some:
                key, value = closed.with_more(now_ms, some)
                closed.apply({key: value})
    found = placed({number: Part(closed=closed.chunks) for number, closed in enumerate(old)}, 4, 6)
    new = [ClosedOrders(each) for each in found]
    for subject in subjects:
        assert new[PLACING.partition(subject.encode(), 6)].closed_on(subject) == 20_000
    assert all(len(value) <= CHUNK_BYTES for each in found for value in each.values())
    key, value = new[0].with_more(now_ms, ["acme/another"])
    assert value.endswith(digest_of("acme/another"))
    assert len(value) <= CHUNK_BYTES
    new[0].apply({key: value})
    assert all(new[0].closed_on(each) for each in subjects if PLACING.partition(each.encode(), 6) == 0)


def test_targets_are_all_of_them() -> None:
    """Any partition may get orders of any account."""
    parts = {0: Part(targets={"acme": HERE}), 1: Part(targets={"b": THERE})}
    for found in placed(parts, 2, 3):
        assert state.decode_targets(found["m:targets"]).targets == {"acme": HERE, "b": THERE}
    assert placed({0: Part()}, 1, 2) == [{}, {}]


def test_problems() -> None:
    """What stands in the way, each in words."""
    fine = Part(
        NEXT,
        {"acme": HERE},
        {"j:acme:report": state.encode(JobRecord(state.SCHEMA, 1)), "j:a:b:lists": state.encode(JobRecord(1, 1, b"x"))},
        {"a:acme": state.encode(AccountRecord(state.SCHEMA))},
    )
    assert list(problems({0: fine, 1: fine})) == []
    bad = Part(
        NEXT,
        {"acme": THERE},
        {"j:acme:report": state.encode(JobRecord(state.SCHEMA, 1, b"a page")), "j:b:report": b"\xc1"},
        {"a:acme": b"\xc1"},
    )
    target, job, account, page = problems({0: fine, 1: bad})
    assert "account acme tells sequra merchant acme at https://here.example in partition 0" in target
    assert "the record with the key j:b:report cannot be read" in job
    assert "the record with the key a:acme cannot be read" in account
    assert "partition 1: a page of a report of account acme is under way" in page
