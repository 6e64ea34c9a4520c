"""The demo's output: setup, progress, result."""

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from schemas.views import OrderView
from worker.app import Worker
from worker.tools.demo.merchants import PUSHES, Merchant, Verdict
from worker.tools.shop import ShopOrder

EXAMPLES = 4
"""Orders of each shop that are shown at the end, those that differ first."""
REASONS = 3
_COLOURS = {"agrees": "green", "unsupported": "yellow", "differs": "red"}

Views = Mapping[str, OrderView | None]


def introduce(console: Console, merchants: Sequence[Merchant], log: str, settings: str, faults_off_s: float) -> None:
    """Before it begins."""

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    orders = sum(len(each.history.orders) for each in merchants)
    events = sum(len(each.history.events) for each in merchants)
    say(f"[bold]cartsync demo[/bold]: {orders} orders, {events} events, three providers, {log}")
    for each in merchants:
        say(f"{each.sandbox.name}: account {each.name}, sandbox at {each.account.base_url} (its page shows its orders)")
        say(f"  faults: {each.faults}")
    say(f"  faults of their pushes: {PUSHES}; all faults end {faults_off_s:g} s after the last event")
    say(f"demo settings, much shorter than the defaults: {settings}\n")


def at_console(console: Console, address: str, more: str = "") -> None:
    """Where the console is."""
    tail = f" ({more})" if more else ""
    console.print(f"console: [bold]{address}[/bold]{tail}\n", highlight=False, soft_wrap=True)


def figures(merchants: Sequence[Merchant], worker: Worker, agreeing: Mapping[str, int]) -> dict[str, list[str]]:
    """The progress: each figure, by shop."""
    waiting = {view.name: view.waiting for view in worker.status().accounts}
    rows: dict[str, list[str]] = {}
    for each in merchants:
        answers = each.sandbox.status_counts
        failed = sum(count for status, count in answers.items() if status >= 300)
        pushes = each.sandbox.pushes.counts
        for what, value in {
            "responses": answers.total(),
            "refused or failed": failed + sum(each.sandbox.fault_counts.values()),
            "pushes received": pushes["taken"],
            "owed now": waiting[each.name].owed,
            "parked now": waiting[each.name].parked,
            "in agreement": f"{agreeing[each.name]} of {len(each.history.orders)}",
        }.items():
            rows.setdefault(what, []).append(str(value))
    return rows


def progress(title: str, merchants: Sequence[Merchant], rows: Mapping[str, Sequence[str]]) -> Table:
    """The same as a table."""
    table = Table(title=title, min_width=60)
    table.add_column("now")
    for each in merchants:
        table.add_column(each.sandbox.name, justify="right")
    for what, values in rows.items():
        table.add_row(what, *values)
    return table


def line(head: str, merchants: Sequence[Merchant], rows: Mapping[str, Sequence[str]]) -> str:
    """The same as a line."""
    names = [each.sandbox.name for each in merchants]
    wanted = ("pushes received", "owed now", "parked now", "in agreement")
    parts = (f"{what} {'/'.join(rows[what])}" for what in wanted)
    return f"{head} ({', '.join(names)}): {', '.join(parts)}"


def released(orders: Sequence[tuple[str, str]]) -> Table:
    """What an operator has released."""
    table = Table(title="parked, shown to an operator, and released")
    table.add_column("order")
    table.add_column("why it was parked", overflow="fold")
    for subject, reason in orders:
        table.add_row(subject, reason)
    return table


def unsupported(merchants: Sequence[Merchant], views: Views) -> Table | None:
    """Orders that cannot be sent, and why; `None`: all could."""
    table = Table(title="the provider's API cannot express these, so they are parked, as they should be")
    table.add_column("order")
    table.add_column("why it is parked", overflow="fold")
    for each in merchants:
        found = [
            view
            for subject, order in each.history.orders.items()
            if (view := views[subject]) is not None and each.verdict(order, view) == "unsupported"
        ]
        for view in found[:REASONS]:
            table.add_row(view.subject, view.reason)
        if len(found) > REASONS:
            table.add_row("…", f"and {len(found) - REASONS} more of {each.name}")
    return table if table.rows else None


def examples(merchants: Sequence[Merchant], views: Views) -> Table:
    """Some orders of each shop."""
    table = Table(title="what the shop knows and what the provider has")
    for column in ("order", "shop", "provider", ""):
        table.add_column(column, overflow="fold")
    for each in merchants:
        table.add_row(f"[dim]{each.sandbox.name}[/dim]", f"[dim]{each.legend}[/dim]", "", "")
        for order in _picked(each, views):
            verdict = each.verdict(order, views[order.subject])
            mark = f"[{_COLOURS[verdict]}]{verdict}[/]"
            table.add_row(order.subject, each.wanted(order), each.held(order), mark)
        table.add_section()
    return table


def _picked(merchant: Merchant, views: Views) -> list[ShopOrder]:
    orders = list(merchant.history.orders.values())
    differing = [order for order in orders if merchant.verdict(order, views[order.subject]) == "differs"]
    return (differing + [order for order in orders if order.told and order not in differing])[:EXAMPLES]


def result(merchants: Sequence[Merchant], counts: Mapping[str, Counter[Verdict]]) -> Table:
    """All of them, by provider."""
    table = Table(title="at the end", min_width=60)
    table.add_column("")
    rows: dict[str, list[str]] = {}
    for each in merchants:
        table.add_column(each.sandbox.name, justify="right")
        pushes, verdicts = each.sandbox.pushes.counts, counts[each.name]
        for what, value in {
            "orders": len(each.history.orders),
            "agree": verdicts["agrees"],
            "cannot be sent (parked)": verdicts["unsupported"],
            "differ": verdicts["differs"],
            "requests": each.sandbox.attempt_count,
            "faults met": sum(each.sandbox.fault_counts.values()),
            "pushes": pushes["made"],
            "of which late": pushes["late"],
            "doubled": pushes["doubled"],
            "lost at first": pushes["lost"],
            "received out of order": pushes["out of order"],
        }.items():
            rows.setdefault(what, []).append(str(value))
    for what, values in rows.items():
        style = "bold red" if what == "differ" and set(values) != {"0"} else ""
        table.add_row(what, *values, style=style, end_section=what in ("differ", "faults met"))
    return table
