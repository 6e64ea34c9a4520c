"""Breaks of the rules that stand in the way of charging, or paying back, twice: where a provider can be asked first."""

from typing import Any

from msgspec.structs import replace

from schemas.state import OrderRecord
from tests.simulation.breaks import Breaks
from worker.core import record as records
from worker.model.exchange import Exchange, Outcome, OutcomeKind, Settled
from worker.model.provider import Question
from worker.orders import batch
from worker.providers.atarapay import steps as atarapay
from worker.providers.qliro import Qliro, money, returning, situation
from worker.providers.qliro import plan as qliro_plan
from worker.providers.qliro import responses as qliro_responses
from worker.providers.qliro import steps as qliro
from worker.providers.qliro.memory import Memory
from worker.providers.qliro.order import QliroOrder, Units
from worker.publisher import publisher

breaks = Breaks()


# --- a command and what becomes of it ---


@breaks(Qliro, "next_step")
def command_without_a_look(real: Any) -> Any:
    """After an outcome that nobody knows, too: what was seen once is taken for what is."""
    seen: dict[str, Any] = {}

    def next_step(self: Qliro, asked: Question) -> Any:
        if asked.seen is None and asked.reference in seen:
            asked = replace(asked, seen=seen[asked.reference])
        elif asked.seen is not None:
            seen[asked.reference] = asked.seen
        return real(self, asked)

    return next_step


@breaks(qliro, "after_read")
def second_command_while_one_is_pending(real: Any) -> Any:
    """One transaction at a time: neither what is remembered of it counts, …"""
    return lambda *args, **named: replace(real(*args, **named), pending=[])


@breaks(QliroOrder, "not_final")  # type: ignore[no-redef]
def second_command_while_one_is_pending(_real: Any) -> Any:  # noqa: F811
    """… nor what is seen."""
    return property(lambda _self: [])


@breaks(publisher._Unanswered, "sends")
def command_without_an_answer_taken_for_a_read(real: Any) -> Any:
    """Nobody knows whether it arrived: it is held."""
    return lambda self, step: real(self, replace(step, is_read=True))


@breaks(publisher.Publisher, "_take_turn")
def unknown_command_taken_for_a_read(real: Any) -> Any:
    """What an answer leaves open is held, too."""

    async def take_turn(self: Any, *args: Any) -> Outcome:
        outcome: Outcome = await real(self, *args)
        return replace(outcome, kind=OutcomeKind.REJECTED) if outcome.kind is OutcomeKind.UNKNOWN else outcome

    return take_turn


@breaks(publisher, "_of_read")
def unknown_read_taken_for_a_command(_real: Any) -> Any:
    """A read that has failed leaves nothing to be held for."""
    return lambda outcome: outcome


@breaks(batch, "settle")
def remote_not_written_with_the_outcome(real: Any) -> Any:
    """What the adapter has to keep stands in the transaction of the outcome."""

    def settle(record: OrderRecord, revision: int, digest: bytes, outcome: Outcome, **named: Any) -> Any:
        return real(record, revision, digest, replace(outcome, remote=None), **named)

    return settle


# --- RequestIds ---


@breaks(Memory, "sending")
def generation_raised_too_early(real: Any) -> Any:
    """While nobody knows whether a command arrived, the same step is the same request."""

    def sending(self: Memory, intent: Any) -> Memory:
        after: Memory = real(self, intent)
        return replace(after, generation=after.generation + 1)

    return sending


@breaks(qliro_responses, "_certain")
def generation_not_raised_after_a_refusal(real: Any) -> Any:
    """Qliro answers the same RequestId from memory."""
    return lambda memory: replace(real(memory), generation=memory.generation)


@breaks(qliro, "after_read")
def denied_request_sent_again(real: Any) -> Any:
    """A RequestId that was refused when it came again, and has led to nothing, is not used any more."""
    return lambda *args, **named: replace(real(*args, **named), denied=b"")


# --- what was heard ---


@breaks(batch, "settle")
def hint_in_flight_ignored(real: Any) -> Any:
    """`heard`: what an attempt under way has not seen does not wait with it."""

    def settle(record: Any, *args: Any, **named: Any) -> Any:
        heard = record.heard
        record.heard = 0
        after, hold_s = real(record, *args, **named)
        record.heard = after.heard = heard
        return after, hold_s

    return settle


@breaks(records, "_applied")
def doubt_cleared_by_an_older_attempt(real: Any) -> Any:
    """What was heard since is still to be looked at."""

    def applied(*args: Any) -> Any:
        after = real(*args)
        after.remote_unknown = False
        return after

    return applied


@breaks(records, "_hear")
def wait_not_ended_by_a_hint(real: Any) -> Any:
    """A result that comes ends the wait for it."""

    def hear(record: OrderRecord) -> None:
        waiting = record.not_before_ms, record.not_found_delay, record.delay_ms
        real(record)
        record.not_before_ms, record.not_found_delay, record.delay_ms = waiting

    return hear


# --- units and amounts ---


@breaks(qliro_plan, "of")
def capture_not_bounded_by_what_is_reserved(real: Any) -> Any:
    """Never more of an item than its reservation has."""
    return lambda units: [replace(line, count=10 * line.count) for line in real(units)]


@breaks(returning, "of")
def return_not_bounded_by_what_was_captured(real: Any) -> Any:
    """Never more of an item than is left of its capture."""
    return lambda units: [replace(line, count=10 * line.count) for line in real(units)]


@breaks(situation, "match")
def units_captured_twice(real: Any) -> Any:
    """What has left is captured once, also while more is reserved."""

    def match(*args: Any) -> Any:
        found = real(*args)
        found.ship += found.ship
        return found

    return match


@breaks(situation, "match")
def captured_units_forgotten(real: Any) -> Any:
    """What was captured before is taken off what has left."""

    return lambda wanted, _net, left, ahead: real(wanted, Units(), left, ahead)


@breaks(money.Books, "sent")
def refund_told_twice(_real: Any) -> Any:
    """What was told of an amount is taken off it."""
    return lambda *_args, **_named: 0


@breaks(money, "kept_back")
def fee_charged_twice(real: Any) -> Any:
    """A return's fee is kept back once."""

    def kept_back(wanted: Any, *args: Any) -> Any:
        return replace(real(wanted, *args), uncharged=[back for back in wanted.backs if back.fee_minor])

    return kept_back


# --- the one word of AtaraPay ---


@breaks(atarapay, "_must_read")
def word_repeated_without_asking(_real: Any) -> Any:
    """Order Status goes before each word but the first."""
    return lambda *_args, **_named: False


@breaks(atarapay, "_after_reading")
def word_told_whatever_the_state(real: Any) -> Any:
    """A word is for the states that it can be taken in."""

    def after_reading(asked: Question, wanted: Any, known: Any, seen: Any) -> Any:
        step = real(asked, wanted, known, seen)
        tells = wanted.word and wanted.number and (wanted.phone or wanted.word != "delivered")
        return (
            atarapay._send(asked, wanted, known, seen) if tells and not isinstance(step, Exchange | Settled) else step
        )

    return after_reading


@breaks(atarapay, "is_due")
def second_word_without_a_second_attempt(real: Any) -> Any:
    """What was taken is told once more only for a newer delivery."""
    return lambda wanted, known: bool(wanted.word) or real(wanted, known)
