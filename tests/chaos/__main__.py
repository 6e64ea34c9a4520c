"""`make chaos`: workers on a real cluster, with everything going wrong around them; then it is counted what came of it.

    python -m tests.chaos                              15,000 orders, 130,000 events, 20 minutes and what follows
    python -m tests.chaos --orders 2000 --seconds 120  a small one
    python -m tests.chaos --no-hostile                 without the producer that writes whatever a broker takes
    python -m tests.chaos --long-freezes               freezes that no hold covers: the gap of a blind provider
    CHAOS_ORDERS, CHAOS_SECONDS, CHAOS_SEED            the same, from the environment

Exits with 0 when nothing was lost, doubled, stale or left, 1 when something was, 2 when the run itself failed. What
goes wrong, and when, follows from the seed; what comes of it depends on the machine too.
"""

import argparse
import asyncio
import logging
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from tests.chaos.checks import spread
from tests.chaos.plan import PRODUCTION, SHORT, is_broker, is_receiver
from tests.chaos.run import Findings, Options, run_chaos
from tests.shops.stream import PRODUCERS
from worker.tools.local_kafka import JARS, missing_requirements

FOLDER = Path(".cartsync/chaos")


def _options() -> Options:
    environment = os.environ
    defaults = Options(folder=FOLDER)
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="A real cluster under faults")
    parser.add_argument("--orders", type=int, default=int(environment.get("CHAOS_ORDERS", defaults.orders)))
    parser.add_argument("--seconds", type=float, default=float(environment.get("CHAOS_SECONDS", defaults.seconds)))
    parser.add_argument("--seed", type=int, default=int(environment.get("CHAOS_SEED", time.time_ns() % 1_000_000)))
    parser.add_argument("--workers", type=int, default=defaults.workers)
    parser.add_argument("--partitions", type=int, default=defaults.partitions)
    parser.add_argument("--gap", type=float, default=defaults.gap_s, help="seconds from one fault to the next")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"for logs; emptied before (default: {FOLDER})")
    parser.add_argument("--long-freezes", action="store_true", help="only freezes, longer than any hold covers")
    parser.add_argument(
        "--hostile", action=argparse.BooleanOptionalAction, default=True, help="one of five producers is hostile"
    )
    parser.add_argument("--production-times", action="store_true", help="the product's default times, not short ones")
    given = parser.parse_args()
    return Options(
        folder=given.folder.absolute(),
        orders=given.orders,
        seconds=given.seconds,
        seed=given.seed,
        workers=given.workers,
        partitions=given.partitions,
        gap_s=given.gap,
        long_freezes=given.long_freezes,
        hostile=given.hostile,
        times=PRODUCTION if given.production_times else SHORT,
    )


