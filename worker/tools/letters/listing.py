"""`cartsync dlq list` and `cartsync dlq show`."""

import asyncio
import sys
import time
from contextlib import aclosing

import msgspec

from schemas.console import LetterRow
from worker.config.console import ConsoleConfig
from worker.core.amounts import count_text
from worker.tools.control import printable
from worker.tools.letters import Letter, Place, open_desk
from worker.tools.letters.choosing import Choice
from worker.tools.progress import Progress
from worker.web.console.amounts import age
from worker.web.console.letters import headers_of, masked_row, view_letter


def run_list(config: ConsoleConfig, choice: Choice, *, as_json: bool) -> int:
    """Prints the letters that are meant; 0. Raises `UsageError`, `ConfigError`, `LogError`."""
    return asyncio.run(_list(config, choice, as_json))


async def _list(config: ConsoleConfig, choice: Choice, as_json: bool) -> int:
    now_ms = time.time_ns() // 1_000_000
    desk = await open_desk(config, None)
    count = 0
    async with aclosing(desk.walk(Progress())) as found:
        async for letter in found:
            if choice.takes(letter.row, now_ms):
                count += 1
                row = masked_row(letter.row)
                sys.stdout.write(msgspec.json.encode(row).decode() + "\n" if as_json else _line(row, now_ms))
    sys.stdout.flush()
    if not as_json:
        sys.stderr.write(f"{count_text(count, 'dead letter')}\n")
    return 0


def _line(row: LetterRow, now_ms: int) -> str:
    ago = age((now_ms - row.at_ms) / 1000)
    place = f"{row.partition}/{row.offset}"
    what = f"{printable(row.subject or '?')}  {printable(row.type or '?')}"
    state = f"  ({row.handled})" if row.handled else ""
    return f"{place:<12}  {ago:>10}  {row.reason:<16}  {what}  {printable(row.detail)}{state}\n"


def run_show(config: ConsoleConfig, place: Place, *, reveal: bool, as_json: bool) -> int:
    """Prints one letter with the place that is wrong; 0. Raises like `run_list`, also when there is none."""
    letter = asyncio.run(_letter(config, place))
    view, lines = view_letter(letter.row, letter.record, reveal=reveal)
    if as_json:
        print(msgspec.json.encode(view).decode())
        return 0
    row = view.letter
    print(f"dead letter {place}: {row.reason}")
    facts = {
        "expected": row.detail,
        "order": row.subject or "not known",
        "event": f"{row.type or 'not known'} {row.event_id}".rstrip(),
        "from": row.source,
        "key": view.key or "none",
        "cut": view.truncated,
        "state": f"{row.handled} already" if row.handled else "",
    }
    for name, text in facts.items():
        if text:
            print(f"  {name:<9} {printable(text)}")
    print("  record")
    for line in lines:
        mark = "    <-- here" if line.is_wrong else ""
        print(f"    {'  ' * line.depth}{printable(line.text)}{mark}")
    print("  headers")
    for name, text in headers_of(view.headers):
        print(f"    {printable(name)}: {printable(text)}")
    if view.is_hidden:
        print("what may be personal is shown as •••; --reveal shows it")
    if not row.handled:
        print(f"next: cartsync dlq mend {place} --set PATH=VALUE, or cartsync dlq replay {place}")
    return 0


async def _letter(config: ConsoleConfig, place: Place) -> Letter:
    desk = await open_desk(config, None)
    return await desk.letter(place)
