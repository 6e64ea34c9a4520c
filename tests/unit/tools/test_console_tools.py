"""Around the console: what pasted events lead to, workers behind private ports, and the users' file."""

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from schemas.views import OrderView
from tests.shops.events import confirmed, envelope, goods, shipped
from tests.unit.web.control import Worker
from worker.app.clock import SystemClock
from worker.config.sections import ConsoleSection
from worker.core.commands import COMMANDS
from worker.core.policy import DeliveryPolicy
from worker.errors import ConfigError, LogError, UsageError
from worker.sim.log import MemoryLog
from worker.sim.records import MemoryRecords
from worker.tools.console.attempt import Attempts, attempted, read_events
from worker.tools.console.run import open_console
from worker.tools.console.users import add_user, drop_user, list_users
from worker.tools.console.workers import PrivatePorts
from worker.tools.kafka_ports import free_ports
from worker.web.console.auth import read_users
from worker.web.console.operator import STOPPED, ActionProgress, Nobody
from worker.web.private_port import Access, PrivatePort

CONFIRMED, SHIPPED = envelope(confirmed(goods("A", 2, 200))), envelope(shipped("s1", A=1), 2)


# --- Try ---


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([CONFIRMED, SHIPPED]),
        f"{json.dumps(CONFIRMED)}\n\n{json.dumps(SHIPPED)}\n",
    ],
)
def test_shapes_of_events(text: str) -> None:
    """An array, or one a line."""
    assert read_events(text) == [CONFIRMED, SHIPPED]
    assert read_events(json.dumps(CONFIRMED, indent=2)) == [CONFIRMED]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "paste one event or more"),
        ("{", "expected JSON: "),
        ('{"a": 1}\n{', "line 2: expected a JSON object"),
        ("[1]", "event 1: expected a JSON object"),
        ("5", "event 1: expected a JSON object"),
        ("[" * 100_000, "expected JSON: "),
        (json.dumps([{}] * 201), "at most 200 events at once; these are 201"),
    ],
)
def test_no_events(text: str, expected: str) -> None:
    """What is none says what was expected."""
    with pytest.raises(UsageError, match=expected):
        read_events(text)


def test_what_events_lead_to() -> None:
    """The same carts, update and refusals that a worker would have."""
    tried = attempted([CONFIRMED, SHIPPED, {"type": "order.refunded", "subject": "acme/A14/12345"}], {"acme": "sequra"})
    assert [(each["event"], each["state"]) for each in tried.explanation[:2]] == [
        ("order.confirmed", "ready"),
        ("order.items_shipped", "ready"),
    ]
    (update,) = tried.updates
    assert update["method"] == "PUT"
    assert update["body"]["order"]["shipped_cart"]["order_total_with_tax"] == 100
    assert [(order.status, order.shipped_minor, order.unshipped_minor) for order in tried.orders] == [
        ("settled", 100, 100)
    ]
    assert len(tried.refused) == 1
    assert "line 3 refused" in tried.refused[0]
    assert tried.problems == []


def test_what_depends_on_the_provider() -> None:
    """Of a provider that is asked first, the carts alone are told, and that is said."""
    tried = attempted([CONFIRMED], {"acme": "qliro"})
    assert tried.updates == []
    assert len(tried.explanation) == 1
    assert tried.problems == ["what qliro is sent depends on what it answers: of acme, see the carts alone"]


async def test_in_a_process_of_its_own() -> None:
    """The console asks another process, and gets what that one found."""
    tried = await Attempts({"acme": "sequra"}).attempt(json.dumps([CONFIRMED, SHIPPED]))
    assert [update["method"] for update in tried.updates] == ["PUT"]
    assert (await Attempts({}).attempt("{")).problems[0].startswith("expected JSON")


