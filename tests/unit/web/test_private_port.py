"""The private port, asked over HTTP on loopback, with a worker of a few lines behind it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from aiohttp import ClientSession
from yarl import URL

from schemas.views import OrderView, Status
from tests.logged import logged
from tests.unit.web.control import SUBJECTS, Worker
from worker import is_loopback, logs
from worker.core.commands import Command
from worker.errors import InvariantError, LogError
from worker.ports import CommandOutcome
from worker.web import private_port as module
from worker.web.private_port import CONNECTIONS_MAX, Access, PrivatePort


class Port:
    """A client of the port."""

    def __init__(self, session: ClientSession, base: str) -> None:
        self._session = session
        self.base = base

    async def ask(self, method: str, path: str, body: bytes | None = None, /, **headers: str) -> tuple[int, str, bytes]:
        """Status, content type and body of the answer to a raw path."""
        url = URL(self.base + path, encoded=True)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._session.request(method, url, headers=sent, data=body) as response:
            return response.status, response.content_type, await response.read()


@pytest.fixture
def worker() -> Worker:
    """What stands behind the port."""
    return Worker()


@pytest.fixture
async def port(worker: Worker) -> AsyncIterator[Port]:
    """The port, open."""
    private_port = PrivatePort(worker)
    base = await private_port.start("127.0.0.1", 0)
    async with ClientSession() as session:
        yield Port(session, base)
    await private_port.stop()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz"])
async def test_probes(port: Port, worker: Worker, path: str) -> None:
    """A probe answers 200, or 503 with the reason."""
    assert await port.ask("GET", path) == (200, "application/json", b'{"ok":true,"detail":""}')
    worker.state = (False, "poll loop stuck for 61 s")
    status, _, body = await port.ask("GET", path)
    assert (status, body) == (503, b'{"ok":false,"detail":"poll loop stuck for 61 s"}')


async def test_status(port: Port) -> None:
    """The status is the worker's, as JSON."""
    status, kind, body = await port.ask("GET", "/status")
    assert (status, kind) == (200, "application/json")
    assert b'"role":"serving"' in body
    assert b'"paused":"401"' in body


@pytest.mark.parametrize(("path", "name"), [("/status", "status"), ("/metrics", "metrics_page")])
async def test_what_is_costly_is_made_seldom(monkeypatch: pytest.MonkeyPatch, path: str, name: str) -> None:
    """However often somebody asks, the loop has ten times as long for others."""
    worker, now, made = Worker(), 0.0, 0
    make = getattr(worker, name)

    def costly() -> object:
        nonlocal now, made
        now, made = now + 0.3, made + 1
        return make()

    monkeypatch.setattr(worker, name, costly)
    private_port = PrivatePort(worker, now=lambda: now)
    base = await private_port.start("127.0.0.1", 0)
    async with ClientSession() as session:
        port = Port(session, base)
        first = await port.ask("GET", path)
        now += 2.9
        assert await port.ask("GET", path) == first
        assert made == 1
        now += 0.2
        assert await port.ask("GET", path) == first
        assert made == 2
    assert worker.counted == 2  # what waits, in slices, before each
    await private_port.stop()


async def test_metrics(port: Port, worker: Worker) -> None:
    """The metrics are in the Prometheus text format."""
    worker.figures.configured(["acme"])
    worker.figures.parked("acme")
    status, kind, body = await port.ask("GET", "/metrics")
    assert (status, kind) == (200, "text/plain")
    assert b'\ncartsync_parked_total{account="acme"} 1.0\n' in body


@pytest.mark.parametrize(
    ("subject", "safe"), [*((each, "") for each in SUBJECTS), *((each, "/") for each in SUBJECTS[:-1])]
)
async def test_orders_are_found_by_any_reference(port: Port, worker: Worker, subject: str, safe: str) -> None:
    """Every reference that the input contract allows can be shown, released and sent again."""
    path = "/orders/" + quote(subject, safe=safe)
    status, _, body = await port.ask("GET", path)
    assert (status, b'"status":"parked"' in body) == (200, True)
    status, _, body = await port.ask("POST", path + "/release")
    assert (status, b'"done":true' in body, b'"status":"owed"' in body) == (200, True, True)
    assert (await port.ask("POST", path + "/resend"))[0] == 200
    assert worker.done == [("release", subject), ("resend", subject)]


