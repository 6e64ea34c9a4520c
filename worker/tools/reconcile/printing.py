"""How a reconciliation is printed: lines of JSON as they are found, or tables in the end."""

from collections.abc import Callable, Iterator, Mapping
from typing import TextIO

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.reconciliation import ComparedOrder, Reconciliation
from worker.core.amounts import amount_text
from worker.tools.control import printable
from worker.tools.reconcile.tally import Tally

ROWS_MAX = 200
"""Orders in the table: all differ by now, and memory is bounded."""

_TITLES: Mapping[str, str] = {
    "agrees": "agree",
    "differs": "differ",
    "not_final": "not final yet",
    "not_compared": "not compared",
}
_COLORS = {"differs": "red", "not_final": "yellow", "not_compared": "yellow", "agrees": "green"}

Tell = Callable[[ComparedOrder], None]


class Lines:
    """JSON, one object a line, an order as soon as it is known."""

    def __init__(self, out: TextIO, *, is_all: bool) -> None:
        """`is_all`: orders that agree are told, too."""
        self._out = out
        self._is_all = is_all

    def tell(self, compared: ComparedOrder) -> None:
        """An order."""
        if self._is_all or compared.category != "agrees":
            self._write(compared)

    def conclude(self, tally: Tally, exit_code: int) -> None:
        """The summary."""
        self._write(tally.summary(exit_code))

    def _write(self, value: ComparedOrder | Reconciliation) -> None:
        self._out.write(msgspec.json.encode(value).decode() + "\n")
        self._out.flush()


class Tables:
    """Tables for people."""

    def __init__(self, console: Console, *, is_all: bool) -> None:
        """`is_all`: what only waits, or was not compared, is listed, too."""
        self._console = console
        self._is_all = is_all
        self._rows: list[ComparedOrder] = []
        self._left_out = 0

    def tell(self, compared: ComparedOrder) -> None:
        """An order."""
        if compared.category == "agrees" or not (self._is_all or compared.category == "differs"):
            return
        if len(self._rows) < ROWS_MAX:
            self._rows.append(compared)
        else:
            self._left_out += 1

    def conclude(self, tally: Tally, exit_code: int) -> None:  # noqa: ARG002 - the process says it
        """Everything."""
        if self._rows:
            self._console.print(_orders(self._rows))
        if self._left_out:
            self._say(f"and {self._left_out} more; --json names them all")
        if tally.accounts:
            self._console.print(_counts(tally))
        for line in _last_words(tally):
            self._say(line)

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)


def _orders(rows: list[ComparedOrder]) -> Table:
    table = Table(title="orders", show_lines=True)
    table.add_column("order, shop and provider", overflow="fold")
    table.add_column("what it means, and what to do", overflow="fold")
    for each in rows:
        words = Text(printable(each.text))
        if each.action:
            words.append(f"\n→ {printable(each.action)}", style="bold")
        name = Text(printable(each.subject))
        name.append(f"\n{each.verdict}", style=_COLORS[each.category])
        name.append("".join(f"\n{line}" for line in [*_shop_side(each), *_held_side(each)]))
        table.add_row(name, words)
    return table


def _shop_side(of: ComparedOrder) -> Iterator[str]:
    if of.shop is not None and of.currency is not None:
        yield f"shipped {amount_text(of.shop.shipped_minor, of.currency)}"
        yield f"to ship {amount_text(of.shop.unshipped_minor, of.currency)}"


def _held_side(of: ComparedOrder) -> Iterator[str]:
    held = of.held
    if held is None:
        return
    currency = held.currency or of.currency or ""
    if held.state is not None:
        yield printable(held.state)
    for what, minor in (
        ("captured", held.captured_minor),
        ("reserved", held.reserved_minor),
        ("cost", held.amount_minor),
        ("told", held.reported_minor),
        ("paid out", held.paid_minor),
    ):
        if minor is not None:
            yield f"{what} {amount_text(minor, currency).strip()}"
    if held.reference is not None:
        yield f"called {printable(held.reference)}"


def _counts(tally: Tally) -> Table:
    table = Table(title="accounts", min_width=60)
    table.add_column("")
    names = sorted(tally.accounts)
    for name in names:
        provider = tally.accounts[name].provider or "not configured"
        table.add_column(f"{printable(name)}\n{provider}", justify="right", overflow="fold")
    accounts = [tally.accounts[name] for name in names]
    table.add_row("orders", *(str(each.categories.total()) for each in accounts), end_section=True)
    for category, title in _TITLES.items():
        counts = [each.categories[category] for each in accounts]
        style = f"bold {_COLORS[category]}" if category == "differs" and any(counts) else ""
        table.add_row(title, *map(str, counts), style=style)
    table.add_section()
    for verdict in sorted({verdict for each in accounts for verdict in each.verdicts} - {"agrees"}):
        table.add_row(verdict, *(str(each.verdicts[verdict]) for each in accounts))
    return table


def _last_words(tally: Tally) -> Iterator[str]:
    differs, others = tally.of("differs"), tally.of("not_compared")
    for problem in tally.problems:
        yield f"partial: {printable(problem)}"
    if not tally.orders and not tally.problems:
        yield "there are no orders to compare"
    elif differs:
        yield f"{differs} of {tally.orders} orders differ"
    elif tally.problems:
        yield f"none of the {tally.orders} orders that were looked at differs; that is not all of them"
    else:
        waiting, agree = tally.of("not_final"), tally.of("agrees")
        waits = f", {waiting} are not final yet" if waiting else ""
        yield f"{agree} of {tally.orders} orders agree, 0 differ{waits}"
    if others:
        yield f"{others} of {tally.orders} orders were not compared; --all names them"
