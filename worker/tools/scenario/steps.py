"""What may stand in a scenario file: the contract with users, as types.

A member that is not known is an error, so that a misspelt expectation cannot pass for one that is met.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from worker.sim.scripted import FaultName

Texts = str | list[str]


class RecordValue(Struct, frozen=True, forbid_unknown_fields=True):
    """A raw record, as it will stand in the log."""

    key: str | None = None
    value: str | None = None
    value_base64: str | None = None
    headers: dict[str, str] = {}
    partition: int | None = None


class AnswerValue(Struct, frozen=True, forbid_unknown_fields=True):
    """One answer of the provider, or a fault on the way to it or back."""

    status: int | None = None
    headers: dict[str, str | int] = {}
    json: Any | UnsetType = UNSET
    text: str | None = None
    fault: FaultName | None = None
    applied_after: str | None = None
    times: int | None = None
    forever: bool = False


class RequestPattern(Struct, frozen=True, forbid_unknown_fields=True):
    """An expected request; what is not given is not looked at."""

    method: Any | UnsetType = UNSET
    url: Any | UnsetType = UNSET
    headers: dict[str, Any] | UnsetType = UNSET
    body: Any | UnsetType = UNSET
    after: str | None = None
    before: str | None = None


class RequestCount(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of the number of requests."""

    at_least: int = 0
    at_most: int | None = None


class OrderPattern(Struct, frozen=True, forbid_unknown_fields=True):
    """What an order should look like."""

    subject: str
    status: Literal["unconfirmed", "refused", "on_hold", "inconsistent", "parked", "owed", "settled"] | UnsetType = (
        UNSET
    )
    reason_contains: Texts = []
    shipped_minor: int | UnsetType | None = UNSET
    unshipped_minor: int | UnsetType | None = UNSET
    shipped: list[Any] | UnsetType | None = UNSET
    unshipped: list[Any] | UnsetType | None = UNSET


class DeadLetterPattern(Struct, frozen=True, forbid_unknown_fields=True):
    """An expected dead letter."""

    reason: Any | UnsetType = UNSET
    detail_contains: Texts = []


class HeldPattern(Struct, frozen=True, forbid_unknown_fields=True):
    """The carts that the provider should hold of an order."""

    shipped_minor: int | UnsetType = UNSET
    unshipped_minor: int | UnsetType = UNSET


class EventStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Puts an event into the log; `key` is the event's subject unless given, `partition` where its key belongs."""

    event: dict[str, Any]
    key: str | UnsetType | None = UNSET
    partition: int | None = None


class RecordStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Puts a raw record into the log."""

    record: RecordValue


class AnswersStep(Struct, frozen=True, forbid_unknown_fields=True):
    """What the provider does with the next requests."""

    answers: list[AnswerValue]


class AnswersForStep(Struct, frozen=True, forbid_unknown_fields=True):
    """What it does with the next requests of certain orders."""

    answers_for: dict[str, list[AnswerValue]]


class RunStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Lets virtual time pass: so much, or until nothing is owed."""

    run: str
    within: str | None = None


class RestartStep(Struct, frozen=True, forbid_unknown_fields=True):
    """A new worker takes over."""

    restart: Literal["clean", "crash"]


class OperatorStep(Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator does."""

    operator: dict[Literal["release", "resend", "resume_account"], str]


class ExpectRequestsStep(Struct, frozen=True, forbid_unknown_fields=True):
    """The requests since the last such step."""

    expect_requests: list[RequestPattern] | RequestCount
    any_order: bool = False


class ExpectNoRequestStep(Struct, frozen=True, forbid_unknown_fields=True):
    """None since the last such step."""

    expect_no_request: bool


class ExpectOrderStep(Struct, frozen=True, forbid_unknown_fields=True):
    """What an order looks like."""

    expect_order: OrderPattern


class ExpectDeadLettersStep(Struct, frozen=True, forbid_unknown_fields=True):
    """The dead letters since the last such step."""

    expect_dead_letters: list[DeadLetterPattern]


class ExpectHeldStep(Struct, frozen=True, forbid_unknown_fields=True):
    """What the provider holds of certain orders."""

    expect_held: dict[str, HeldPattern | None]


class ExpectLogLacksStep(Struct, frozen=True, forbid_unknown_fields=True):
    """What no log line, metric label or dead-letter header may contain."""

    expect_log_lacks: list[str]


Step = (
    EventStep
    | RecordStep
    | AnswersStep
    | AnswersForStep
    | RunStep
    | RestartStep
    | OperatorStep
    | ExpectRequestsStep
    | ExpectNoRequestStep
    | ExpectOrderStep
    | ExpectDeadLettersStep
    | ExpectHeldStep
    | ExpectLogLacksStep
)

STEPS: dict[str, type[Step]] = {
    "event": EventStep,
    "record": RecordStep,
    "answers": AnswersStep,
    "answers_for": AnswersForStep,
    "run": RunStep,
    "restart": RestartStep,
    "operator": OperatorStep,
    "expect_requests": ExpectRequestsStep,
    "expect_no_request": ExpectNoRequestStep,
    "expect_order": ExpectOrderStep,
    "expect_dead_letters": ExpectDeadLettersStep,
    "expect_held": ExpectHeldStep,
    "expect_log_lacks": ExpectLogLacksStep,
}


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """One file, read and checked."""

    name: str
    steps: list[Any]
    """Of `Step`, once it is read."""
    title: str = ""
    source: str = ""
    accounts: dict[str, dict[str, Any]] | None = None
    settings: dict[str, Any] = {}


def kind_of(step: Step) -> str:
    """The member that says what a step is."""
    return next(kind for kind, type_ in STEPS.items() if type_ is type(step))
