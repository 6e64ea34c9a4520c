"""Reading scenario files, with errors that name the file, the step, the member and what was expected."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from worker.config import parse_duration
from worker.core.commands import COMMANDS
from worker.errors import UsageError
from worker.sim.scripted import Answer
from worker.tools.scenario.matching import pattern_problem
from worker.tools.scenario.steps import (
    STEPS,
    ActStep,
    AnswersForStep,
    AnswerValue,
    CallbackStep,
    EndsForStep,
    ExpectDeadLettersStep,
    ExpectNoRequestStep,
    ExpectOrderStep,
    ExpectProviderStep,
    ExpectRequestsStep,
    ExpectResultsStep,
    OperatorStep,
    PushStep,
    QliroAct,
    RecordStep,
    RequestPattern,
    RunStep,
    Scenario,
    Step,
)

TEXT_MAX_BYTES = 64 * 1024 * 1024
"""The longest text that `{"repeat": [...]}` may produce."""

_T = TypeVar("_T")

_WITH_TEXTS = frozenset({"event", "record", "answers", "answers_for", "callback"})
"""Steps whose texts may be `{"repeat": [text, count]}`."""

_NESTING_MAX = 400


def find_files(path: Path) -> list[Path]:
    """The file, or all `*.json` in and below the folder. Raises `UsageError`."""
    if path.is_dir():
        found = sorted(path.rglob("*.json"))
        if not found:
            raise UsageError(f"{path}: no *.json files in this folder")
        return found
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    return [path]


def read_scenario(path: Path) -> Scenario:
    """The scenario in a file. Raises `UsageError` naming the file, the step, the member and what was expected."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {error}") from None
    if isinstance(value, dict):
        value.setdefault("name", path.stem)
    if _is_deep(value):
        raise UsageError(f"{path}: expected a scenario that is nested less deep; give such an event as a record")
    scenario = _convert(value, Scenario, f"{path}")
    steps = [read_step(step, f"{path}: step {number}") for number, step in enumerate(scenario.steps, 1)]
    return msgspec.structs.replace(scenario, steps=steps)


def _is_deep(value: Any) -> bool:
    """Whether it is nested beyond our own limit: the interpreter's differs between versions."""
    level = [value]
    for _ in range(_NESTING_MAX):
        inner = [list(each.values()) if isinstance(each, dict) else each for each in level]
        level = [each for values in inner if isinstance(values, list) for each in values]
        if not level:
            return False
    return True


def read_step(value: Any, where: str) -> Step:
    """Reads one step. Raises `UsageError` that begins with `where`."""
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
    if kind in _CHECKS:
        _CHECKS[kind](step, where)
    return step


def answers_of(values: Iterable[AnswerValue]) -> list[Answer]:
    """The script of the scripted provider."""
    return [_answer(value) for value in values]


# --- inside ---


def _answer(value: AnswerValue) -> Answer:
    times = None if value.forever else value.times or 1
    if value.fault is not None:
        after_s = parse_duration(value.applied_after) if value.applied_after else 0.0
        return Answer(fault=value.fault, applied_after_s=after_s, times=times, method=value.method)
    headers, body = {name: str(each) for name, each in value.headers.items()}, b""
    if value.json is not UNSET:
        body = json.dumps(value.json, ensure_ascii=False).encode("utf-8", "surrogatepass")
        if not any(name.lower() == "content-type" for name in headers):
            headers["content-type"] = "application/json"
    elif value.text is not None:
        body = value.text.encode("utf-8", "surrogatepass")
    assert value.status is not None  # checked when it was read
    return Answer(value.status, headers, body, times=times, method=value.method, applied=value.applied)


def _convert(value: Any, kind: type[_T], where: str) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        place = place.replace("`", "").removeprefix("key in ").removeprefix("$").removeprefix(".")
        what = what.removeprefix("Object ")
        what = what[:1].lower() + what[1:]
        raise UsageError(f"{where}: {place + ': ' if place else ''}{what}") from None


def _with_texts(value: Any, where: str) -> Any:
    """The value with each `{"repeat": [text, count]}` expanded."""
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


def _check_operator(step: OperatorStep, where: str) -> None:
    by_step = {command.step: command for command in COMMANDS.values()}
    if len(step.operator) != 1 or not step.operator.keys() <= by_step.keys():
        raise UsageError(f"{where}: operator: expected exactly one of {', '.join(by_step)}")
    (name,) = step.operator
    if by_step[name].needs_why and not step.why:
        raise UsageError(f"{where}: why: {name} needs a reason")