async def test_unknown_order(port: Port) -> None:
    """An order that is not here is 404, as a problem that says so."""
    for method, path in (("GET", "/orders/acme%2Fnone"), ("POST", "/orders/acme%2Fnone/release")):
        status, kind, body = await port.ask(method, path)
        assert (status, kind) == (404, "application/problem+json")
        assert b"acme/none" in body
        assert b'"title":"Not Found"' in body


async def test_refused_for_now(port: Port) -> None:
    """What cannot be done to an order that is here is 409, with the reason."""
    status, kind, body = await port.ask("POST", "/orders/acme%2Fbusy/resend")
    assert (status, kind) == (409, "application/problem+json")
    assert b"partition 3 is being restored" in body


async def test_accounts(port: Port, worker: Worker) -> None:
    """A pause is ended; an account that does not exist is 404."""
    assert (await port.ask("POST", "/accounts/acme/resume"))[0] == 200
    assert worker.done == [("resume", "acme")]
    status, _, body = await port.ask("POST", "/accounts/none/resume")
    assert (status, b"no account none" in body) == (404, True)


@pytest.mark.parametrize(
    ("query", "asked", "words"),
    [
        ("", ("report", "acme"), "2 jobs are due now"),
        ("?page=a1&taken=false", ("decide a1", "False"), "page not taken"),
        ("?page=a1&taken=true", ("decide a1", "True"), "no page with this id waits for an operator"),
    ],
)
async def test_reports(port: Port, worker: Worker, query: str, asked: tuple[str, str], words: str) -> None:
    """An account's jobs are made due, and what became of a page is said."""
    status, _, body = await port.ask("POST", f"/accounts/acme/report{query}")
    assert (status, json.loads(body)["detail"]) == (200, words)
    assert worker.done == [asked]
    assert (await port.ask("POST", f"/accounts/none/report{query}"))[0] == 404


@pytest.mark.parametrize("query", ["page=a1", "page=a1&taken=lost", "taken=true"])
async def test_page_that_was_what(port: Port, worker: Worker, query: str) -> None:
    """Neither taken nor not, or not said which: nothing is done."""
    assert (await port.ask("POST", f"/accounts/acme/report?{query}"))[0] == 400
    assert worker.done == []


async def test_says_whether_an_account_was_paused(port: Port) -> None:
    """The second resume finds nothing to do, and says so; that is no error."""
    found = [json.loads((await port.ask("POST", "/accounts/acme/resume"))[2]) for _ in range(2)]
    assert found == [
        {"done": True, "order": None, "detail": "resumed", "released": None, "everywhere": False},
        {"done": False, "order": None, "detail": "it is not paused", "released": None, "everywhere": False},
    ]


@pytest.mark.parametrize(
    ("status", "reason", "done", "words"),
    [
        ("parked", "422: no", True, "released"),
        ("settled", "", False, "nothing to release: it is settled"),
        ("unconfirmed", "", False, "nothing to release: it is unconfirmed"),
        ("inconsistent", "", False, "nothing to release: it is inconsistent"),
        ("owed", "", False, "nothing to release: it is owed, and is sent as soon as its delay"),
        ("parked", "", False, "nothing to release: its events contradict each other"),
    ],
)
async def test_release_says_what_it_did(
    port: Port, worker: Worker, status: Status, reason: str, done: bool, words: str
) -> None:
    """Whether there was anything to release, for machines and for people."""
    worker.orders["acme/1"] = OrderView("acme/1", status, reason)
    code, _, body = await port.ask("POST", "/orders/acme%2F1/release")
    found = json.loads(body)
    assert (code, found["done"]) == (200, done)
    assert found["detail"].startswith(words)


async def test_release_of_what_stays_as_it_is(port: Port, worker: Worker) -> None:
    """Counts of an order that cannot be sent yet start anew; a resend of it waits."""

    worker.orders["acme/1"] = OrderView("acme/1", "unconfirmed", "409: no")
    body = json.loads((await port.ask("POST", "/orders/acme%2F1/release"))[2])
    assert (body["done"], body["detail"]) == (True, "its attempt counts were reset, but it is still unconfirmed")
    body = json.loads((await port.ask("POST", "/orders/acme%2F1/resend"))[2])
    assert body["detail"] == "will be sent again once possible; it is unconfirmed"


