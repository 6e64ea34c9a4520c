"""The life of an ownership, told from its fence to its end: how a partition is acquired, served and drained, and each
way in which that ends otherwise.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from schemas import state
from schemas.state import Deployment, NextRecord
from tests.unit.ownership.tally import POLICY, Sheet, Tally, World, feed, play
from worker.errors import (
    DamagedStateError,
    FencedError,
    GapError,
    InvariantError,
    LogError,
    SizeRefusedError,
    TopicError,
    UsageError,
)
from worker.ownership.context import BatchLimits, Warm
from worker.ownership.owner import HANDED_OVER, Lean, Owner
from worker.ownership.phase import Phase
from worker.ownership.workload import Entries, Host
from worker.ports import DeadLetter


def raising(*steps: str) -> Any:
    """A gate of the log at which these steps of an operation fail."""

    async def gate(step: str, _member: str, _partition: int) -> None:
        if step in steps:
            raise LogError(f"{step} failed")

    return gate


# --- in order --------------------------------------------------------------------------------------------------------


def test_first_owner_ever() -> None:
    """Fence, barrier, restore, activation, and then the input from its beginning."""

    async def story(world: World) -> None:
        world.input.begin = 7
        changes: list[float] = []
        owner = world.owner(on_phase_change=lambda: changes.append(world.clock.now()))
        assert owner.phase is Phase.RESTORING
        task = asyncio.create_task(owner.run(asyncio.Semaphore(1)))
        await asyncio.sleep(1.0)
        assert world.written == ["m:owner", "m:next 7"]
        assert world.input.asked == [("seek", 0, 7), ("resume", 0)]
        assert (owner.phase, len(changes), owner.has_served) == (Phase.SERVING, 1, True)
        inherited = owner.workload.inherited
        assert inherited is not None
        assert (inherited.was_clean, inherited.is_first) == (False, True)
        task.cancel()

    play(story)


def test_events_are_committed_with_their_offset() -> None:
    """One transaction has what changed and the next offset; memory follows, and then it is announced."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        feed(owner, "a", "b", "a")
        await asyncio.sleep(1.0)
        assert world.written == ["m:owner", "m:next 0", "t:a", "t:b", "m:next 3"]
        assert (owner.workload.counts, owner.workload.said) == ({b"a": 2, b"b": 1}, ["a", "b"])
        assert owner.position.next_offset == 3
        task.cancel()

    play(story)


def test_work_ahead_ends_with_the_commit() -> None:
    """It is begun where events wait, and not waited for: what is committed is in memory before it is even cut off."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        owner.workload.at_once = 2
        feed(owner, "a", "b", "c")
        await asyncio.sleep(1.0)
        assert owner.workload.ahead_of == [({b"a": 1, b"b": 1}, 1)]
        assert owner.workload.counts == {b"a": 1, b"b": 1, b"c": 1}
        task.cancel()

    play(story)


def test_work_ahead_ends_with_a_commit_that_fails() -> None:
    """And with the ownership: what waits is the next owner's."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        owner.workload.at_once = 2

        async def gate(step: str, _member: str, _partition: int) -> None:
            await asyncio.sleep(0.1)
            await raising("write")(step, _member, _partition)

        world.log.gate = gate
        feed(owner, "a", "b", "c")
        await asyncio.sleep(1.0)
        assert isinstance(task.exception(), LogError)
        assert (owner.workload.ahead_of, owner.workload.said[0]) == ([({}, 1)], f"close: {HANDED_OVER}")

    play(story)


@pytest.mark.parametrize("limits", [BatchLimits(2.0, batch_records_max=3), BatchLimits(0.05, 0.5, 3)])
def test_full_batch_does_not_wait_for_its_turn(limits: BatchLimits) -> None:
    """A busy partition commits once in an interval, that of its worker's share or the least one; but at once when a
    whole batch waits, which would not grow.
    """

    async def story(world: World) -> None:
        owner, task = await world.begun(limits=limits)
        owner.workload.at_once = 3
        began = world.clock.now()
        times: list[float] = []
        world.log.watch(lambda *_: times.append(round(world.clock.now() - began, 3)))
        await asyncio.sleep(5.0)
        feed(owner, "a")
        await asyncio.sleep(0.1)
        feed(owner, "b", "c", "d", "e")
        await asyncio.sleep(3.0)
        assert times == [5.0, 5.1, 7.1]
        task.cancel()

    play(story)


