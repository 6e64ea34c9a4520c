"""The format of scenario files: the contract with users, as types.

An unknown member is an error, so that a misspelled expectation cannot pass.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.views import Status
from worker.sandbox.atarapay.escrow import Act
from worker.sim.scripted import FaultName

Texts = str | list[str]


class RecordValue(Struct, frozen=True, forbid_unknown_fields=True):
    """A raw record for the log."""

    key: str | None = None
    value: str | None = None
    value_base64: str | None = None
    headers: dict[str, str] = {}
    partition: int | None = None


class AnswerValue(Struct, frozen=True, forbid_unknown_fields=True):
    """One response of the provider, or a network fault."""

    status: int | None = None
    headers: dict[str, str | int] = {}
    json: Any | UnsetType = UNSET
    text: str | None = None
    fault: FaultName | None = None
    applied_after: str | None = None
    times: int | None = None
    forever: bool = False
    method: Literal["GET", "POST", "PUT"] | None = None
    applied: bool | None = None


class CheckoutItem(Struct, frozen=True, forbid_unknown_fields=True):
    """A line as the checkout sends it to Qliro: prices with tax, in minor units."""

    reference: str
    unit_price_minor: int
    quantity: Annotated[int, Meta(ge=1)] = 1
    type: Literal["Product", "Discount", "Fee", "Shipping"] = "Product"
    vat_rate_bp: Annotated[int, Meta(ge=0)] = 0
    description: str = ""


class Checkout(Struct, frozen=True, forbid_unknown_fields=True):
    """The order after checkout at the provider: `items` at Qliro, `amount_minor` at AtaraPay."""

    order: int | str
    currency: str | None = None
    method: str | None = None
    items: list[CheckoutItem] = []
    amount_minor: int | None = None


class QliroAct(Struct, frozen=True, forbid_unknown_fields=True):
    """An action at Qliro itself."""

    capture: list[CheckoutItem] = []
    reserve: list[CheckoutItem] = []
    cancel: bool = False


class EndValue(Struct, frozen=True, forbid_unknown_fields=True):
    """How a command of Qliro's ends."""

    after: str = "1s"
    status: Literal["Success", "Error", "Cancelled"] = "Success"
    code: str = ""
    words: str = ""


class CallbackValue(Struct, frozen=True, forbid_unknown_fields=True):
    """A call to the receiver; `body` is JSON, `text` is sent verbatim."""

    account: str
    purpose: str
    reference: str = ""
    body: Any | UnsetType = UNSET
    form: dict[str, str] | None = None
    text: str | None = None
    headers: dict[str, str] = {}
    token: Literal["right", "wrong", "missing", "of_another_order"] = "right"  # noqa: S105 - which one, not the token
    kafka: Literal["there", "away"] = "there"


class PushValue(Struct, frozen=True, forbid_unknown_fields=True):
    """A push of the model: the oldest kept one, or the last delivered one again."""

    order: str
    again: bool = False
    times: Annotated[int, Meta(ge=1, le=1_000)] = 1


class AnswerPattern(Struct, frozen=True, forbid_unknown_fields=True):
    """The expected response to a call."""

    status: int | UnsetType = UNSET
    json: Any | UnsetType = UNSET
    within: str | None = None


class RequestPattern(Struct, frozen=True, forbid_unknown_fields=True):
    """An expected request; omitted members are not compared."""

    method: Any | UnsetType = UNSET
    url: Any | UnsetType = UNSET
    headers: dict[str, Any] | UnsetType = UNSET
    body: Any | UnsetType = UNSET
    form: dict[str, Any] | UnsetType = UNSET
    after: str | None = None
    before: str | None = None


