"""`cartsync order history`: what the results topic was told of an order, and which of its events were refused.

Only as far back as these topics go. Reads them without joining a group; memory holds the lines of one order.
"""

import asyncio
import sys
import time
from contextlib import aclosing

import msgspec

from schemas.commands import HistoryEntry
from worker.backend import bounds, records
from worker.config.console import ConsoleConfig
from worker.errors import ConfigError, UsageError
from worker.kafka.client import Connection
from worker.kafka.settings import KafkaSettings
from worker.kafka.topics import topics_now
from worker.ports import UndecodableRecord
from worker.tools.control import printable
from worker.tools.letters import open_desk
from worker.tools.patience import for_a_person
from worker.tools.progress import Progress
from worker.web.console.amounts import age, money, utc
from worker.web.console.rows import result_line


def run_history(config: ConsoleConfig, ref: str, *, as_json: bool) -> int:
    """Prints it, the oldest first; 0. `ref`: `account/reference`, or a reference that only one account has.

    Raises `UsageError` when nothing is known of such an order, or several have that reference; `ConfigError` without a
    results topic; `LogError`.
    """
    found = asyncio.run(_history(config, ref))
    subjects = sorted({entry.subject for entry in found})
    if len(subjects) > 1:
        raise UsageError(f"{ref} is ambiguous: use {' or '.join(subjects)}")
    if not found:
        raise UsageError(
            f"nothing is known of an order {printable(ref)}: neither the results topic nor the dead letters name it, "
            "as far as retention has left them (`cartsync order show` says how it stands)"
        )
    now_ms = time.time_ns() // 1_000_000
    for entry in sorted(found, key=lambda each: each.at_ms):
        sys.stdout.write(msgspec.json.encode(entry).decode() + "\n" if as_json else _line(entry, now_ms))
    return 0


async def _history(config: ConsoleConfig, ref: str) -> list[HistoryEntry]:
    settings = for_a_person(config.kafka)
    if not settings.results_topic:
        raise ConfigError('[kafka] results_topic is "": no history of orders is kept')
    found, progress = list[HistoryEntry](), Progress()
    await _read_results(settings, ref, found, progress)
    desk = await open_desk(config, None)
    async with aclosing(desk.walk(progress)) as letters:
        async for letter in letters:
            row = letter.row
            if row.subject and _is_meant(ref, row.subject):
                what = f"{row.reason}: {row.detail}" + (f" ({row.handled} since)" if row.handled else "")
                found.append(HistoryEntry(row.subject, row.at_ms, "refused", str(letter.place), row.type, what))
    return found


async def _read_results(settings: KafkaSettings, ref: str, found: list[HistoryEntry], progress: Progress) -> None:
    connection, topic = Connection(settings), settings.results_topic
    topics = await topics_now(connection)
    if topic not in topics:
        raise UsageError(f"topic {topic} does not exist, or we may not describe it; see `cartsync topics check`")
    for partition in range(topics[topic].partitions):
        begin, end = await bounds(connection, topic, partition)
        async with aclosing(records(connection, topic, partition, begin, end)) as lists:
            async for some in lists:
                progress.say(lambda: f"{topic}, partition {partition}: offset {some[-1].offset} of {end}")  # noqa: B023
                for record in some:
                    key = (record.key or b"").decode(errors="replace")
                    if type(record) is not UndecodableRecord and _is_meant(ref, key):
                        _take(f"{partition}/{record.offset}", record.timestamp, record.value, found)


def _take(place: str, at_ms: int, value: bytes | None, found: list[HistoryEntry]) -> None:
    line = result_line(at_ms, value)
    if line is not None:
        carts = (line.currency, line.shipped_minor, line.unshipped_minor)
        found.append(
            HistoryEntry(
                line.subject, at_ms, "result", place, line.type, line.status, line.revision, line.acked, *carts
            )
        )


def _is_meant(ref: str, subject: str) -> bool:
    return ref in (subject, subject.partition("/")[2])


def _line(entry: HistoryEntry, now_ms: int) -> str:
    carts = ""
    if entry.shipped_minor is not None:
        carts = f"  {money(entry.shipped_minor, entry.currency)} + {money(entry.unshipped_minor, entry.currency)}"
    ago = age((now_ms - entry.at_ms) / 1000)
    what = f"refused ({entry.place})" if entry.kind == "refused" else entry.type
    acked = "" if entry.revision is None else f"  revision {entry.revision}, acknowledged {entry.acked or 'none'}"
    return f"{utc(entry.at_ms)} UTC  {ago:>10} ago  {what}: {printable(entry.text)}{carts}{acked}\n"