def _check_no_request(step: ExpectNoRequestStep, where: str) -> None:
    if not step.expect_no_request:
        raise UsageError(f"{where}: expect_no_request: expected true")


def _check_requests(step: ExpectRequestsStep, where: str) -> None:
    if isinstance(step.expect_requests, list):
        for index, pattern in enumerate(step.expect_requests):
            _check_request(pattern, f"{where}: expect_requests[{index}]")


def _check_order(step: ExpectOrderStep, where: str) -> None:
    for member in ("shipped", "unshipped", "provider"):
        _check_pattern(getattr(step.expect_order, member), f"{where}: expect_order.{member}")


def _check_dead_letters(step: ExpectDeadLettersStep, where: str) -> None:
    for index, letter in enumerate(step.expect_dead_letters):
        _check_pattern(letter.reason, f"{where}: expect_dead_letters[{index}].reason")


def _check_all_answers(step: AnswersForStep, where: str) -> None:
    for name, answers in step.answers_for.items():
        _check_answers(answers, f"{where}: answers_for.{name}")


def _check_record(step: RecordStep, where: str) -> None:
    record, where = step.record, f"{where}: record"
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
    if answer.fault is not None and answer.applied is not None:
        return "applied: only allowed with a status; a fault's name says it"
    if answer.applied_after is not None:
        if answer.fault is None or not answer.fault.endswith("_applied"):
            return "applied_after: only allowed with a fault that applies the request"
        return _duration_problem(answer.applied_after, "applied_after")
    if answer.times is not None and (answer.times < 1 or answer.forever):
        return "times: expected a count of at least 1, without forever"
    return None


def _check_run(step: RunStep, where: str) -> None:
    if (step.run == "idle") != (step.within is not None):
        raise UsageError(f'{where}: expected "within" with "run": "idle", and only there')
    problem = _duration_problem(step.run if step.within is None else step.within, "run")
    if problem:
        raise UsageError(f"{where}: {problem}")


def _check_ends(step: EndsForStep, where: str) -> None:
    for name, ends in step.ends_for.items():
        for index, end in enumerate(ends):
            if problem := _duration_problem(end.after, "after"):
                raise UsageError(f"{where}: ends_for.{name}[{index}].{problem}")


def _check_act(step: ActStep, where: str) -> None:
    for name, what in step.act.items():
        if isinstance(what, QliroAct) and sum(map(bool, (what.capture, what.reserve, what.cancel))) != 1:
            raise UsageError(f"{where}: act.{name}: expected exactly one of capture, reserve, cancel")


def _check_callback(step: CallbackStep, where: str) -> None:
    value = step.callback
    if sum((value.body is not UNSET, value.form is not None, value.text is not None)) > 1:
        raise UsageError(f"{where}: callback: expected one of body, form, text")
    _check_answer(step, where)


def _check_answer(step: CallbackStep | PushStep, where: str) -> None:
    _check_pattern(step.expect_answer.json, f"{where}: expect_answer.json")
    if step.expect_answer.within is not None:
        problem = _duration_problem(step.expect_answer.within, "within")
        if problem:
            raise UsageError(f"{where}: expect_answer.{problem}")


def _check_provider(step: ExpectProviderStep, where: str) -> None:
    for name, pattern in step.expect_provider.items():
        for member in ("captured", "reserved"):
            _check_pattern(getattr(pattern, member), f"{where}: expect_provider.{name}.{member}")


def _check_results(step: ExpectResultsStep, where: str) -> None:
    for index, pattern in enumerate(step.expect_results):
        _check_pattern(pattern, f"{where}: expect_results[{index}]")


def _check_request(pattern: RequestPattern, where: str) -> None:
    for member in ("method", "url", "headers", "body", "form"):
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


_CHECKS: dict[str, Callable[[Any, str], None]] = {
    "record": _check_record,
    "answers": lambda step, where: _check_answers(step.answers, f"{where}: answers"),
    "answers_for": _check_all_answers,
    "ends_for": _check_ends,
    "act": _check_act,
    "push": _check_answer,
    "callback": _check_callback,
    "run": _check_run,
    "operator": _check_operator,
    "expect_requests": _check_requests,
    "expect_no_request": _check_no_request,
    "expect_order": _check_order,
    "expect_dead_letters": _check_dead_letters,
    "expect_provider": _check_provider,
    "expect_results": _check_results,
}
"""By kind of step: checks beyond the types. Each raises `UsageError`."""
