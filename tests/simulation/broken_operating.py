"""Breaks of what operators' events do: once, and until another one says otherwise."""

from typing import Any

from tests.simulation.breaks import Breaks
from worker.core import effects
from worker.orders import loading
from worker.orders.operating import Operating
from worker.publisher.publisher import Publisher

breaks = Breaks()


@breaks(effects, "is_repeat")
def operator_event_taken_twice(_real: Any) -> Any:
    """At least once in Kafka: a repeat changes nothing."""
    return lambda _record, _event: False


@breaks(Operating, "_done")
def operators_doing_not_told(_real: Any) -> Any:
    """The audit trail lacks nothing."""
    return lambda *_args: None


@breaks(effects, "with_seen")
def operator_event_not_remembered(_real: Any) -> Any:
    """What was taken stands in the record: a restart changes nothing about that."""
    return lambda seen, _uid: seen


@breaks(loading, "_member_of")
def pause_forgotten_by_a_restore(real: Any) -> Any:
    """A pause reaches workers that start later."""
    return lambda key: None if key.startswith(b"a:") else real(key)


@breaks(Publisher, "pause_accounts")
def pause_not_obeyed(_real: Any) -> Any:
    """Nothing is sent while an operator has paused the account."""
    return lambda _self, _source, _paused: None