def test_batch_that_becomes_full_while_it_waits() -> None:
    """It is looked at again after the least interval."""

    async def story(world: World) -> None:
        owner, task = await world.begun(limits=BatchLimits(0.05, 0.01, 3))
        await asyncio.sleep(100.0)
        began = world.clock.now()
        times: list[float] = []
        world.log.watch(lambda *_: times.append(round(world.clock.now() - began, 3)))
        feed(owner, "a")
        await asyncio.sleep(0.1)
        feed(owner, "b")
        await asyncio.sleep(10.0)
        assert times == [0.0]
        feed(owner, "c", "d")
        await asyncio.sleep(1.0)
        assert times[0] == 0.0
        assert 10.1 <= times[1] <= 10.15
        task.cancel()

    play(story)


def test_drained_owner_leaves_a_clean_state() -> None:
    """Attempts in flight end, their outcomes are written, and only the last transaction is clean."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        owner.workload.attempts = 1
        owner.drain(8.0)
        await asyncio.sleep(1.0)
        assert (owner.phase, task.done()) == (Phase.DRAINING, False)
        owner.workload.end_attempts(b"applied")
        await task
        assert world.written[2:] == ["t:applied", "m:next 0", "m:next 0 clean"]
        assert owner.phase is Phase.CLOSED
        assert owner.workload.said == ["drain", "applied", f"close: {HANDED_OVER}"]

    play(story)


def test_successor_of_a_drained_owner() -> None:
    """It inherits nothing that it has to hold, goes on at the next offset, and sees the last record again first."""

    async def story(world: World) -> None:
        await world.drained("w1", "a", "b")
        world.input.asked.clear()
        owner, task = await world.begun("w2")
        inherited = owner.workload.inherited
        assert inherited is not None
        assert (inherited.was_clean, inherited.is_first) == (True, False)
        assert owner.workload.counts == {b"a": 1, b"b": 1}
        assert (owner.position.next_offset, world.input.asked[0]) == (2, ("seek", 0, 1))
        feed(owner, "b", "c", first=1)
        await asyncio.sleep(1.0)
        assert owner.workload.counts == {b"a": 1, b"b": 1, b"c": 1}
        task.cancel()

    play(story)


def test_successor_of_a_killed_owner() -> None:
    """It may have had anything in flight: what it owed is held until that must have landed."""

    async def story(world: World) -> None:
        _, killed = await world.begun("w1")
        killed.cancel()
        owner, task = await world.begun("w2")
        inherited = owner.workload.inherited
        assert inherited is not None
        assert (inherited.was_clean, inherited.is_first) == (False, False)
        now = world.clock.now()
        assert now + POLICY.takeover_hold_s - 1.0 <= inherited.hold_until <= now + POLICY.takeover_hold_s
        task.cancel()

    play(story)


def test_holds_outlive_a_handover() -> None:
    """Who leaves in order says how long a request may still land: its successors wait for that, and no longer, also
    when they hand over before they have sent anything. One that is killed leaves nothing that could be counted on.
    """

    async def story(world: World) -> None:
        clock = world.clock
        first, task = await world.begun("w1")
        await asyncio.sleep(POLICY.takeover_hold_s)
        first.workload.held_by_itself_until = land_until = clock.now() + 20.0
        first.drain(0.0)
        await task
        for name in ("w2", "w3"):
            await asyncio.sleep(3.0)
            owner, task = await world.begun(name)
            assert owner.workload.inherited is not None
            assert land_until <= owner.workload.inherited.hold_until <= land_until + 7.5  # while there was no owner
            owner.drain(0.0)
            await task
        owner, task = await world.begun("w4")
        await asyncio.sleep(20.0)
        owner.drain(0.0)
        await task
        owner, task = await world.begun("w5")
        assert owner.workload.inherited is not None
        assert owner.workload.inherited.hold_until <= clock.now()  # nothing is left of it
        task.cancel()
        owner, task = await world.begun("w6")
        assert owner.workload.inherited is not None
        assert owner.workload.inherited.hold_until >= clock.now() + POLICY.takeover_hold_s - 1.0
        task.cancel()

    play(story)


def test_predecessor_that_does_not_tell_how_long_it_holds() -> None:
    """A version before: whatever was in doubt is held as long as anything of it may land."""

    async def story(world: World) -> None:
        await world.drained("w1")
        last = NextRecord(state.SCHEMA, 0, 0, True, "0", None, Deployment())
        assert last.hold_ms < 0
        await asyncio.sleep(30.0)
        world.log.write_foreign(0, state.NEXT_KEY, state.encode(last))
        owner, task = await world.begun("w2")
        assert owner.workload.inherited is not None
        assert owner.workload.inherited.was_clean
        assert owner.workload.inherited.hold_until >= world.clock.now() + POLICY.takeover_hold_s - 1.0
        task.cancel()

    play(story)


def test_clean_flag_is_taken_away_by_the_activation_only() -> None:
    """An owner that dies before it serves leaves the state as clean as it found it."""

    async def story(world: World) -> None:
        await world.drained()

        class Dying(Tally):
            async def restored(self, _inherited: Any) -> Entries:
                raise LogError("it dies while it restores")

        _, dying = await world.begun("w2", make=Dying)
        assert isinstance(dying.exception(), LogError)
        owner, task = await world.begun("w3")
        assert owner.workload.inherited is not None
        assert owner.workload.inherited.was_clean
        task.cancel()

    play(story)


def test_warm_restart_reads_what_came_since() -> None:
    """What is in memory from before is not read again; what another owner wrote meanwhile is, and is reported."""

    async def story(world: World) -> None:
        first = await world.drained("w1", "a", "b")
        await world.drained("w2", "c")
        owner, task = await world.begun("w1", warm=first.warm(), on_competing_owner=world.told.append)
        assert owner.workload.counts == {b"a": 1, b"b": 1, b"c": 1}
        assert owner.workload.loads == 1
        [competing] = world.told
        assert competing is not None
        assert competing[0] == "w2"
        task.cancel()

    play(story)


def test_owner_that_never_restored_hands_on_what_it_was_given() -> None:
    """It was lost before it had anything of its own."""

    async def story(world: World) -> None:
        first = await world.drained("w1", "a")
        warm = first.warm()
        world.log.gate = raising("fence")
        owner, task = await world.begun("w1", warm=warm)
        assert isinstance(task.exception(), LogError)
        assert owner.warm() is warm

    play(story)


def test_workload_may_write_before_it_is_served() -> None:
    """In transactions of its own, none of them clean; once it is served, its records go with the owner's."""

    async def story(world: World) -> None:
        def make(host: Host, kept: Any) -> Tally:
            tally = Tally(host, kept)
            tally.before_it_serves = [[(b"t:x", b"1")], [(b"t:y", b"1")]]
            tally.to_activate = [(b"t:z", b"1")]
            return tally

        owner, task = await world.begun(make=make)
        assert world.written == ["m:owner", "t:x", "m:next 0", "t:y", "m:next 0", "t:z", "m:next 0"]
        with pytest.raises(InvariantError, match="while it is served"):
            await owner.write([(b"t:x", b"2")])
        task.cancel()

    play(story)


