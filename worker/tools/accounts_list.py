"""`cartsync account list`: the accounts that are configured, by whom they are paused, and what waits.

From the configuration and the state topic, of which it reads all; no worker is asked. A pause that a worker made
itself, such as for a wrong password, is in no topic: `cartsync status` and the workers' metrics tell it.
"""

import asyncio
import sys
import time
from collections.abc import Mapping
from contextlib import aclosing
from urllib.parse import urlsplit

import msgspec

from schemas import state
from schemas.commands import ListedAccount
from schemas.state import Operated
from worker.backend import open_state_scan
from worker.config.console import ConsoleConfig
from worker.core.policy import DeliveryPolicy
from worker.core.view import brief_view
from worker.model.account import Account
from worker.model.order import account_of
from worker.tools.columns import columns
from worker.tools.control import printable
from worker.tools.patience import for_a_person
from worker.tools.walking import Walk
from worker.web.console.amounts import age

_PREFIX = state.ACCOUNT_PREFIX.encode()


class Found:
    """What the state topic says of accounts."""

    def __init__(self) -> None:
        self._pauses: dict[str, dict[int, Operated | None]] = {}
        self._counts: dict[str, dict[str, int]] = {}

    def note(self, partition: int, key: bytes, value: bytes | None) -> None:
        """A record that is of no order, in the order in which they were written."""
        if not key.startswith(_PREFIX):
            return
        name = key[len(_PREFIX) :].decode(errors="replace")
        try:
            paused = None if value is None else state.decode_account(value).paused
        except msgspec.MsgspecError:
            return  # the worker that serves the partition says what is wrong
        self._pauses.setdefault(name, {})[partition] = paused

    def order(self, account: str, status: str) -> None:
        """An order of this status."""
        counts = self._counts.setdefault(account, {})
        counts[status] = counts.get(status, 0) + 1

    @property
    def names(self) -> set[str]:
        """Of all accounts that it knows."""
        return {*self._pauses, *self._counts}

    def line(
        self, name: str, provider: str | None, account: Account | None, *, partitions: int, with_orders: bool
    ) -> ListedAccount:
        """Of an account. `provider`: `None`: it is not configured. `account`: `None`: its settings cannot be read."""
        pauses = {at: deed for at, deed in self._pauses.get(name, {}).items() if deed is not None}
        newest = max(pauses.values(), key=lambda deed: deed.at_ms, default=None)
        counts = self._counts.get(name, {})
        return ListedAccount(
            name=name,
            provider=provider,
            host=None if account is None else _host(account.base_url),
            merchant=None if account is None else account.merchant,
            # Only seQura's orders can be reported in another way.
            delivery=None if account is None else getattr(account, "delivery", "update"),
            concurrency=None if account is None else account.concurrency,
            paused_by=None if newest is None else newest.by,
            paused_why="" if newest is None else newest.why,
            paused_since_ms=min((deed.at_ms for deed in pauses.values()), default=None),
            not_paused_in=sorted(set(range(partitions)) - set(pauses)) if pauses else [],
            owed=counts.get("owed", 0) if with_orders else None,
            parked=counts.get("parked", 0) if with_orders else None,
        )


def _host(url: str) -> str:
    """Without what may be secret in an address."""
    return urlsplit(url).netloc.rpartition("@")[2]


def run_list(config: ConsoleConfig, accounts: Mapping[str, Account], *, with_orders: bool, as_json: bool) -> int:
    """Prints them; 0, or 72 when a record was not one that cartsync wrote. `accounts`: with all their settings; those
    that are missing cannot be read here. Raises `TopicError`, `ConfigError` or `LogError`.
    """
    lines, code = asyncio.run(_list(config, accounts, with_orders))
    if as_json:
        sys.stdout.writelines(msgspec.json.encode(line).decode() + "\n" for line in lines)
    else:
        for text in texts_of(lines, time.time_ns() // 1_000_000):
            print(text)
    sys.stdout.flush()
    return code


async def _list(
    config: ConsoleConfig, accounts: Mapping[str, Account], with_orders: bool
) -> tuple[list[ListedAccount], int]:
    found, rules, now_ms = Found(), config.worker.rules(), time.time_ns() // 1_000_000
    scan = open_state_scan(for_a_person(config.kafka), lambda _subject: with_orders, found.note)
    walk = Walk(scan, lambda subject, _partition, value: (subject, _status(value, rules, now_ms)), "read")
    await scan.start()
    async with aclosing(walk.everywhere()) as orders:
        async for subject, status in orders:
            found.order(account_of(subject), status)
    providers = config.providers
    lines = [
        found.line(name, providers.get(name), accounts.get(name), partitions=scan.partitions, with_orders=with_orders)
        for name in sorted({*providers, *found.names})
    ]
    return lines, walk.exit_code


def _status(value: bytes, rules: DeliveryPolicy, now_ms: int) -> str:
    return brief_view(state.decode_order(value), rules=rules, now_ms=now_ms).status


def texts_of(lines: list[ListedAccount], now_ms: int) -> list[str]:
    """For people."""
    if not lines:
        return ["no account is configured: see [accounts.NAME] in the manual"]
    head = ["account", "provider", "host", "merchant", "delivery", "concurrency", "owed", "parked", "paused"]
    return list(columns(head, [_row(line, now_ms) for line in lines], right=(5, 6, 7)))


def _row(line: ListedAccount, now_ms: int) -> list[str]:
    def text(value: object) -> str:
        return "-" if value is None else printable(f"{value}")

    paused = ""
    if line.paused_by is not None and line.paused_since_ms is not None:
        why = f": {line.paused_why}" if line.paused_why else ""
        left = f" (but not in partition {', '.join(map(str, line.not_paused_in))})" if line.not_paused_in else ""
        paused = printable(f"by {line.paused_by}, {age((now_ms - line.paused_since_ms) / 1000)} ago{why}{left}")
    cells = [line.host, line.merchant, line.delivery, line.concurrency, line.owed, line.parked]
    return [printable(line.name), line.provider or "not configured", *map(text, cells), paused]