async def test_release_of_all_parked_orders_of_an_account(port: Port, worker: Worker) -> None:
    """Says how many; a text chooses among the reasons; an account that does not exist is 404."""
    worker.orders["acme/1"] = OrderView("acme/1", "parked", "302: /wartung ñ&")
    body = json.loads((await port.ask("POST", "/accounts/acme/release?reason_contains=ung%20%C3%B1%26"))[2])
    assert (body["done"], body["released"], body["detail"]) == (True, 1, "1 released")
    assert worker.orders["acme/A14/12345"].status == "parked"
    body = json.loads((await port.ask("POST", "/accounts/acme/release"))[2])
    assert (body["released"], body["detail"]) == (len(SUBJECTS) - 1, f"{len(SUBJECTS) - 1} released")
    body = json.loads((await port.ask("POST", "/accounts/acme/release?reason_contains=x"))[2])
    assert (body["done"], body["detail"]) == (False, "no order is parked whose reason contains that")
    assert (await port.ask("POST", "/accounts/none/release"))[0] == 404


async def test_not_committed(port: Port, worker: Worker) -> None:
    """When the log fails, the caller may try again."""
    worker.fails = LogError("inner words")
    status, kind, body = await port.ask("POST", "/orders/acme%2F1/release")
    assert (status, kind, b"inner words" in body) == (503, "application/problem+json", False)


async def test_defect(port: Port, worker: Worker) -> None:
    """A defect is 500 and tells nothing of the inside."""
    worker.fails = InvariantError("inner words")
    status, kind, body = await port.ask("POST", "/orders/acme%2F1/release")
    assert (status, kind, b"inner words" in body) == (500, "application/problem+json", False)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/orders/", 404),
        ("DELETE", "/orders/acme%2F1", 405),
        ("POST", "/status", 405),
        ("GET", "/orders/acme%2F%ff", 400),
    ],
)
async def test_wrong_requests(port: Port, method: str, path: str, expected: int) -> None:
    """Whatever else is asked is answered with a problem."""
    status, kind, _ = await port.ask(method, path)
    assert (status, kind) == (expected, "application/problem+json")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
async def test_pages_of_other_sites_cannot_act(port: Port, worker: Worker, headers: dict[str, str]) -> None:
    """A form on a foreign page cannot make an operator's browser act."""
    status, _, _ = await port.ask("POST", "/orders/acme%2F1/release", **headers)
    assert (status, worker.done) == (403, [])


async def test_own_page_can_act(port: Port, worker: Worker) -> None:
    """A page of the port itself may act."""
    headers = {"Sec_Fetch_Site": "same-origin", "Origin": "http://localhost:1", "Host": "localhost:1"}
    assert (await port.ask("POST", "/orders/acme%2F1/release", **headers))[0] == 200
    assert worker.done == [("release", "acme/1")]


async def test_port_taken(worker: Worker) -> None:
    """A port that is in use is an `OSError`, and nothing stays open."""
    first, second = PrivatePort(worker), PrivatePort(worker)
    base = await first.start("127.0.0.1", 0)
    with pytest.raises(OSError, match="address already in use"):
        await second.start("127.0.0.1", URL(base).port or 0)
    await second.stop()
    await first.stop()


# --- who may ask ---

TOKEN = "s3cr3t-t0k3n"
ACT = "/orders/acme%2F1/release"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *(("127.0.0.1:8080", 200), ("localhost", 200), ("LOCALHOST:1", 200), ("[::1]:8080", 200), ("10.1.2.3", 200)),
        *(("worker.shop.internal:80", 200), ("Worker.Shop.Internal", 200)),
        *(("evil.example", 421), ("evil.example:8080", 421), ("localhost.evil.example", 421), ("", 421)),
        *(("[::1", 421), ("127.0.0.1@evil.example", 421), ("127.0.0.1:80:80", 421), ("evil.example\xff", 421)),
    ],
)
async def test_host_has_to_be_ours(worker: Worker, host: str, expected: int) -> None:
    """A foreign name that was made to point here reads no order and acts on none; probes and metrics do not mind."""
    private_port = PrivatePort(worker, Access(allowed_hosts=["worker.shop.internal"]))
    base = await private_port.start("127.0.0.1", 0)
    for method, path in (("GET", "/orders/acme%2F1"), ("POST", ACT), ("GET", "/status")):
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        assert (await raw(base, head)).startswith(f"HTTP/1.1 {expected} ")
    assert bool(worker.done) == (expected == 200)
    for path in ("/livez", "/metrics"):
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        assert (await raw(base, head)).startswith("HTTP/1.1 200 ")
    await private_port.stop()


