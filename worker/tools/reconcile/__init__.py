"""`cartsync reconcile`: every order of the accounts, compared with what its provider has.

Reads the state topic (committed records, without joining the group) and asks providers; changes nothing anywhere.
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from rich.console import Console

from schemas.reconciliation import ComparedOrder
from worker import __version__
from worker.app.clock import SystemClock
from worker.backend import open_state_scan
from worker.config import HttpSection, KafkaSection, WorkerSection
from worker.errors import INTERRUPTED, CartsyncError, UsageError
from worker.model.account import Account
from worker.model.order import account_of
from worker.model.reconcile import Terms
from worker.publisher.sender import HttpSender
from worker.tools.patience import for_a_person
from worker.tools.reconcile.asking import Asking
from worker.tools.reconcile.comparing import Comparison
from worker.tools.reconcile.printing import Lines, Tables
from worker.tools.reconcile.tally import Tally

PAYOUT_DAYS = 31
"""Within them, seQura's disbursement of a delivery is expected."""
_SAY_EVERY_S = 2.0


class Wishes(Struct, frozen=True):
    """What the command line says."""

    names: Sequence[str] = ()
    """Accounts; none: all."""
    rate_per_s: float | None = None
    payout_days: int = PAYOUT_DAYS
    is_fetching: bool = False
    is_all: bool = False
    as_json: bool = False


def run_reconcile(
    wishes: Wishes,
    kafka: KafkaSection,
    worker: WorkerSection,
    http: HttpSection,
    accounts: Mapping[str, Account],
) -> int:
    """0: nothing differs; 1: something does; else why not everything was compared.

    Raises `UsageError` for accounts that are not configured, `ConfigError`, `TopicError` or `LogError` when the state
    topic cannot be read at all.
    """
    unknown = sorted(set(wishes.names) - accounts.keys())
    if unknown:
        known = ", ".join(accounts) or "none"
        raise UsageError(f"account {', '.join(unknown)} is not configured; configured are: {known}")
    chosen = {name: account for name, account in accounts.items() if not wishes.names or name in wishes.names}
    return asyncio.run(_reconcile(wishes, kafka, worker, http, chosen))


async def _reconcile(
    wishes: Wishes, kafka: KafkaSection, worker: WorkerSection, http: HttpSection, accounts: Mapping[str, Account]
) -> int:
    rules, clock, tally = worker.rules(), SystemClock(), Tally()
    out = Lines(sys.stdout, is_all=wishes.is_all) if wishes.as_json else Tables(Console(), is_all=wishes.is_all)
    sender = HttpSender(
        deadline_s=rules.attempt_deadline_s,
        user_agent=f"cartsync/{__version__}",
        body_max_bytes=http.response_max_bytes,
        accounts=accounts,
    )
    askings = {name: Asking(each, sender, clock, rules, wishes.rate_per_s) for name, each in accounts.items()}
    terms = Terms(clock.wall_ms(), wishes.payout_days, wishes.is_fetching)
    chosen = frozenset(wishes.names)

    def tell(compared: ComparedOrder) -> None:
        tally.add(compared)
        out.tell(compared)

    scan = open_state_scan(for_a_person(kafka), lambda subject: not chosen or account_of(subject) in chosen)
    comparison = Comparison(scan, askings, tell, terms=terms, rules=rules)
    try:
        exit_code = await _watched(comparison, tally)
    finally:
        await sender.close()
    for name, asking in askings.items():
        if asking.problem is not None:
            tally.account(name, asking.account.provider).problem = asking.problem.text
            tally.problems.append(asking.problem.text)
            exit_code = exit_code or asking.problem.exit_code
    not_asked = tally.note_not_asked()  # said of each account, whatever happened before
    exit_code = exit_code or not_asked
    exit_code = exit_code or (1 if tally.of("differs") else 0)
    out.conclude(tally, exit_code)
    return exit_code


async def _watched(comparison: Comparison, tally: Tally) -> int:
    """Runs it, says how far it is, and ends it early on Ctrl-C or SIGTERM; 0, or why it has not come to its end. What
    goes wrong before an order was read is raised.
    """
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(comparison.run(), name="reconcile")
    saying = asyncio.create_task(_say_progress(comparison, tally), name="progress")
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, _once(loop, each, work))
    try:
        await work
    except asyncio.CancelledError:
        comparison.tell_suspects()
        tally.problems.append("interrupted: only a part of the orders was compared")
        return INTERRUPTED
    except CartsyncError as error:
        if not comparison.progress.met:
            raise
        comparison.tell_suspects()
        tally.problems.append(str(error))
        return error.exit_code
    finally:
        saying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await saying
    return 0


def _once(loop: asyncio.AbstractEventLoop, number: signal.Signals, work: "asyncio.Task[None]") -> Callable[[], None]:
    """The second signal of a kind is for the process itself."""

    def handle() -> None:
        loop.remove_signal_handler(number)
        work.cancel()

    return handle


async def _say_progress(comparison: Comparison, tally: Tally) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(_SAY_EVERY_S)
        at = comparison.progress
        if at.reading:
            sys.stderr.write(f"reading {at.reading}\n")
        elif not at.partitions:
            sys.stderr.write("looking at the topics\n")
        else:
            so_far = f"{at.met} orders read, {tally.orders} done, {tally.of('differs')} differ"
            where = f"partition {at.partition + 1} of {at.partitions}"
            sys.stderr.write(f"{time.monotonic() - began:.0f} s, {where}: {so_far}\n")
