"""What a person does in the console's pages, in a real browser, to its effect at the provider: by operators' events that a
worker takes, over a real Kafka.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.browser.driver import Browser, programs_or_skip
from tests.integration.conftest import OpenStage
from tests.integration.harness import Stage
from tests.integration.process import until
from tests.shops.by_hand import ACCOUNT, line
from worker.tools.kafka_ports import free_ports

pytestmark = pytest.mark.slow
SECRETS = {"record_secrets": ["what workers and operators share, of 32 characters"]}


@pytest.fixture
def browser() -> Iterator[Browser]:
    """One window."""
    with Browser(*programs_or_skip()) as opened:
        yield opened


class Person:
    """Somebody at the pages of a console that a worker serves."""

    def __init__(self, browser: Browser, stage: Stage, url: str) -> None:
        self._browser = browser
        self._stage = stage
        self._url = url

    async def _do(self, what: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(what, *arguments)

    async def opens(self, path: str) -> None:
        """A page."""
        await self._do(self._browser.open, self._url + path)

    async def sees(self, text: str, css: str = "body", path: str = "") -> None:
        """Until it is to be read; `path`: a page that is loaded again meanwhile, for it may not be there yet."""
        for _ in range(60):
            if path:
                await self.opens(path)
            if text in re.sub(r"\s+", " ", await self._do(self._browser.text, css)):
                return
            await asyncio.sleep(0.5)
        raise AssertionError(f"{text!r} is not in: {await self._do(self._browser.text)}\n{self._stage.tails()}")

    async def reads(self, css: str) -> str:
        """What is to be read there now."""
        return str(await self._do(self._browser.text, css))

    async def clicks(self, css: str) -> None:
        """The first one of these."""
        await self._do(self._browser.click, css)

    async def acts(self, subject: str, command: str, why: str, said: str) -> None:
        """On an order's page, until what came of it is said."""
        await self.sees(subject, "h1", f"/orders/{quote(subject, safe='')}")
        await self._do(self._browser.type, "input[name=why]", why)
        await self.clicks(f"button[value={command}]")
        await self.sees(said, ".banner")

    async def confirms(self, link: str, question: str, why: str, said: str) -> None:
        """What is asked once more."""
        await self.clicks(link)
        await self.sees(question, "h1")
        await self._do(self._browser.type, "input[name=why]", why)
        await self.clicks("form.act button")
        await self.sees(said, ".banner")


async def at_the_pages(open_stage: OpenStage, browser: Browser) -> tuple[Stage, Person]:
    """A stage with a worker and the console that it serves."""
    stage = await open_stage(partitions=2)
    (port,) = free_ports(1)
    console = {"with_worker": True, "port": port, "index": str(stage.folder / "index.sqlite")}
    stage.configure(console=console, callbacks=SECRETS)
    worker = await stage.started()
    await until(lambda: bool(worker.log("console_open")), 30, stage.tails)
    return stage, Person(browser, stage, f"http://127.0.0.1:{port}")


async def ships(stage: Stage, reference: str, fault: str = "", times: int = 1) -> str:
    """An order of which a mug is shipped; what its first updates meet."""
    order = stage.order(f"{ACCOUNT}/{reference}")
    if fault:
        stage.script([order.subject], fault, times)
    await order.confirm(line("mug", 1000))
    await order.ship("s1", mug=1)
    await until(lambda: len(stage.attempts(order.subject)) >= 1, 30, stage.tails)
    return order.subject