def _rows(options: Options, found: Findings) -> Iterator[tuple[str, str]]:
    provider, times = found.provider, options.times
    yield "orders", f"{options.orders}"
    yield "events written", f"{found.events} by {PRODUCERS} producers, of them {found.poisoned} poisoned"
    listed = "\n".join(f"{count} × {kind}" for kind, count in sorted(found.hostile.items()))
    yield "written by the hostile producer", listed or "there was none"
    reasons = ", ".join(f"{count} {reason or 'of the shop'}" for reason, count in sorted(found.refused.items()))
    yield "to be refused", f"{sum(found.refused.values())}: {reasons}"
    kinds = Counter(fault.kind for fault in found.injected)
    for what, of in (
        ("workers", [kind for kind in kinds if "worker" in kind]),
        ("brokers", [kind for kind in kinds if is_broker(kind)]),
        ("receivers", [kind for kind in kinds if is_receiver(kind)]),
        ("the providers", [kind for kind in kinds if kind.startswith("provider")]),
    ):
        listed = "\n".join(f"{kinds[kind]} × {kind}" for kind in sorted(of))
        yield f"faults of {what}", listed or "none"
    yield "faults of single requests to seQura", ", ".join(f"{kind} {n}" for kind, n in sorted(provider.faults.items()))
    unexpected_exits = Counter(ending.code for ending in found.endings if not ending.wanted)
    yield (
        "processes that ended by themselves",
        ", ".join(f"{n} × code {code}" for code, n in unexpected_exits.items()) or "none",
    )
    yield "requests to seQura", f"{provider.attempts}"
    yield "updates that seQura applied", f"{provider.applied}"
    yield "repeats (applied again, same revision)", f"{provider.repeats}"
    for merchant in provider.merchants:
        faults = ", ".join(f"{kind} {n}" for kind, n in sorted(merchant.faults.items()))
        yield f"{merchant.account}: orders, requests", f"{merchant.orders}, {merchant.attempts}; faults {faults}"
    for name, pushes in (("seQura", provider.pushes), *((of.account, of.pushes) for of in provider.merchants)):
        yield f"callbacks of {name}", ", ".join(f"{what} {n}" for what, n in sorted(pushes.items())) or "none"
    yield "records in the results topic", f"{found.results}"
    held = found.log_counts.get("order_held", 0)
    yield "holds after unknown outcomes", f"{held}"
    yield "takeovers with a hold", f"{found.unclean} partitions"
    gaps = f", of them {found.gaps} by a freeze that no hold covers" if provider.relapse_count else ""
    yield "relapses (older after newer)", f"{provider.relapse_count}{gaps}"
    agreement = "never" if found.agreement_s is None else f"{found.agreement_s:.1f} s"
    yield "from the last fault to agreement", agreement
    yield "kill -9 until served again", spread([of.after_s for of in found.takeovers])
    yield "  while nothing else was wrong", spread([of.after_s for of in found.takeovers if of.alone])
    yield "  beside", f"session timeout {times.session_s:g} s; hold of what was owed {times.hold_s:.1f} s"
    lag = found.loop_lag_s
    yield "memory of a worker, at most", f"{found.memory_max_mib} MiB"
    yield "loops of the workers late", f"p50 {lag.p50_s:.3f} s, p99 {lag.p99_s:.3f} s (of {lag.samples})"
    yield "process of the providers late, at worst", f"{provider.late_max_s:.2f} s (settle {times.settle_s:g} s)"
    yield "the run took", f"{found.seconds:.0f} s"


def _show(options: Options, found: Findings, console: Console) -> None:
    table = Table(title=f"chaos, seed {options.seed}", show_header=False)
    for row in _rows(options, found):
        table.add_row(*row)
    console.print(table, highlight=False, markup=False)
    for remark in found.remarks:
        console.print(f"remark: {remark}", highlight=False, markup=False, soft_wrap=True)
    if not found.violations:
        console.print(
            "nothing lost, doubled, stale or left; no money moved twice; results exactly once", highlight=False
        )
        return
    for violation in found.violations:
        console.print(f"VIOLATION: {violation}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"where to look, in {options.folder}: provider.jsonl (every request to seQura by slot, order and revision), qliro.jsonl and "
        "atarapay.jsonl (every request), "
        "worker-SLOT-NUMBER.log (partition_serving, partition_released, partition_lost, order_held), faults.json (what was "
        f"injected into what, and when), broker-*.log. Again: --seed {options.seed}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


async def _run(options: Options, console: Console) -> int:
    began = time.monotonic()

    def on_progress(text: str) -> None:
        console.print(f"{time.monotonic() - began:5.0f} s  {text}", highlight=False, markup=False, soft_wrap=True)

    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    found = await run_chaos(options, on_progress)
    (options.folder / "faults.json").write_bytes(msgspec.json.format(msgspec.json.encode(found.injected), indent=1))
    _show(options, found, console)
    return 1 if found.violations else 0


def main() -> int:
    """The exit code."""
    options = _options()
    console = Console(width=None if sys.stdout.isatty() else 140)
    if missing := missing_requirements(JARS):
        console.print("; ".join(missing), markup=False, highlight=False)
        return 2
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    # The client library says a lot while brokers are away.
    logging.basicConfig(filename=options.folder / "injector.log", format="%(asctime)s %(name)s %(message)s")
    times = options.times
    console.print(
        f"seed {options.seed}; workers with session {times.session_s:g} s, attempt_deadline "
        f"{times.attempt_deadline_s:g} s, lease {times.lease_s:g} s, settle {times.settle_s:g} s, so a hold of "
        f"{times.hold_s:.1f} s; logs in {options.folder}",
        highlight=False,
        soft_wrap=True,
    )
    try:
        return uvloop.run(_run(options, console))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped: everything that was started has ended")
        return 130
    except Exception:  # noqa: BLE001 - whatever it is, it says nothing about the workers
        console.print_exception()
        console.print(f"the run itself failed; logs in {options.folder}", markup=False, highlight=False)
        return 2


if __name__ == "__main__":
    sys.exit(main())