def test_what_stands_in_memory_only_is_written_before_the_end() -> None:
    """In portions of one transaction; the last portion goes with the clean flag."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        owner.workload.portions = [["a", "b"], ["c"]]
        owner.drain(8.0)
        await task
        assert world.written[2:] == ["t:a", "t:b", "m:next 0", "t:c", "m:next 0 clean"]

    play(story)


def test_what_cannot_be_written_leaves_no_clean_state() -> None:
    """The next owner has to hold it."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        owner.workload.writable = False
        owner.drain(8.0)
        await task
        assert world.written[-1] == "m:next 0"

    play(story)


# --- the lease -------------------------------------------------------------------------------------------------------


def test_lease_runs_from_the_beginning_of_each_commit() -> None:
    """A successor may fence right after it. Without commits it ends, and whoever needs it has one committed."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        began = world.clock.now() - 1.0
        assert (owner.lease.until, owner.may_send()) == (began + POLICY.lease_s, True)
        await asyncio.sleep(POLICY.lease_s)
        assert not owner.may_send()

        async def slow(step: str, _member: str, _partition: int) -> None:
            if step == "write":
                await asyncio.sleep(5.0)

        world.log.gate = slow
        began = world.clock.now()
        owner.want_lease()
        await asyncio.sleep(6.0)
        assert (owner.lease.until, owner.may_send()) == (began + POLICY.lease_s, True)
        assert world.written[-2:] == ["m:next 0", "m:next 0"]
        task.cancel()

    play(story)


def test_no_attempt_begins_without_commits() -> None:
    """Brokers do not answer: the lease ends, though nobody has fenced us."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        blocked = asyncio.Event()

        async def gate(step: str, _member: str, _partition: int) -> None:
            if step == "write":
                await blocked.wait()

        world.log.gate = gate
        owner.want_lease()
        await asyncio.sleep(POLICY.lease_s)
        assert (owner.may_send(), owner.busy_s(world.clock.now())) == (False, POLICY.lease_s)
        task.cancel()

    play(story)