async def raw(base: str, head: str) -> str:
    """What comes back for these bytes, until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(base).port)
    writer.write(head.encode("latin-1"))
    answer = await reader.read()
    writer.close()
    return answer.decode()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        *((f"Bearer {TOKEN}", 200), (None, 401), ("Bearer wrong", 401), (f"bearer {TOKEN}", 401), (TOKEN, 401)),
        *((f"Bearer {TOKEN} ", 200), ("Bearer s3cr3t-t0k3n\xe4", 401), ("Bearer ", 401), ("", 401)),
    ],
)
async def test_beyond_loopback_a_token_is_needed(worker: Worker, given: str | None, expected: int) -> None:
    """Orders are shown and changed for who has the token; probes, status and metrics need none."""
    private_port = PrivatePort(worker, Access(token=TOKEN))
    base = await private_port.start("0.0.0.0", 0)
    sent = "" if given is None else f"Authorization: {given}\r\n"
    for method, path in (("POST", ACT), ("GET", "/orders/acme%2F1"), ("POST", "/accounts/acme/resume")):
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{sent}Connection: close\r\n\r\n"
        answer = await raw(base, head)
        assert answer.startswith(f"HTTP/1.1 {expected} ")
        assert ("WWW-Authenticate: Bearer" in answer) == (expected == 401)
        assert TOKEN not in answer
    assert bool(worker.done) == (expected == 200)
    for path in ("/livez", "/readyz", "/startupz", "/status", "/metrics"):
        assert (await raw(base, f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")).startswith("HTTP/1.0 200 ")
    await private_port.stop()


async def test_beyond_loopback_without_a_token_nobody_acts(worker: Worker) -> None:
    """Who has set no token has an open port for probes, and none that acts: it says what to set."""
    private_port = PrivatePort(worker)
    base = await private_port.start("0.0.0.0", 0)
    for head in (f"POST {ACT}", "GET /orders/acme%2F1"):
        answer = await raw(
            base, f"{head} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer \r\nConnection: close\r\n\r\n"
        )
        assert answer.startswith("HTTP/1.1 403 ")
        assert "token_file" in answer
    assert worker.done == []
    await private_port.stop()


async def test_token_that_changes(worker: Worker) -> None:
    """A new token holds from the next request on."""
    private_port = PrivatePort(worker, Access(token="old"))
    base = await private_port.start("0.0.0.0", 0)
    head = f"POST {ACT} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer new\r\nConnection: close\r\n\r\n"
    assert (await raw(base, head)).startswith("HTTP/1.1 401 ")
    private_port.access = Access(token="new")
    assert (await raw(base, head)).startswith("HTTP/1.1 200 ")
    await private_port.stop()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)),
        *(("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("worker", False), ("", False)),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    """Where only this machine can ask."""
    assert is_loopback(host) == expected


async def test_who_acted_is_logged(port: Port) -> None:
    """The line of an operator's act says where it came from."""
    lines: list[str] = []
    with logs.capture(lines):
        await port.ask("POST", ACT)
        await port.ask("POST", "/accounts/acme/resume")
    assert [json.loads(line)["peer"] for line in lines if "operator_command" in line] == ["127.0.0.1"] * 2


# --- who takes too long, or too much ---


