"""`cartsync scenario PATH…`: event files with expectations, run through the real worker in virtual time.

The format, for users, is `SCENARIOS.md`. A file is read (`files`), played (`play`) in a world of its own (`world`:
embedded log, scripted provider, virtual time) and compared (`expect`, `matching`); `report` prints the result.
"""

import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from worker.config import account_from, scenario_members, worker_settings_from
from worker.config.receiving import caller_from
from worker.core.placing import EventKey, PartitionerName, placing_of
from worker.errors import ConfigError, UsageError
from worker.model.account import Account
from worker.tools.scenario.files import find_files, read_scenario
from worker.tools.scenario.models import checkout_problem
from worker.tools.scenario.play import play
from worker.tools.scenario.report import Failure, Report, Result, as_junit, as_object, as_text
from worker.tools.scenario.steps import CheckoutStep, RecordStep, Scenario

__all__ = ["SETTINGS", "run_file", "run_files"]

PARTITIONS_MAX = 1_000
"""Partitions of the embedded log."""
_DEFAULT_ACCOUNTS: Mapping[str, dict[str, object]] = {"acme": {}}
SETTINGS = {
    "commit_interval": "0.001ms",
    "commits_per_second": 1_000_000,
    "max_poll_records": 1_000_000,
    "max_batch_records": 1_000_000,
    "max_inbox_records": 5_000_000,
}
"""Defaults: the whole log is one batch, and a commit takes almost no time."""


class _PlacingSettings(msgspec.Struct, frozen=True):
    partitioner: PartitionerName | Literal[""] = ""
    event_key: EventKey = "subject"


_PLACING = _PlacingSettings.__struct_fields__


def run_files(paths: Iterable[Path], as_json: bool = False, junit: Path | None = None) -> int:
    """Runs scenario files and folders of them, and prints what came of it.

    Returns the exit code: 0, 1 (an expectation failed) or 2 (usage, a file that cannot be read).
    """
    began = time.monotonic()
    results: list[Result] = []
    unreadable: list[str] = []
    for path in paths:
        try:
            files = find_files(path)
        except UsageError as error:
            unreadable.append(str(error))
            continue
        for file in files:
            try:
                results.append(run_file(file))
            except UsageError as error:
                unreadable.append(str(error))
    report = Report(results, unreadable, time.monotonic() - began)
    said = json.dumps(as_object(report), indent=2) if as_json else as_text(report)
    print(said.encode("utf-8", "backslashreplace").decode())  # a difference may hold half of a surrogate pair
    if junit is not None:
        try:
            junit.write_bytes(as_junit(report))
        except OSError as error:
            print(f"{junit}: {error}", file=sys.stderr)
            return 2
    return report.exit_code


def run_file(file: Path) -> Result:
    """Runs one scenario. Raises `UsageError` if the file is not a scenario."""
    began = time.monotonic()
    scenario = read_scenario(file)
    failures = _play(scenario, f"{file}")
    return Result(f"{file}", scenario.name, scenario.title, failures, time.monotonic() - began)


def _play(scenario: Scenario, where: str) -> list[Failure]:
    """Raises `UsageError` for invalid accounts and settings."""
    given = _DEFAULT_ACCOUNTS if scenario.accounts is None else scenario.accounts
    settings = dict(scenario.settings)
    partitions = settings.pop("partitions", 1)
    if type(partitions) is not int or not 1 <= partitions <= PARTITIONS_MAX:
        raise UsageError(f"{where}: settings.partitions: expected an integer from 1 to {PARTITIONS_MAX}")
    for number, step in enumerate(scenario.steps, 1):
        given_partition = step.record.partition if isinstance(step, RecordStep) else getattr(step, "partition", None)
        if given_partition is not None and not 0 <= given_partition < partitions:
            raise UsageError(f"{where}: step {number}: partition: expected an integer from 0 to {partitions - 1}")
    with_reasons = settings.pop("results_with_reasons", False)
    if type(with_reasons) is not bool:
        raise UsageError(f"{where}: settings.results_with_reasons: expected true or false")
    try:
        placing = msgspec.convert({name: settings.pop(name) for name in _PLACING if name in settings}, _PlacingSettings)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: settings: {error}") from None
    try:
        accounts = {name: account_from(name, members, scenario=True) for name, members in given.items()}
        callers = {name: caller_from(name, scenario_members(name, members)) for name, members in given.items()}
        section = worker_settings_from({**SETTINGS, **settings})
        placed = placing_of(placing.partitioner, placing.event_key)
    except ConfigError as error:
        raise UsageError(f"{where}: {error}") from None
    for number, step in enumerate(scenario.steps, 1):
        if isinstance(step, CheckoutStep) and (problem := _checkout_problem(step, accounts)):
            raise UsageError(f"{where}: step {number}: checkout: {problem}")
    return play(scenario, accounts, section, partitions, placed, callers, with_reasons=with_reasons)


def _checkout_problem(step: CheckoutStep, accounts: Mapping[str, Account]) -> str | None:
    for name, value in step.checkout.items():
        account = accounts.get(name.partition("/")[0])
        if account is None or not name.partition("/")[2]:
            return f"{name}: expected account/reference, of an account of the scenario"
        if problem := checkout_problem(account.provider, value):
            return f"{name}: {problem}"
    return None
