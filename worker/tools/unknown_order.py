"""Why there may be no such order, and what to try: for `cartsync order show`."""

import asyncio
from collections.abc import Mapping

from worker.config.console import ConsoleConfig
from worker.core.amounts import count_text
from worker.errors import CartsyncError
from worker.tools.control import means, printable
from worker.tools.letters import open_desk
from worker.tools.progress import Progress

_LETTERS_MAX = 1_000
"""That are counted: more is not worth the wait."""


def why_unknown(ref: str, config: ConsoleConfig) -> str:
    """Words to be added to `no order …`; empty: nothing is known. Looks through the dead letters, as far as they can be
    read.
    """
    try:
        refused = asyncio.run(_refused(ref, config))
    except CartsyncError:
        refused = {}
    return words(ref, refused, config.providers)


async def _refused(ref: str, config: ConsoleConfig) -> dict[str, int]:
    """By order that may be meant, how many of its events were refused."""
    desk, progress, found = await open_desk(config, None), Progress(), dict[str, int]()
    is_meant = means(ref)
    async for letter in desk.walk(progress):
        subject = letter.row.subject
        if subject and not letter.row.handled and is_meant(subject):
            found[subject] = found.get(subject, 0) + 1
            if found[subject] >= _LETTERS_MAX:
                break
    return found


def words(ref: str, refused: Mapping[str, int], accounts: Mapping[str, str]) -> str:
    """`refused`: by order, how many of its events. `accounts`: those that are configured."""
    if refused:
        return "; " + "; ".join(
            f"{count_text(count, 'event')} of {printable(subject)} "
            f"{'was' if count == 1 else 'were'} refused: `cartsync dlq list --filter order={printable(subject)}`"
            for subject, count in sorted(refused.items())
        )
    account, slash, _ = ref.partition("/")
    start = printable(ref)
    found = f"`cartsync orders list --reference {start}` lists those that begin so"
    if slash and accounts and account not in accounts:
        known = ", ".join(sorted(accounts))
        return f"; account {printable(account)} is not configured, configured are: {known}; {found}"
    return f"; an order is named account/reference; {found}" if not slash else f"; {found}"
