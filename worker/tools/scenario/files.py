"""Scenario files: what may stand in them, and reading them with errors that name the place.

The format is a contract with users (README, section Scenarios): a member or a step that is not known is an error, so
that a misspelt expectation cannot pass for one that is met.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from worker.config import parse_duration
from worker.errors import UsageError
from worker.sim.scripted import Answer, FaultName
from worker.tools.scenario.matching import pattern_problem

TEXT_MAX_BYTES = 64 * 1024 * 1024
"""The longest text that `{"repeat": [...]}` may make."""

Texts = str | list[str]

_T = TypeVar("_T")


class RecordValue(Struct, frozen=True, forbid_unknown_fields=True):
    """A raw record, as it will stand in the log."""

    key: str | None = None
    value: str | None = None
    value_base64: str | None = None
    headers: dict[str, str] = {}


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
    shipped_minor: int | None | UnsetType = UNSET
    unshipped_minor: int | None | UnsetType = UNSET
    shipped: list[Any] | None | UnsetType = UNSET
    unshipped: list[Any] | None | UnsetType = UNSET


class DeadLetterPattern(Struct, frozen=True, forbid_unknown_fields=True):
    """An expected dead letter."""

    reason: Any | UnsetType = UNSET
    detail_contains: Texts = []


class HeldPattern(Struct, frozen=True, forbid_unknown_fields=True):
    """The carts that the provider should hold of an order."""

    shipped_minor: int | UnsetType = UNSET
    unshipped_minor: int | UnsetType = UNSET


class EventStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Puts an event into the log; `key` is the event's subject unless given."""

    event: dict[str, Any]
    key: str | None | UnsetType = UNSET


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
_WITH_TEXTS = frozenset({"event", "record", "answers", "answers_for"})
"""Steps whose texts may be `{"repeat": [text, count]}`."""


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """One file, read and checked."""

    name: str
    steps: list[Any]
    """Of `Step`, as `read_scenario` leaves them."""
    title: str = ""
    source: str = ""
    accounts: dict[str, dict[str, Any]] | None = None
    settings: dict[str, Any] = {}


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, and all `*.json` in and below the folders that are. Raises `UsageError`."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(path.rglob("*.json"))
            if not found:
                raise UsageError(f"{path}: there is no *.json in this folder")
            files += found
        elif path.exists():
            files.append(path)
        else:
            raise UsageError(f"{path}: there is no such file or folder")
    return files