async def test_what_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is ended, whatever was pasted."""
    monkeypatch.setattr("worker.tools.console.attempt.WITHIN_S", 0.0)
    assert (await Attempts({}).attempt(json.dumps(CONFIRMED))).problems == [
        "this takes longer than 0 s; try fewer events"
    ]


# --- workers ---


@asynccontextmanager
async def port_of(worker: Worker, token: str = "") -> AsyncIterator[str]:
    """Its private port."""
    port = PrivatePort(worker, Access(token))
    url = await port.start("127.0.0.1", 0)
    try:
        yield url
    finally:
        await port.stop()


async def test_acts_at_whoever_serves_it() -> None:
    """Of several workers the one that has the order is asked, and what it says is told."""
    first, second = Worker(), Worker()
    first.orders = {"acme/1": OrderView("acme/1", "parked", "422")}
    second.orders = {"acme/2": OrderView("acme/2", "parked", "422")}
    async with port_of(first) as one, port_of(second) as two:
        ports = PrivatePorts([one, two + "/"], "")
        assert ports.why_not() == ""
        lines = await ports.submit(
            COMMANDS["release"], ["acme/1", "acme/2", "acme/3"], by="ana", why="mended", progress=ActionProgress()
        )
        assert [(line.subject, line.done) for line in lines] == [("acme/1", True), ("acme/2", True), ("acme/3", False)]
        assert "are all of them named in [console] workers?" in lines[2].detail
        assert (first.done, second.done) == ([("release", "acme/1")], [("release", "acme/2")])
        (resent,) = await ports.submit(COMMANDS["resend"], ["acme/2"], by="ana", why="", progress=ActionProgress())
        assert resent.done
        shown = await ports.show("acme/2")
        assert shown is not None
        assert (shown[0], shown[1].subject) == (two, "acme/2")
        assert await ports.show("acme/3") is None


async def test_stops_after_what_is_under_way() -> None:
    """A few are asked at once; once it is stopped nobody else is, and that is said."""
    worker = Worker()
    subjects = [f"acme/{number}" for number in range(30)]
    worker.orders = {subject: OrderView(subject, "parked", "422") for subject in subjects}
    progress = ActionProgress()

    def stop() -> None:
        progress.is_stopped = True

    progress.told = stop
    async with port_of(worker) as url:
        ports = PrivatePorts([url], "")
        lines = await ports.submit(COMMANDS["release"], subjects, by="ana", why="", progress=progress)
    assert [line.subject for line in lines] == subjects
    assert sorted(worker.done) == sorted(("release", line.subject) for line in lines if line.done)
    assert 1 <= len(worker.done) <= 8
    assert {line.detail for line in lines if not line.done} == {STOPPED}
    assert len(progress.lines) == len(worker.done)


async def test_what_cannot_be_done() -> None:
    """Is said in the worker's words; a commit that is not known to be is not called done."""
    worker = Worker()
    async with port_of(worker) as url:
        ports = PrivatePorts([url], "")
        worker.fails = LogError("not committed")
        (line,) = await ports.submit(COMMANDS["release"], ["acme/1"], by="ana", why="", progress=ActionProgress())
        assert (line.done, line.detail) == (False, "commit not confirmed; check the order and try again")
        worker.fails = UsageError("partition 0 is restoring")
        (line,) = await ports.submit(COMMANDS["release"], ["acme/1"], by="ana", why="", progress=ActionProgress())
        assert (line.done, line.detail) == (False, "partition 0 is restoring")


async def test_accounts_are_resumed_everywhere() -> None:
    """Each worker is asked; one that is away is named."""
    worker = Worker()
    async with port_of(worker) as url:
        ports = PrivatePorts([url, "http://127.0.0.1:1"], "")
        (line,) = await ports.submit(COMMANDS["resume"], ["acme"], by="ana", why="", progress=ActionProgress())
        assert line.done
        assert url in line.detail
        assert "no worker responds at http://127.0.0.1:1" in line.detail
        (unknown,) = await ports.submit(COMMANDS["resume"], ["none"], by="ana", why="", progress=ActionProgress())
        assert not unknown.done


async def test_accounts_of_workers_that_write_events() -> None:
    """The first one that answers has told all others: nobody else is asked. Who asked, and why, goes with it."""
    first, second = Worker(), Worker()
    first.everywhere = second.everywhere = True
    async with port_of(first) as one, port_of(second) as two:
        ports = PrivatePorts(["http://127.0.0.1:1", one, two], "")
        (line,) = await ports.submit(
            COMMANDS["pause"], ["acme"], by="ana", why="maintenance", progress=ActionProgress()
        )
        assert (line.done, line.detail) == (True, "paused")
        assert (first.done, first.asked, second.done) == ([("pause", "acme")], ("ana", "maintenance"), [])