# --- the ways out ----------------------------------------------------------------------------------------------------


def test_owner_that_is_fenced_closes() -> None:
    """Another owner has acquired the partition: nothing is committed, nothing begins, what is in flight is given up."""

    async def story(world: World) -> None:
        owner, task = await world.begun("w1")
        successor, other = await world.begun("w2")
        feed(owner, "a")
        await asyncio.sleep(1.0)
        assert isinstance(task.exception(), FencedError)
        assert (owner.phase, owner.may_send(), owner.workload.counts) == (Phase.CLOSED, False, {})
        assert owner.workload.said == [f"close: {HANDED_OVER}"]
        assert successor.phase is Phase.SERVING
        other.cancel()

    play(story)


@pytest.mark.parametrize(
    ("step", "is_committed"),
    [
        pytest.param("write", False, id="refused"),
        pytest.param("write:open", False, id="left open"),
        pytest.param("write:done", True, id="committed, and nobody knows"),
    ],
)
def test_commit_that_fails_closes_the_owner(step: str, is_committed: bool) -> None:
    """Whether it is committed or not, memory stays as it was, and a warm restart finds out."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        world.log.gate = raising(step)
        feed(owner, "a")
        await asyncio.sleep(1.0)
        assert isinstance(task.exception(), LogError)
        assert (owner.phase, owner.workload.counts, owner.position.next_offset) == (Phase.CLOSED, {}, 0)
        world.log.gate = None
        again, served = await world.begun(warm=owner.warm())
        assert again.workload.counts == ({b"a": 1} if is_committed else {})
        assert again.position.next_offset == int(is_committed)
        served.cancel()

    play(story)


def test_size_that_is_refused_is_remembered() -> None:
    """The broker does not say which it was: the next owner makes dead letters small up to there."""

    async def story(world: World) -> None:
        class Refusing(Tally):
            async def fill(self, *args: Any) -> Any:
                sheet = await super().fill(*args)
                if sheet.counts:
                    sheet.dead_letters.append(DeadLetter(None, b"x" * 2_000, []))
                return sheet

        owner, task = await world.begun(make=Refusing)
        feed(owner, "a", "b")
        await asyncio.sleep(1.0)
        assert isinstance(task.exception(), SizeRefusedError)
        assert owner.lean == Lean(letters_below=2, results=False)
        again = world.owner(lean=owner.lean)
        assert again.sizes.lean_below == 2

    play(story, letter_max_bytes=1_000)


def test_owner_that_drains_too_slowly_gives_its_attempts_up() -> None:
    """At its deadline; their outcome is unknown, and written like any other."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        owner.workload.attempts = 2
        began = world.clock.now()
        owner.drain(8.0)
        await task
        assert world.clock.now() - began == pytest.approx(8.0, abs=0.2)
        assert owner.workload.said[:2] == ["drain", "abandon"]
        assert (owner.workload.counts, world.written[-1]) == ({b"unknown": 2}, "m:next 0 clean")

    play(story)


