"""Plays a scenario: runs its steps, and collects failed expectations."""

import base64
import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import UNSET

from schemas.base import RuleError, parse_time_us
from worker.config import WorkerSection, parse_duration
from worker.core.commands import COMMANDS
from worker.core.placing import Placing
from worker.core.trust import GUARDED, HEADER, Trust
from worker.errors import InvariantError, UsageError
from worker.model.account import Account
from worker.model.callbacks import Caller
from worker.sim.loop import START_WALL_MS
from worker.tools.scenario import expect
from worker.tools.scenario.calls import Answered
from worker.tools.scenario.files import answers_of
from worker.tools.scenario.report import Failure
from worker.tools.scenario.steps import (
    ActStep,
    AnswerPattern,
    AnswersForStep,
    AnswersStep,
    CallbackStep,
    CheckoutStep,
    EndsForStep,
    EventStep,
    ExpectDeadLettersStep,
    ExpectHeldStep,
    ExpectLogLacksStep,
    ExpectNoRequestStep,
    ExpectOrderStep,
    ExpectProviderStep,
    ExpectRequestsStep,
    ExpectResultsStep,
    OperatorStep,
    PushesStep,
    PushStep,
    RecordStep,
    RecordValue,
    RequestCount,
    RequestPattern,
    RestartStep,
    RunStep,
    Scenario,
    Step,
    kind_of,
)
from worker.tools.scenario.world import World

TRUST = Trust(("what the receiver of a scenario signs with",))
"""Shared by the worker and the writers of provider events in a scenario."""
_TRACEBACK_LINES = 12


def play(
    scenario: Scenario,
    accounts: Mapping[str, Account],
    settings: WorkerSection,
    partitions: int,
    placing: Placing | None = None,
    callers: Mapping[str, Caller] = {},
    *,
    with_reasons: bool = False,
) -> list[Failure]:
    """All failed expectations. A worker that crashes ends the scenario, and is a failure."""
    failures: list[Failure] = []
    number, kind = 0, "start"
    world = World(accounts, settings, partitions, placing, TRUST, callers, with_reasons=with_reasons)
    try:
        with world:
            world.start()
            player = _Player(world)
            for number, step in enumerate(scenario.steps, 1):
                kind = kind_of(step)
                differences = player.step(step)
                if differences:
                    failures.append(Failure(number, kind, differences))
                world.check()
    except Exception as error:  # noqa: BLE001 - whatever breaks in the worker is what a scenario is there to find
        failures.append(Failure(number, kind, _broken(error, world.log_lines)))
    return failures


def _broken(error: Exception, log_lines: Sequence[str]) -> list[str]:
    """The error and its location: from the exception itself, or else from the last one that was logged."""
    lines = [f"the worker crashed: {type(error).__name__}: {error}"]
    logged = [json.loads(line).get("exception") for line in log_lines if '"exception"' in line]
    text = logged[-1] if logged else "".join(traceback.format_exception(error))
    return lines + text.rstrip().splitlines()[-_TRACEBACK_LINES:]