class RequestCount(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of the number of requests."""

    at_least: int = 0
    at_most: int | None = None


class OrderPattern(Struct, frozen=True, forbid_unknown_fields=True):
    """The expected state of an order."""

    subject: str
    status: Status | UnsetType = UNSET
    reason_contains: Texts = []
    shipped_minor: int | UnsetType | None = UNSET
    unshipped_minor: int | UnsetType | None = UNSET
    shipped: list[Any] | UnsetType | None = UNSET
    unshipped: list[Any] | UnsetType | None = UNSET
    provider: dict[str, Any] | UnsetType | None = UNSET


class DeadLetterPattern(Struct, frozen=True, forbid_unknown_fields=True):
    """An expected dead letter."""

    reason: Any | UnsetType = UNSET
    detail_contains: Texts = []


class HeldPattern(Struct, frozen=True, forbid_unknown_fields=True):
    """The carts that the provider should have for an order."""

    shipped_minor: int | UnsetType = UNSET
    unshipped_minor: int | UnsetType = UNSET


class ProviderPattern(Struct, frozen=True, forbid_unknown_fields=True):
    """The expected state of an order in a model: the first six members at Qliro, the others at AtaraPay."""

    captured: dict[str, Any] | UnsetType = UNSET
    captured_minor: int | UnsetType = UNSET
    reserved: dict[str, Any] | UnsetType = UNSET
    reserved_minor: int | UnsetType = UNSET
    pending: int | UnsetType = UNSET
    cancelled: bool | UnsetType = UNSET
    state: str | UnsetType = UNSET
    words: list[str] | UnsetType = UNSET


class EventStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Appends an event to the log; default of `key`: the event's subject; of `partition`: its key's."""

    event: dict[str, Any]
    key: str | UnsetType | None = UNSET
    partition: int | None = None


class RecordStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Appends a raw record to the log."""

    record: RecordValue


class AnswersStep(Struct, frozen=True, forbid_unknown_fields=True):
    """The provider's responses to the next requests."""

    answers: list[AnswerValue]


class AnswersForStep(Struct, frozen=True, forbid_unknown_fields=True):
    """The provider's responses to the next requests about certain orders."""

    answers_for: dict[str, list[AnswerValue]]


class CheckoutStep(Struct, frozen=True, forbid_unknown_fields=True):
    """The shopper has paid: from now on a model responds for the account."""

    checkout: dict[str, Checkout]


class ActStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody acts at the provider itself."""

    act: dict[str, Act | QliroAct]


class EndsForStep(Struct, frozen=True, forbid_unknown_fields=True):
    """How the next commands of certain orders end."""

    ends_for: dict[str, list[EndValue]]


class PushesStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether models push automatically."""

    pushes: Literal["auto", "hold"]


class PushStep(Struct, frozen=True, forbid_unknown_fields=True):
    """A model pushes."""

    push: PushValue
    expect_answer: AnswerPattern = AnswerPattern()


class CallbackStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody calls the receiver."""

    callback: CallbackValue
    expect_answer: AnswerPattern = AnswerPattern()


class RunStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Lets virtual time pass: a given amount, or until nothing is owed."""

    run: str
    within: str | None = None


class RestartStep(Struct, frozen=True, forbid_unknown_fields=True):
    """A new worker takes over."""

    restart: Literal["clean", "crash"]


class OperatorStep(Struct, frozen=True, forbid_unknown_fields=True):
    """An operator's command (`Command.step`), and the order or account."""

    operator: dict[str, str]
    by: str = ""
    why: str = ""


class ExpectRequestsStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Expects the requests since the last such step."""

    expect_requests: list[RequestPattern] | RequestCount
    any_order: bool = False


class ExpectNoRequestStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Expects no request since the last such step."""

    expect_no_request: bool


class ExpectOrderStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Expects the state of an order."""

    expect_order: OrderPattern


class ExpectDeadLettersStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Expects the dead letters since the last such step."""

    expect_dead_letters: list[DeadLetterPattern]


class ExpectHeldStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Expects the carts that the provider has for certain orders."""

    expect_held: dict[str, HeldPattern | None]


class ExpectProviderStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Expects the state of certain orders in the models."""

    expect_provider: dict[str, ProviderPattern]


class ExpectResultsStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Expects the results since the last such step."""

    expect_results: list[dict[str, Any]]
    any_order: bool = False


class ExpectLogLacksStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Texts that no log line, metric label or dead-letter header may contain."""

    expect_log_lacks: list[str]


Step = (
    EventStep
    | RecordStep
    | AnswersStep
    | AnswersForStep
    | CheckoutStep
    | ActStep
    | EndsForStep
    | PushesStep
    | PushStep
    | CallbackStep
    | RunStep
    | RestartStep
    | OperatorStep
    | ExpectRequestsStep
    | ExpectNoRequestStep
    | ExpectOrderStep
    | ExpectDeadLettersStep
    | ExpectHeldStep
    | ExpectProviderStep
    | ExpectResultsStep
    | ExpectLogLacksStep
)

STEPS: dict[str, type[Step]] = {
    "event": EventStep,
    "record": RecordStep,
    "answers": AnswersStep,
    "answers_for": AnswersForStep,
    "checkout": CheckoutStep,
    "act": ActStep,
    "ends_for": EndsForStep,
    "pushes": PushesStep,
    "push": PushStep,
    "callback": CallbackStep,
    "run": RunStep,
    "restart": RestartStep,
    "operator": OperatorStep,
    "expect_requests": ExpectRequestsStep,
    "expect_no_request": ExpectNoRequestStep,
    "expect_order": ExpectOrderStep,
    "expect_dead_letters": ExpectDeadLettersStep,
    "expect_held": ExpectHeldStep,
    "expect_provider": ExpectProviderStep,
    "expect_results": ExpectResultsStep,
    "expect_log_lacks": ExpectLogLacksStep,
}


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """One file, decoded and validated."""

    name: str
    steps: list[Any]
    """`Step`s, decoded."""
    title: str = ""
    source: str = ""
    accounts: dict[str, dict[str, Any]] | None = None
    settings: dict[str, Any] = {}


def kind_of(step: Step) -> str:
    """The member that determines a step's kind."""
    return next(kind for kind, type_ in STEPS.items() if type_ is type(step))