def test_events_that_were_not_taken_are_left_to_the_next_owner() -> None:
    """Draining takes nothing more of the input."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        feed(owner, "a")
        owner.workload.attempts = 1
        owner.drain(8.0)
        await asyncio.sleep(1.0)
        assert (len(owner.position.inbox), owner.position.wanted_offset) == (0, 0)
        owner.workload.end_attempts(b"applied")
        await task
        assert (world.written[-1], b"a" in owner.workload.counts) == ("m:next 0 clean", False)

    play(story)


def test_answer_that_comes_with_the_drain_is_written() -> None:
    """While it works, when what follows from the answer was looked at already: it must not leave before it has looked
    again, or its successor would take the state for clean.
    """

    async def story(world: World) -> None:
        owner, task = await world.begun()

        def answered() -> None:
            owner.workload.on_work = lambda: None
            owner.workload.owed.append(b"answer")
            owner.drain(8.0)

        owner.workload.on_work = answered
        owner.wake()
        await task
        assert owner.workload.counts == {b"answer": 1}

    play(story)


def test_drain_that_comes_while_it_works() -> None:
    """`work` awaits, so `drain` may come between the top of the loop and the sleep: it must not sleep through it."""

    async def story(world: World) -> None:
        owner, task = await world.begun()

        def drain_once() -> None:
            owner.workload.on_work = lambda: None
            owner.drain(8.0)

        owner.workload.on_work = drain_once
        began = world.clock.now()
        owner.wake()
        await task
        assert world.clock.now() == began

    play(story)


def test_failure_that_comes_while_it_works() -> None:
    """`work` awaits, so a job may fail between the top of the loop and the sleep: it must not be slept over."""

    async def story(world: World) -> None:
        owner, task = await world.begun()

        def fail_once() -> None:
            owner.workload.on_work = lambda: None
            owner.fail(InvariantError("a job failed"))

        owner.workload.on_work = fail_once
        began = world.clock.now()
        owner.wake()
        with pytest.raises(InvariantError, match="a job failed"):
            await task
        assert world.clock.now() == began

    play(story)


def test_bug_in_the_workload_ends_the_owner() -> None:
    """An invariant that does not hold must not be worked around."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        owner.fail(InvariantError("first"))
        owner.fail(InvariantError("second"))
        await asyncio.sleep(1.0)
        assert str(task.exception()) == "first"
        assert (owner.phase, owner.may_send()) == (Phase.CLOSED, False)

    play(story)


# --- damage ----------------------------------------------------------------------------------------------------------


def test_position_that_is_damaged() -> None:
    """Somebody else wrote `m:next`: nothing is served before an operator says how far the input was taken."""

    async def story(world: World) -> None:
        await world.drained("w1", "a", "b", "c")
        world.log.write_foreign(0, state.NEXT_KEY, b"?")
        owner, task = await world.begun("w2")
        error = task.exception()
        assert isinstance(error, DamagedStateError)
        assert error.is_position
        owner.mark_damaged(str(error))
        assert (owner.phase, owner.phase.shown_as, owner.detail) == (Phase.DAMAGED, "halted", str(error))
        early, refused = await world.begun("w2", start_at=1)
        assert isinstance(refused.exception(), DamagedStateError)
        assert "later offset" in str(refused.exception())
        assert early.phase is Phase.CLOSED
        mended, served = await world.begun("w2", start_at=3)
        assert (mended.phase, mended.position.next_offset) == (Phase.SERVING, 3)
        served.cancel()

    play(story)


@pytest.mark.parametrize("is_of_the_state", [True, False])
def test_record_that_cannot_be_decoded(is_of_the_state: bool) -> None:
    """It is named, with where it lies, if it is one of the state's; otherwise the error is a bug like any other."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        feed(owner, "a")
        await asyncio.sleep(1.0)
        offset = next(entry.offset for entry in world.log.entries(0) if entry.key == b"t:a")
        owner.workload.damaged_key = b"t:a" if is_of_the_state else None

        def meet_it() -> None:
            raise msgspec.DecodeError("truncated")

        owner.workload.on_work = meet_it
        owner.wake()
        await asyncio.sleep(1.0)
        error = task.exception()
        assert isinstance(error, DamagedStateError if is_of_the_state else msgspec.DecodeError)
        # To find it may take long, and nothing begins meanwhile.
        assert (owner.workload.phase_when_damaged, "drain" in owner.workload.said) == (Phase.DRAINING, True)
        assert (f"offset {offset}" in str(error)) is is_of_the_state

    play(story)


def test_state_that_was_lost() -> None:
    """The group has read the input, and the state topic is empty: to begin anew would be to lose orders."""

    async def story(world: World) -> None:
        world.input.of_group = 12
        _, task = await world.begun()
        assert isinstance(task.exception(), TopicError)
        assert "up to offset 12" in str(task.exception())

    play(story)


def test_state_that_was_made_again() -> None:
    """Offsets begin anew while it is served: what was committed before is missing."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        for _ in range(3):
            owner.want_lease()
            await asyncio.sleep(1.0)
        world.log.remake_states()
        owner.want_lease()
        await asyncio.sleep(1.0)
        assert isinstance(task.exception(), TopicError)

    play(story)


