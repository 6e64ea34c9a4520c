"""What pasted events would lead to, by the code of `cartsync scenario --explain` and `cartsync replay`.

In a process of its own, which ends in time: whatever is pasted, the console goes on.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from schemas.console import Tried
from worker import logs
from worker.config import SCENARIO_PROVIDER, account_from
from worker.errors import ConfigError, UsageError
from worker.model.account import Account
from worker.own_process import own_command
from worker.providers.registry import PROVIDERS
from worker.sim.loop import START_WALL_MS
from worker.tools.replay import rehearse
from worker.tools.scenario.explain import as_plain, explain
from worker.tools.scenario.play import record_of_event
from worker.tools.scenario.steps import EventStep, Scenario

log = structlog.get_logger(__name__)

EVENTS_MAX = 200
WITHIN_S = 20.0


def read_events(text: str) -> list[dict[str, Any]]:
    """The events in a text: one object, an array, or one a line. Raises `UsageError`."""
    if not text.strip():
        raise UsageError("paste one event or more: JSON objects as they stand in the event topic")
    try:
        found = json.loads(text)
        events = found if isinstance(found, list) else [found]
    except (ValueError, RecursionError) as error:
        events = _lines(text, f"{error}")
    if len(events) > EVENTS_MAX:
        raise UsageError(f"at most {EVENTS_MAX} events at once; these are {len(events)}")
    for number, event in enumerate(events, 1):
        if not isinstance(event, dict):
            raise UsageError(f'event {number}: expected a JSON object, such as {{"type": …, "subject": …}}')
    return events


def _lines(text: str, whole: str) -> list[Any]:
    """One event a line. Raises `UsageError`."""
    events = []
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    for number, line in lines:
        try:
            events.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            if not events:
                raise UsageError(f"expected JSON: {whole}") from None
            raise UsageError(f"line {number}: expected a JSON object: {error}") from None
    return events


class Attempts:
    """Tries one text after the other."""

    def __init__(self, providers: Mapping[str, str]) -> None:
        """`providers`: by account, of those that are configured; others are as in scenarios."""
        self._providers = dict(providers)
        self._turn = asyncio.Lock()

    async def attempt(self, text: str) -> Tried:
        """What the events would lead to."""
        try:
            asked = json.dumps([read_events(text), self._providers]).encode()
        except UsageError as error:
            return _nothing(str(error))
        async with self._turn:
            process = await asyncio.create_subprocess_exec(
                *own_command(__spec__.name),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                async with asyncio.timeout(WITHIN_S):
                    answer, _ = await process.communicate(asked)
                return msgspec.json.decode(answer, type=Tried)
            except TimeoutError:
                return _nothing(f"this takes longer than {WITHIN_S:g} s; try fewer events")
            except msgspec.MsgspecError:
                log.warning("console_try_failed", exit_code=process.returncode)
                return _nothing("this cannot be tried here; `cartsync scenario --explain` says more")
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


def _nothing(problem: str) -> Tried:
    return Tried([], [], [], [], [problem])


def attempted(events: list[dict[str, Any]], providers: Mapping[str, str]) -> Tried:
    """What the events would lead to."""
    steps = [EventStep(event) for event in events]
    explanation = [as_plain(each) for each in explain(Scenario("console", steps))]
    names = list(dict.fromkeys(_account(event) for event in events))
    problems, accounts = [], dict[str, Account]()
    for name in filter(None, names):
        provider = providers.get(name, SCENARIO_PROVIDER)
        if PROVIDERS[provider].can_read:  # of one that cannot be read, updates follow from the events alone
            problems.append(f"what {provider} is sent depends on what it answers: of {name}, see the carts alone")
            continue
        try:
            accounts[name] = account_from(name, {"provider": provider}, scenario=True)
        except ConfigError as error:
            problems += str(error).splitlines()
    lines = []
    for number, step in enumerate(steps, 1):
        if (account := _account(step.event)) in accounts or account not in providers:
            key, value, _, _ = record_of_event(step, number, START_WALL_MS)
            lines.append((number, key or b"", value or b""))
    updates, replayed = rehearse(lines, accounts)
    return Tried(explanation, updates, replayed.views, replayed.refused, problems)


def _account(event: Mapping[str, Any]) -> str:
    return f"{event.get('subject', '')}".partition("/")[0]


if __name__ == "__main__":
    with logs.capture([]):
        tried = attempted(*json.loads(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(msgspec.json.encode(tried))