async def test_what_is_done_to_orders(open_stage: OpenStage, browser: Browser) -> None:
    """Release, resend and note of one; release of all that match; adopt and forget of one that the provider refuses."""
    stage, person = await at_the_pages(open_stage, browser)
    first = await ships(stage, "A1", "422")
    await person.sees("parked", "h1", f"/orders/{quote(first, safe='')}")
    await person.acts(first, "release", "price corrected", "released")
    await stage.agreed({first: (1000, 0)})
    await person.acts(first, "resend", "to be sure", "will be sent again")
    await until(lambda: len(stage.attempts(first)) == 3, 20, stage.tails)
    await person.acts(first, "note", "the shopper called", "noted")
    await person.sees("note (the shopper called)", ".note:last-of-type", f"/orders/{quote(first, safe='')}")

    more = [await ships(stage, reference, "422") for reference in ("B1", "B2", "B3")]
    await person.sees("3 orders", ".above", "/orders?status=parked&q=B")
    await person.confirms("a[href*='command=release']", "Release 3 orders?", "prices corrected", "3 done, 0 not.")
    await stage.agreed(dict.fromkeys(more, (1000, 0)))
    assert [len(stage.attempts(subject)) for subject in more] == [2, 2, 2]

    refused = await ships(stage, "C1", "422", 100)
    await person.sees("parked", "h1", f"/orders/{quote(refused, safe='')}")
    await person.acts(refused, "adopt", "settled by hand", "what the provider has counts as sent")
    await person.sees("settled", "h1", f"/orders/{quote(refused, safe='')}")
    await person.confirms(
        "a[href*='command=forget']", f"Forget {refused}?", "erasure", "its personal details are erased"
    )
    await asyncio.sleep(3.0)
    assert (len(stage.attempts(refused)), len(stage.attempts(first))) == (1, 3)


async def test_many_are_watched_and_stopped(open_stage: OpenStage, browser: Browser) -> None:
    """The page counts while events are written and taken; after Stop the provider hears of no further order, and of as
    many as the page says. What was left is done by the same filter.
    """
    count = 500
    stage, person = await at_the_pages(open_stage, browser)
    orders = [stage.order(f"{ACCOUNT}/M{number}") for number in range(count)]
    await asyncio.gather(*(order.confirm(line("mug", 1000)) for order in orders))
    await asyncio.gather(*(order.ship("s1", mug=1) for order in orders))
    subjects = [order.subject for order in orders]
    await stage.agreed(dict.fromkeys(subjects, (1000, 0)))
    first = sum(len(stage.attempts(subject)) for subject in subjects)

    def resent() -> int:
        return sum(len(stage.attempts(subject)) for subject in subjects) - first

    chosen = "/orders?status=settled&q=M"
    await person.sees(f"{count} orders", ".above", chosen)
    await person.confirms("a[href*='command=resend']", f"Resend {count} orders?", "a drill", f"of {count}:")
    await person.clicks("#stop button")
    await person.sees("it was stopped", ".banner")
    said = re.search(r"(\d+) done, (\d+) not", re.sub(r"\s+", " ", await person.reads(".banner")))
    assert said is not None
    done = int(said[1])
    assert (0 < done < count, done + int(said[2])) == (True, count)
    await until(lambda: resent() == done, 30, stage.tails)
    await asyncio.sleep(3.0)
    assert resent() == done
    await person.sees(f"{count} orders", ".above", chosen)
    await person.confirms(
        "a[href*='command=resend']", f"Resend {count} orders?", "all of them", f"{count} done, 0 not."
    )
    await until(lambda: resent() == done + count, 30, stage.tails)


async def test_what_is_done_to_accounts(open_stage: OpenStage, browser: Browser) -> None:
    """A pause holds everything back until a resume."""
    stage, person = await at_the_pages(open_stage, browser)
    await ships(stage, "A1")
    await person.sees(ACCOUNT, "#overview", "/")
    pause = f"a[href*='command=pause'][href$='subject={ACCOUNT}']"
    await person.confirms(pause, f"Pause {ACCOUNT}?", "maintenance", "paused")
    order = stage.order(f"{ACCOUNT}/A2")
    await order.confirm(line("mug", 1000))
    await order.ship("s1", mug=1)
    await person.sees("owed", "h1", f"/orders/{quote(order.subject, safe='')}")
    await asyncio.sleep(3.0)
    assert stage.attempts(order.subject) == []
    await person.sees("paused by an operator", "#overview", "/")
    resume = f"#accounts ~ .scroll a[href*='command=resume'][href$='subject={ACCOUNT}']"
    await person.confirms(resume, f"Resume {ACCOUNT}?", "done", "resumed")
    await stage.agreed({order.subject: (1000, 0)})