def read_scenario(path: Path) -> Scenario:
    """The scenario in a file. Raises `UsageError` naming the file, the step, the member and what was expected."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {error}") from None
    if isinstance(value, dict):
        value.setdefault("name", path.stem)
    scenario = _convert(value, Scenario, f"{path}")
    steps = [read_step(step, f"{path}: step {number}") for number, step in enumerate(scenario.steps, 1)]
    return msgspec.structs.replace(scenario, steps=steps)


def read_step(value: Any, where: str) -> Step:
    """One step. Raises `UsageError` that begins with `where`."""
    if not isinstance(value, dict):
        raise UsageError(f"{where}: expected an object, got {_type(value)}")
    kinds = [member for member in value if member in STEPS]
    if len(kinds) != 1:
        got = ", ".join(kinds or value) or "nothing"
        raise UsageError(f"{where}: expected exactly one of {', '.join(STEPS)}, got {got}")
    kind = kinds[0]
    if kind in _WITH_TEXTS:
        value = value | {kind: _with_texts(value[kind], where)}
    step = _convert(value, STEPS[kind], where)
    _check(step, where)
    return step


def kind_of(step: Step) -> str:
    """The member that says what a step is."""
    return next(kind for kind, type_ in STEPS.items() if type_ is type(step))


def answers_of(values: Iterable[AnswerValue]) -> list[Answer]:
    """What the scripted provider is told."""
    return [_answer(value) for value in values]


# --- inside ---


def _answer(value: AnswerValue) -> Answer:
    times = None if value.forever else value.times or 1
    if value.fault is not None:
        after_s = parse_duration(value.applied_after) if value.applied_after else 0.0
        return Answer(fault=value.fault, applied_after_s=after_s, times=times)
    headers, body = {name: str(each) for name, each in value.headers.items()}, b""
    if value.json is not UNSET:
        body = json.dumps(value.json, ensure_ascii=False).encode("utf-8", "surrogatepass")
        if not any(name.lower() == "content-type" for name in headers):
            headers["content-type"] = "application/json"
    elif value.text is not None:
        body = value.text.encode("utf-8", "surrogatepass")
    assert value.status is not None  # checked by `_check`
    return Answer(value.status, headers, body, times=times)


def _convert(value: Any, kind: type[_T], where: str) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        place = place.strip("`").removeprefix("$").removeprefix(".")
        what = what.removeprefix("Object ")
        what = what[:1].lower() + what[1:]
        raise UsageError(f"{where}: {place + ': ' if place else ''}{what}") from None


def _with_texts(value: Any, where: str) -> Any:
    """The value with each `{"repeat": [text, count]}` written out."""
    match value:
        case {"repeat": [str(text), int(count)]} if len(value) == 1 and not isinstance(count, bool):
            if count < 0 or len(text) * count > TEXT_MAX_BYTES:
                raise UsageError(f"{where}: repeat: expected a text of at most {TEXT_MAX_BYTES} characters")
            return text * count
        case dict():
            return {member: _with_texts(each, where) for member, each in value.items()}
        case list():
            return [_with_texts(each, where) for each in value]
        case _:
            return value


def _check(step: Step, where: str) -> None:
    """What the types do not say. Raises `UsageError`."""
    match step:
        case RecordStep():
            _check_record(step.record, f"{where}: record")
        case AnswersStep():
            _check_answers(step.answers, f"{where}: answers")
        case AnswersForStep():
            for name, answers in step.answers_for.items():
                _check_answers(answers, f"{where}: answers_for.{name}")
        case RunStep():
            _check_run(step, where)
        case OperatorStep() if len(step.operator) != 1:
            raise UsageError(f"{where}: operator: expected exactly one of release, resend, resume_account")
        case ExpectNoRequestStep() if not step.expect_no_request:
            raise UsageError(f"{where}: expect_no_request: expected true")
        case ExpectRequestsStep(expect_requests=list(patterns)):
            for index, pattern in enumerate(patterns):
                _check_request(pattern, f"{where}: expect_requests[{index}]")
        case ExpectOrderStep():
            for member in ("shipped", "unshipped"):
                _check_pattern(getattr(step.expect_order, member), f"{where}: expect_order.{member}")
        case ExpectDeadLettersStep():
            for index, letter in enumerate(step.expect_dead_letters):
                _check_pattern(letter.reason, f"{where}: expect_dead_letters[{index}].reason")
        case _:
            pass


def _check_record(record: RecordValue, where: str) -> None:
    if record.value is not None and record.value_base64 is not None:
        raise UsageError(f"{where}: expected value or value_base64, got both")
    if record.value_base64 is not None:
        try:
            msgspec.convert(record.value_base64, bytes)
        except msgspec.ValidationError:
            raise UsageError(f"{where}.value_base64: expected base64") from None


def _check_answers(answers: list[AnswerValue], where: str) -> None:
    for index, answer in enumerate(answers):
        problem = _answer_problem(answer)
        if problem:
            raise UsageError(f"{where}[{index}]: {problem}")


def _answer_problem(answer: AnswerValue) -> str | None:
    if (answer.status is None) == (answer.fault is None):
        return "expected either status or fault"
    if answer.status is not None and not 100 <= answer.status <= 999:
        return f"status: expected an HTTP status, got {answer.status}"
    if answer.json is not UNSET and answer.text is not None:
        return "expected json or text, got both"
    if answer.fault is not None and (answer.headers or answer.json is not UNSET or answer.text is not None):
        return "a fault has no headers, json or text: the answer does not arrive"
    if answer.applied_after is not None:
        if answer.fault is None or not answer.fault.endswith("_applied"):
            return "applied_after: expected beside a fault that applies"
        return _duration_problem(answer.applied_after, "applied_after")
    if answer.times is not None and (answer.times < 1 or answer.forever):
        return "times: expected a count of at least 1, without forever"
    return None


def _check_run(step: RunStep, where: str) -> None:
    if (step.run == "idle") != (step.within is not None):
        raise UsageError(f'{where}: expected "within" beside "run": "idle", and only there')
    problem = _duration_problem(step.run if step.within is None else step.within, "run")
    if problem:
        raise UsageError(f"{where}: {problem}")


def _check_request(pattern: RequestPattern, where: str) -> None:
    for member in ("method", "url", "headers", "body"):
        _check_pattern(getattr(pattern, member), f"{where}.{member}")
    for member in ("after", "before"):
        text = getattr(pattern, member)
        problem = None if text is None else _duration_problem(text, member)
        if problem:
            raise UsageError(f"{where}: {problem}")


def _check_pattern(pattern: Any, where: str) -> None:
    problem = None if pattern is UNSET else pattern_problem(pattern)
    if problem:
        raise UsageError(f"{where}: {problem}")


def _duration_problem(text: str, member: str) -> str | None:
    try:
        parse_duration(text)
    except ValueError as error:
        return f"{member}: {error}"
    return None


def _type(value: Any) -> str:
    return {list: "a list", str: "a text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