def test_what_it_starts_from_is_ahead_of_the_topic() -> None:
    """If that came from a disk, the disk is not believed; otherwise the topic was made again."""

    async def story(world: World) -> None:
        for unbelieved, expected in ((None, TopicError), ("as tested", LogError)):
            warm = Warm({}, 1_000, None, 0.0)
            _, task = await world.begun(make=make_doubtful(unbelieved), warm=warm)
            assert type(task.exception()) is expected
            assert "had 1000 offsets" in str(task.exception())

    play(story)


def test_what_it_starts_from_is_older_than_the_topic_reaches() -> None:
    """Records in between are gone."""

    async def story(world: World) -> None:
        await world.drained("w1", "a", "b")
        world.log.truncate_state(0, 4)
        for unbelieved, expected in ((None, GapError), ("as tested", LogError)):
            _, task = await world.begun(make=make_doubtful(unbelieved), warm=Warm({}, 2, None, 0.0))
            assert type(task.exception()) is expected
            assert "begins at offset 4" in str(task.exception())

    play(story)


def test_what_it_starts_from_is_damaged() -> None:
    """A record that cannot be decoded is not the topic's fault, if it came from a disk."""

    async def story(world: World) -> None:
        owner, task = await world.begun(make=make_doubtful("as tested"), warm=Warm({}, 0, None, 0.0))

        def meet_it() -> None:
            owner.workload.damaged_key = b"t:a"
            msgspec.json.decode(b"not json")

        owner.workload.on_work = meet_it
        owner.wake()
        await asyncio.sleep(1.0)
        assert type(task.exception()) is LogError
        assert "b't:a' cannot be decoded" in str(task.exception())

    play(story)


def make_doubtful(unbelieved: str | None) -> Callable[[Host, Any], Tally]:
    """Workloads that say this of what they started from."""

    def make(host: Host, kept: Any) -> Tally:
        made = Tally(host, kept)
        made.unbelieved = unbelieved
        return made

    return make


def test_what_is_committed_may_be_persisted() -> None:
    """With each transaction, from the first on, once it is so in memory: all below that offset."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        feed(owner, "a", "b")
        await asyncio.sleep(1.0)
        owner.drain(8.0)
        await task
        ends = [entry.offset + 1 for entry in world.log.entries(0) if entry.key == state.NEXT_KEY]
        assert owner.workload.persisted == list(zip(ends, (1, 3, 1), strict=True))

    play(story)


# --- the input -------------------------------------------------------------------------------------------------------


async def halted(world: World) -> tuple[Owner[Tally], asyncio.Task[None]]:
    """An owner that has taken three records, and then met a gap."""
    owner, task = await world.begun()
    feed(owner, "a", "b", "c")
    await asyncio.sleep(1.0)
    owner.halt("records 3 to 7 are gone")
    return owner, task


def test_gap_halts_the_input_and_nothing_else() -> None:
    """Events are not taken; attempts begin, and their outcomes are written."""

    async def story(world: World) -> None:
        owner, task = await halted(world)
        feed(owner, "x")
        owner.workload.attempts = 1
        owner.workload.end_attempts(b"applied")
        await asyncio.sleep(1.0)
        assert owner.workload.counts == {b"a": 1, b"b": 1, b"c": 1, b"applied": 1}
        assert (owner.phase, owner.detail, owner.may_send()) == (Phase.HALTED, "records 3 to 7 are gone", True)
        owner.halt("and another")
        assert (owner.phase, owner.detail) == (Phase.HALTED, "and another")
        owner.drain(8.0)
        await task
        assert world.written[-1] == "m:next 3 clean"

    play(story)


def test_operator_moves_a_halted_partition_on() -> None:
    """What was fed from the old position is dropped, and the input goes on at the new one once that is committed."""

    async def story(world: World) -> None:
        owner, task = await halted(world)
        feed(owner, "x")
        world.input.asked.clear()
        await owner.skip(8)
        assert (owner.phase, owner.detail, owner.position.next_offset) == (Phase.SERVING, "", 8)
        assert world.input.asked == [("seek", 0, 8), ("resume", 0)]
        assert world.written[-1] == "m:next 8"
        feed(owner, "y")
        await asyncio.sleep(1.0)
        assert (owner.workload.counts[b"y"], b"x" in owner.workload.counts) == (1, False)
        task.cancel()

    play(story)


@pytest.mark.parametrize(
    ("offset", "why"),
    [
        pytest.param(1_001, "holds offsets 0 to 1000", id="beyond the end"),
        pytest.param(1, "older revisions", id="back over what was taken"),
    ],
)
def test_move_that_is_refused(offset: int, why: str) -> None:
    """Nothing changes."""

    async def story(world: World) -> None:
        owner, task = await halted(world)
        with pytest.raises(UsageError, match=why):
            await owner.skip(offset)
        assert (owner.phase, owner.position.next_offset) == (Phase.HALTED, 3)
        task.cancel()

    play(story)


def test_one_move_at_a_time() -> None:
    """And none to where it is already, nor over what was taken meanwhile."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        with pytest.raises(UsageError, match="at offset 0 already"):
            await owner.skip(0)
        first = asyncio.create_task(owner.skip(1))
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="being moved already"):
            await owner.skip(2)
        await first
        task.cancel()

    play(story)