@pytest.mark.parametrize("head", ["", "GET /livez HT", "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
async def test_header_that_does_not_come(port: Port, monkeypatch: pytest.MonkeyPatch, head: str) -> None:
    """A client that does not finish its header is hung up on, at the first request and at a later one."""
    monkeypatch.setattr(module, "HEADER_WITHIN_S", 0.05)
    whole = "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    for before, answered in (("", 0), (whole, 1)):
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(port.base).port)
        writer.write((before + head).encode())
        try:
            async with asyncio.timeout(5):
                answer = await reader.read()
        except ConnectionResetError:
            answer = b"HTTP/1.1" * answered
        assert answer.count(b"HTTP/1.1") == answered
        writer.close()


async def test_patience_is_for_the_header_only(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long to commit is waited for."""
    monkeypatch.setattr(module, "HEADER_WITHIN_S", 0.01)
    committed = asyncio.Event()

    async def operate(_command: Command, _subject: str, _by: str, _why: str) -> CommandOutcome:
        await committed.wait()
        return CommandOutcome(True)

    monkeypatch.setattr(worker, "operate", operate)
    private_port = PrivatePort(worker)
    base = await private_port.start("127.0.0.1", 0)
    asked = asyncio.create_task(raw(base, f"POST {ACT} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"))
    asyncio.get_running_loop().call_later(0.1, committed.set)
    assert (await asked).startswith("HTTP/1.0 200 ")
    await private_port.stop()


async def test_too_many_connections(port: Port) -> None:
    """Connections beyond the limit are hung up on; when others end, there is room again."""
    number = URL(port.base).port
    pairs = [await asyncio.open_connection("127.0.0.1", number) for _ in range(CONNECTIONS_MAX)]
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    for _, each in [*pairs, (reader, writer)]:
        each.close()
        await each.wait_closed()
    assert (await port.ask("GET", "/livez"))[0] == 200


@pytest.mark.parametrize(
    "head",
    [
        f"POST /callbacks/{TOKEN}/1 HTTP/9.x\r\nHost: x\r\n\r\n",
        f"GET /livez HTTP/1.1\r\nHost: x\r\nX-Token: {TOKEN}\x01\r\n\r\n",
        f"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: {TOKEN}\r\n\r\n",
    ],
)
async def test_what_cannot_be_parsed_is_not_repeated(port: Port, head: str) -> None:
    """Neither the log nor the answer has what somebody sent by mistake."""
    lines: list[str] = []
    with logs.capture(lines, "info"):
        answer = await raw(port.base, head)
        logging.getLogger("other").error("the end")
    assert answer.startswith(("HTTP/1.1 400 ", "HTTP/1.0 400 "))
    assert TOKEN not in answer + "".join(lines)
    assert all(len(line) < 300 for line in lines)


REASON = b'{"why": "a gap", "who": "ana@desk"}'


async def test_skip(port: Port, worker: Worker) -> None:
    """A position is moved, and the log says from where to where, who did it and why."""
    with logged() as lines_logged:
        answer = await port.ask("POST", "/input/0/skip/42", REASON)
    assert answer == (200, "application/json", b'{"partition":0,"before":10,"offset":42,"done":true}')
    assert worker.done == [("skip", "0 42")]
    [line] = lines_logged
    said = {name: line[name] for name in ("event", "action", "partition", "before", "offset", "who", "why")}
    assert said == {
        "event": "operator_command",
        "action": "skip",
        "partition": 0,
        "before": 10,
        "offset": 42,
        "who": "ana@desk",
        "why": "a gap",
    }


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/input/0/skip/42", b"", 400),
        ("/input/0/skip/42", b'{"who": "ana"}', 400),
        ("/input/0/skip/42", b'{"why": ""}', 400),
        ("/input/0/skip/42", b"\xff", 400),
        ("/input/0/skip/200", REASON, 409),
        ("/input/7/skip/1", REASON, 404),
        ("/input/0/skip/-1", REASON, 404),
        ("/input/x/skip/1", REASON, 404),
    ],
)
async def test_skip_that_is_refused(port: Port, worker: Worker, path: str, body: bytes, expected: int) -> None:
    """Without a reason, to where nothing is, of a partition of others: nothing happens."""
    assert (await port.ask("POST", path, body))[0] == expected
    assert worker.done == []


async def test_skip_that_is_not_committed(port: Port, worker: Worker) -> None:
    """What is not known to be so is not said to be."""
    worker.fails = LogError("no broker")
    assert (await port.ask("POST", "/input/0/skip/42", REASON))[0] == 503


class Probes:
    """`Probed`: what is no worker."""

    def livez(self) -> tuple[bool, str]:
        return True, ""

    def readyz(self) -> tuple[bool, str]:
        return False, "not listening"

    def startupz(self) -> tuple[bool, str]:
        return True, ""

    def metrics_page(self) -> bytes:
        return b"cartsync_ready 0\n"


async def test_port_of_what_is_no_worker() -> None:
    """There are probes and metrics, and nothing else."""
    private_port = PrivatePort(Probes())
    base = await private_port.start("127.0.0.1", 0)
    async with ClientSession() as session:
        port = Port(session, base)
        assert (await port.ask("GET", "/livez"))[0] == 200
        assert await port.ask("GET", "/readyz") == (503, "application/json", b'{"ok":false,"detail":"not listening"}')
        assert (await port.ask("GET", "/metrics"))[2] == b"cartsync_ready 0\n"
        for path in ("/status", "/orders/acme/1"):
            assert (await port.ask("GET", path))[0] == 404
        assert (await port.ask("POST", ACT))[0] == 404
    await private_port.stop()
