"""One table of operators' commands, and every place that is made from it: a row that one of them lacks, or one of them
more than the table has, is a mistake.
"""

import re
from itertools import product
from pathlib import Path
from typing import Any, get_args

import aiohttp
import pytest
import typer
from yarl import URL

from schemas.views import Status
from tests.unit.web.console.scene import Scene, get, get_json, parked
from tests.unit.web.control import Worker
from worker.cli import app as cli
from worker.config import WorkerSection
from worker.core.commands import COMMANDS, About, Command, commands
from worker.core.effects import EFFECTS, OPERATOR_KINDS
from worker.core.letters import DOINGS
from worker.errors import UsageError
from worker.tools.scenario.files import read_step
from worker.tools.scenario.world import World
from worker.web.private_port import PrivatePort

ALL = list(COMMANDS.values())
NAMES = list(COMMANDS)
PAGE = (Path(__file__).parents[2] / "schemas" / "SCENARIOS.md").read_text(encoding="utf-8")


def names(about: About) -> set[str]:
    """Of the commands that are done to an order, or to an account."""
    return {command.name for command in commands(about)}


def test_every_row_has_its_effect() -> None:
    """Of an order in the core, of an account in the worker; and no effect is without a row."""
    assert names("order") == EFFECTS.keys()
    with World({}, WorkerSection(), 1) as world:
        world.start()
        own = {command.name for command in commands("account") if not command.is_event_only}
        assert own == world._present().account_effects.keys()
    assert names("order") | names("account") == {command.name for command in OPERATOR_KINDS.values()}


@pytest.mark.parametrize("command", ALL, ids=NAMES)
def test_rows_are_complete(command: Command) -> None:
    """Whatever came of it, there are words for it; only what is done to orders is done to many."""
    for done, status in product((True, False), (None, *get_args(Status))):
        assert command.words(done, status)
    assert command.what.endswith(".")
    assert command.about == "order" or not (command.of_many or command.of_parked)


@pytest.mark.parametrize(("about", "others"), [("order", {"show", "history"}), ("account", {"report", "list"})])
def test_command_line(about: About, others: set[str]) -> None:
    """`order NAME` and `account NAME`, each with its help."""
    group: Any = typer.main.get_command(cli).commands[about]  # type: ignore[attr-defined]
    assert group.commands.keys() == names(about) | others
    for command in commands(about):
        assert group.commands[command.name].help.split() == command.help.split()


async def test_private_port() -> None:
    """A POST for each, and for all parked orders of an account where the table says so; for no other word. Who asks and
    why stands in the body, where it must."""
    worker = Worker()
    port = PrivatePort(worker)
    base = await port.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as session:

            async def status(path: str, body: bytes = b'{"who": "ana", "why": "ticket 4711"}') -> int:
                async with session.post(URL(base + path, encoded=True), data=body) as response:
                    return response.status

            for command in ALL:
                target = "acme%2F1" if command.about == "order" else "acme"
                assert await status(f"/{command.about}s/{target}/{command.name}") == 200
                assert worker.done == [(command.name, target.replace("%2F", "/"))]
                assert worker.asked == ("ana", "ticket 4711")
                without = await status(f"/{command.about}s/{target}/{command.name}", b'{"who": "ana"}')
                assert without == (400 if command.needs_why else 200)
                assert await status(f"/{command.about}s/{target}/{command.name}", b"{") == 400
                worker.done.clear()
                if command.about == "order":
                    assert await status(f"/accounts/acme/{command.name}") == (200 if command.of_parked else 404)
                    worker.done.clear()
            assert await status("/orders/acme%2F1/praise") == 405  # the path of an order, which is only read
            assert await status("/accounts/acme/praise") == 404
    finally:
        await port.stop()


async def test_console(tmp_path: Path) -> None:
    """A button for each on an order's page, or a link to where it is asked once more, a link for each that is done to
    many, and a route for each under `/api`.
    """
    scene = Scene(tmp_path)
    scene.put("acme/A15", parked())
    async with scene.open():
        page = await get(f"{scene.url}/orders/acme%2FA15")
        final = {command.name for command in ALL if command.is_final}
        assert set(re.findall(r'name="command" value="(\w+)"', page)) == names("order") - final
        assert set(re.findall(r'href="/confirm\?command=(\w+)&amp;subject=acme/A15"', page)) == final
        listed = await get(f"{scene.url}/orders?status=parked")
        of_many = {command.name for command in ALL if command.of_many}
        assert set(re.findall(r"/confirm\?command=(\w+)", listed)) == of_many
        for command in ALL:
            text = await get(f"{scene.url}/confirm?command={command.name}&subject=acme")
            assert command.what in text
            assert f'name="command" value="{command.name}"' in text
        paths = (await get_json(f"{scene.url}/api/openapi.json"))["paths"]
        found = {path for path, methods in paths.items() if "post" in methods}
        assert found == {
            "/api/try",
            "/api/actions/{key}/stop",
            *(f"/api/orders/{{subject}}/{name}" for name in names("order")),
            *(f"/api/accounts/{{account}}/{name}" for name in names("account")),
            *(f"/api/{name}" for name in of_many),
            *(f"/api/dead-letters/{{partition}}/{{offset}}/{name}" for name in DOINGS),
            *(f"/api/dead-letters/{doing.name}" for doing in DOINGS.values() if doing.of_many),
        }


@pytest.mark.parametrize("command", ALL, ids=NAMES)
def test_scenarios(command: Command) -> None:
    """A step for each, told on the page of the format."""
    step = {"operator": {command.step: "acme/1"}}
    if command.needs_why:
        with pytest.raises(UsageError, match=r"here: why: .* needs a reason"):
            read_step(step, "here")
    read_step(step | {"why": "ticket 4711"}, "here")
    told = next(line for line in PAGE.splitlines() if line.startswith('| `{"operator":'))
    assert f"`{command.step}`" in told


def test_no_other_step() -> None:
    """A word that the table does not have is refused, with those that it has."""
    with pytest.raises(UsageError, match=", ".join(command.step for command in ALL)):
        read_step({"operator": {"praise": "acme/1"}}, "here")


@pytest.mark.parametrize(
    ("count", "is_filtered", "words"),
    [
        (2, False, "2 released"),
        (1, True, "1 released"),
        (0, False, "no order is parked"),
        (0, True, "no order is parked whose reason contains that"),
    ],
)
def test_words_of_all_parked_orders(count: int, is_filtered: bool, words: str) -> None:
    """To how many it was done, or that there are none."""
    assert COMMANDS["release"].words_of_parked(count, is_filtered=is_filtered) == words