def test_move_that_events_have_overtaken() -> None:
    """It was checked against a position that is not the partition's any more."""

    async def story(world: World) -> None:
        owner, task = await world.begun()
        blocked = asyncio.Event()

        async def gate(step: str, _member: str, _partition: int) -> None:
            if step == "write":
                await blocked.wait()

        world.log.gate = gate
        feed(owner, "a", "b", "c", "d")
        await asyncio.sleep(1.0)
        move = asyncio.create_task(owner.skip(2))
        await asyncio.sleep(1.0)
        blocked.set()
        with pytest.raises(UsageError, match="has come to offset 4 meanwhile"):
            await move
        task.cancel()

    play(story)


def test_move_back_while_records_come_from_where_it_was() -> None:
    """The transaction is committed, and announced for a while, before the input is sought: what is fed meanwhile is
    from the former position, and must not hide what is wanted now.
    """

    async def story(world: World) -> None:
        owner, task = await halted(world)
        announce = owner.workload.announce

        async def announce_slowly(transaction: Sheet) -> None:
            await announce(transaction)
            feed(owner, "old", first=7)

        owner.workload.announce = announce_slowly  # type: ignore[method-assign]
        await owner.skip(4)
        owner.workload.announce = announce  # type: ignore[method-assign]
        feed(owner, "wanted", first=4)
        await asyncio.sleep(1.0)
        assert (owner.workload.counts.get(b"wanted"), b"old" in owner.workload.counts) == (1, False)
        task.cancel()

    play(story)


def test_move_that_nobody_makes() -> None:
    """The partition is handed over before: whoever asked is told to look again."""

    async def story(world: World) -> None:
        owner, task = await world.begun("w1")
        _, other = await world.begun("w2")
        with pytest.raises(UsageError, match=HANDED_OVER):
            await owner.skip(5)
        with pytest.raises(FencedError):
            await task
        with pytest.raises(UsageError, match="is closing"):
            await owner.skip(5)
        other.cancel()

    play(story)


def test_input_that_is_another_topic() -> None:
    """It does not hold the record that was taken last: it halts, and nothing of it is taken."""

    async def story(world: World) -> None:
        await world.drained("w1", "a", "b")
        owner, task = await world.begun("w2")
        feed(owner, "q", "r", first=1)
        await asyncio.sleep(1.0)
        assert (owner.phase, owner.workload.counts) == (Phase.HALTED, {b"a": 1, b"b": 1})
        assert world.input.asked[-1] == ("pause", 0)
        assert "the event topic is another one" in owner.detail
        task.cancel()

    play(story)


def test_record_that_retention_removed_is_not_waited_for() -> None:
    """The one that was to be seen again is gone, and what follows is not: the input goes on behind it."""

    async def story(world: World) -> None:
        await world.drained("w1", "a", "b")
        owner, task = await world.begun("w2")
        assert owner.position.wanted_offset == 1
        assert owner.position.give_up_check()
        assert (owner.position.wanted_offset, owner.position.give_up_check()) == (2, False)
        task.cancel()

    play(story)


def test_gap_that_is_found_while_nothing_is_taken() -> None:
    """Before it serves and while it drains there is nothing to halt: it would be found again."""

    async def story(world: World) -> None:
        owner = world.owner()
        owner.halt("a gap")
        assert owner.phase is Phase.RESTORING
        owner, task = await world.begun()
        owner.workload.attempts = 1
        owner.drain(8.0)
        owner.halt("a gap")
        assert (owner.phase, owner.detail) == (Phase.DRAINING, "")
        task.cancel()

    play(story)