async def test_statuses() -> None:
    """What each worker says of itself, and that one does not answer."""
    worker = Worker()
    async with port_of(worker) as url:
        (one, status), (other, nothing) = await PrivatePorts([url, "http://127.0.0.1:1"], "").statuses()
    assert (one.ok, one.version, one.partitions, one.lease_left_s) == (True, "0.1.0", 1, 19.0)
    assert status is not None
    assert status.accounts[0].paused == "401"
    assert (other.ok, nothing) == (False, None)
    assert "no worker responds" in other.detail


async def test_worker_that_dies_in_the_middle_of_an_answer() -> None:
    """It does not answer, whatever it had begun to say."""

    async def die(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\n{")
        writer.close()

    async with await asyncio.start_server(die, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        ((line, status),) = await PrivatePorts([f"http://127.0.0.1:{port}"], "").statuses()
    assert (line.ok, status) == (False, None)
    assert "no worker responds" in line.detail


# --- users ---


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password on standard input."""
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse\n"))


def test_users(tmp_path: Path, typed: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Are added with a password that is not shown, listed, and removed."""
    path = tmp_path / "users"
    assert add_user(path, "ana", "operator", as_json=False) == 0
    assert list_users(path, as_json=True) == 0
    assert read_users(path)["ana"].role == "operator"
    assert drop_user(path, "ana", as_json=False) == 0
    out = capsys.readouterr().out
    assert out == f'ana, operator: added to {path}\n{{"ana": "operator"}}\nana: removed from {path}\n'
    with pytest.raises(UsageError, match="there is no user ana"):
        drop_user(path, "ana", as_json=False)


def test_two_passwords_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it is asked for twice."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    said = iter(["correct horse", "another horse"])
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("worker.tools.console.users.getpass", lambda _prompt: next(said))
    with pytest.raises(UsageError, match="the two passwords differ"):
        add_user(tmp_path / "users", "ana", "viewer", as_json=False)
    assert not (tmp_path / "users").exists()


@asynccontextmanager
async def console(tmp_path: Path, *, port_setting: str | None = None, **settings: Any) -> AsyncIterator[None]:
    """A console over an empty broker."""
    options: dict[str, Any] = {} if port_setting is None else {"port_setting": port_setting}
    async with AsyncExitStack() as stack:
        await open_console(
            stack,
            ConsoleSection(**{"port": 0} | settings),
            records=MemoryRecords(MemoryLog(1, SystemClock()), SystemClock()),
            operator=Nobody(),
            workers=Nobody(),
            rules=DeliveryPolicy(),
            providers={},
            index=tmp_path / "index.sqlite",
            **options,
        )
        yield


async def test_metrics_of_a_console(tmp_path: Path) -> None:
    """On a port of their own, with the probes, and nothing else; a port that is taken is named by its setting."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    async with console(tmp_path, metrics_port=port), aiohttp.ClientSession() as session:

        async def answer(path: str) -> tuple[int, str]:
            async with session.get(url + path) as response:
                return response.status, await response.text()

        while (await answer("/readyz"))[0] != 200:  # noqa: ASYNC110 - it says nothing by itself
            await asyncio.sleep(0.01)
        assert [(await answer(path))[0] for path in ("/livez", "/startupz", "/", "/status", "/api/orders")] == [
            *(200, 200),
            *(404, 404, 404),
        ]
        status, page = await answer("/metrics")
        assert status == 200
        for line in (
            'cartsync_console_index{state="following"} 1.0',
            "cartsync_ready 1.0",
            "process_cpu_seconds_total",
        ):
            assert f"\n{line}" in page
        (tmp_path / "other").mkdir()
        with pytest.raises(ConfigError, match=r"\[console\] host and metrics_port: 127.0.0.1:\d+ cannot be used"):
            async with console(tmp_path / "other", metrics_port=port):
                pass


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, "[console] host and port: 127.0.0.1:"), ({"port_setting": "--console-port"}, "--console-port: 127.0.0.1:")],
)
async def test_port_is_taken(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    """It is said which setting to change: the demo's is an option."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError) as found:
        async with console(tmp_path, port=taken.getsockname()[1], **options):
            pass
    assert str(found.value).startswith(expected)
    assert "cannot be used" in str(found.value)
