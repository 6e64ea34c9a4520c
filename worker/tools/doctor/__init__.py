"""`cartsync doctor`: looks at everything that has to work, says of each what was found, and what to do."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping

import msgspec

from schemas.commands import DoctorCheck
from worker.config import HttpSection, KafkaSection, WorkerSection
from worker.model.account import Account
from worker.tools.control import printable
from worker.tools.doctor.kafka import kafka_checks
from worker.tools.doctor.providers import provider_checks
from worker.tools.patience import for_a_person


def run_doctor(
    problems: list[str],
    sections: tuple[KafkaSection, WorkerSection] | None,
    http: HttpSection,
    accounts: Mapping[str, Account],
    *,
    as_json: bool,
) -> int:
    """Prints each check as it is made; 0, or 1 when one has failed. `problems`: of the configuration. `sections`:
    `None`: Kafka is not configured, or not so that it can be reached.
    """
    return asyncio.run(_run(problems, sections, http, accounts, as_json))


async def _run(
    problems: list[str],
    sections: tuple[KafkaSection, WorkerSection] | None,
    http: HttpSection,
    accounts: Mapping[str, Account],
    as_json: bool,
) -> int:
    counts = {"ok": 0, "warn": 0, "fail": 0}
    async for check in _checks(problems, sections, http, accounts):
        counts[check.result] += 1
        sys.stdout.write(msgspec.json.encode(check).decode() + "\n" if as_json else line_of(check))
        sys.stdout.flush()
    if not as_json:
        sys.stderr.write(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed\n")
    return 1 if counts["fail"] else 0


async def _checks(
    problems: list[str],
    sections: tuple[KafkaSection, WorkerSection] | None,
    http: HttpSection,
    accounts: Mapping[str, Account],
) -> AsyncIterator[DoctorCheck]:
    for problem in problems:
        yield DoctorCheck(
            "configuration", "", "fail", problem, "mend it; `cartsync config check` says when it is valid"
        )
    if not problems:
        names = ", ".join(accounts)
        yield DoctorCheck("configuration", "", "ok", f"it is valid; accounts: {names or 'none'}", "")
    if sections is not None:
        kafka, worker = sections
        async for check in kafka_checks(for_a_person(kafka), worker):
            yield check
    async for check in provider_checks(accounts, http):
        yield check


def line_of(check: DoctorCheck) -> str:
    """For people."""
    about = f"{check.area} {check.name}".rstrip()
    action = f"\n{'':6}→ {printable(check.action)}" if check.action else ""
    return f"{check.result:<5} {printable(about)}: {printable(check.text)}{action}\n"