class _Player:
    """The position in the scenario, and what earlier expectations have consumed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._events = 0
        self._requests_seen = 0
        self._letters_seen = 0
        self._results_seen = 0
        self._since = 0.0
        """The time of the last expectation about requests."""

    def step(self, step: Step) -> list[str]:
        """Runs one step; returns the differences from its expectation."""
        world = self._world
        match step:
            case EventStep():
                self._event(step)
            case RecordStep(record):
                self._record(record)
            case RestartStep(restart):
                world.restart(restart)
            case RunStep():
                return self._run(step)
            case OperatorStep():
                return self._operate(step)
            case CallbackStep() | PushStep():
                return self._call(step)
            case AnswersStep() | AnswersForStep() | PushesStep() | CheckoutStep() | ActStep() | EndsForStep():
                return self._set_up(step)
            case _:
                return self._expect(step)
        return []

    def _set_up(
        self, step: AnswersStep | AnswersForStep | PushesStep | CheckoutStep | ActStep | EndsForStep
    ) -> list[str]:
        """Runs a step about the provider."""
        provider, sides = self._world.provider, self._world.sides
        try:
            match step:
                case AnswersStep(answers):
                    provider.answer(answers_of(answers))
                case AnswersForStep(answers_for):
                    for name, answers in answers_for.items():
                        provider.answer_for(name, answers_of(answers))
                case PushesStep(mode):
                    sides.is_auto = mode == "auto"
                case CheckoutStep(checkouts):
                    for name, checkout in checkouts.items():
                        sides.checkout(name, checkout)
                case ActStep(acts):
                    for name, what in acts.items():
                        sides.act(name, what)
                case EndsForStep(ends_for):
                    for name, ends in ends_for.items():
                        sides.end(name, ends)
        except UsageError as error:
            return [f"{error}"]
        return []

    def _call(self, step: CallbackStep | PushStep) -> list[str]:
        world, pattern = self._world, step.expect_answer
        match step:
            case CallbackStep(called):
                return self._answered(pattern, lambda: world.call(called))
            case PushStep(pushed):
                lines = (self._answered(pattern, lambda: world.push(pushed)) for _ in range(pushed.times))
                return [line for each in lines for line in each]

    def _answered(self, pattern: AnswerPattern, call: Callable[[], Answered]) -> list[str]:
        began = self._world.now
        try:
            answered = call()
        except UsageError as error:
            return [f"{error}"]
        return expect.answer(pattern, answered, self._world.now - began)

    def _expect(self, step: Step) -> list[str]:
        world = self._world
        match step:
            case ExpectRequestsStep(expected, any_order):
                return self._requests(expected, any_order)
            case ExpectNoRequestStep():
                return self._requests([], False)
            case ExpectOrderStep(pattern):
                return expect.order(pattern, world.order(pattern.subject))
            case ExpectDeadLettersStep(patterns):
                letters = world.dead_letters()[self._letters_seen :]
                self._letters_seen += len(letters)
                return expect.dead_letters(patterns, letters)
            case ExpectHeldStep(patterns):
                return expect.held(patterns, world.provider)
            case ExpectProviderStep(patterns):
                return expect.at_provider(patterns, world.sides.shown)
            case ExpectResultsStep(patterns, any_order):
                results = world.results()[self._results_seen :]
                self._results_seen += len(results)
                return expect.results(patterns, results, any_order=any_order)
            case ExpectLogLacksStep(texts):
                return expect.lacks(texts, world.log_lines, world.metric_labels(), world.dead_letters())
            case _:
                raise InvariantError(f"no step: {type(step).__name__}")

    def _requests(self, expected: list[RequestPattern] | RequestCount, any_order: bool) -> list[str]:
        world = self._world
        exchanges = world.provider.exchanges[self._requests_seen :]
        since, self._since = self._since, world.now
        self._requests_seen += len(exchanges)
        if isinstance(expected, RequestCount):
            return expect.request_count(expected, exchanges, since)
        return expect.requests(expected, exchanges, since, any_order=any_order)

    def _event(self, step: EventStep) -> None:
        self._events += 1
        self._world.put(*record_of_event(step, self._events, self._world.wall_ms), step.partition)

    def _record(self, record: RecordValue) -> None:
        self._world.put(*raw_record(record, self._world.wall_ms), record.partition)

    def _run(self, step: RunStep) -> list[str]:
        if step.within is None:
            self._world.run_for(parse_duration(step.run))
            return []
        if self._world.run_idle(parse_duration(step.within)):
            return []
        return expect.not_idle(step.within, self._world.orders())

    def _operate(self, step: OperatorStep) -> list[str]:
        by_step = {command.step: command for command in COMMANDS.values()}
        for name, target in step.operator.items():
            try:
                self._world.operate(by_step[name], target, step.by, step.why)
            except UsageError as error:
                return [f"{name} {target}: {error}"]
        return []


LogRecord = tuple[bytes | None, bytes | None, list[tuple[str, bytes]], int]
"""Key, value, headers, timestamp in ms."""


def record_of_event(step: EventStep, number: int, now_ms: int) -> LogRecord:
    """The `number`th event as the shop would write it, with what the scenario leaves out filled in; what a provider
    says, as the receiver would, with its MAC.

    Its timestamp is its own time; of one that is none, the present.
    """
    time = datetime.fromtimestamp(START_WALL_MS / 1000, UTC) + timedelta(seconds=number - 1)
    defaults = {
        "specversion": "1.0",
        "id": f"e{number}",
        "source": "/test",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    event = defaults | step.event
    key = event.get("subject") if step.key is UNSET else step.key
    value = json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        timestamp_ms = parse_time_us(event["time"]) // 1000
    except (RuleError, AttributeError):
        timestamp_ms = now_ms
    headers = [("content-type", b"application/cloudevents+json")]
    if f"{event.get('type')}".startswith(GUARDED):
        headers.append((HEADER, TRUST.sign(_bytes(key) or b"", value)))
    return _bytes(key), value, headers, timestamp_ms


def raw_record(record: RecordValue, now_ms: int) -> LogRecord:
    """A raw record for the log."""
    value = _bytes(record.value)
    if record.value_base64 is not None:
        value = base64.b64decode(record.value_base64)
    headers = [(name, text.encode("utf-8", "surrogatepass")) for name, text in record.headers.items()]
    return _bytes(record.key), value, headers, now_ms


def _bytes(text: Any) -> bytes | None:
    """A key or a value; anything but a text means no key."""
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else None
