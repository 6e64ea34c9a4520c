"""The private port, asked over HTTP on loopback, with a worker of a few lines behind it."""

import json
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from aiohttp import ClientSession
from yarl import URL

from tests.unit.web.operated import SUBJECTS, Worker
from worker import logs
from worker.errors import InvariantError, LogError
from worker.web.operations import Operations


class Port:
    """A client of the port."""

    def __init__(self, session: ClientSession, base: str) -> None:
        self._session = session
        self._base = base

    async def ask(self, method: str, path: str, body: bytes | None = None, /, **headers: str) -> tuple[int, str, bytes]:
        """Status, content type and body of the answer to a raw path."""
        url = URL(self._base + path, encoded=True)
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
    operations = Operations(worker)
    base = await operations.start("127.0.0.1", 0)
    async with ClientSession() as session:
        yield Port(session, base)
    await operations.stop()


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


async def test_metrics(port: Port, worker: Worker) -> None:
    """The metrics are in the Prometheus text format."""
    worker.figures.parked()
    status, kind, body = await port.ask("GET", "/metrics")
    assert (status, kind) == (200, "text/plain")
    assert b"\ncartsync_parked_total 1.0\n" in body


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
    headers = {"Sec_Fetch_Site": "same-origin", "Origin": "http://here:1", "Host": "here:1"}
    assert (await port.ask("POST", "/orders/acme%2F1/release", **headers))[0] == 200
    assert worker.done == [("release", "acme/1")]


async def test_port_taken(worker: Worker) -> None:
    """A port that is in use is an `OSError`, and nothing stays open."""
    first, second = Operations(worker), Operations(worker)
    base = await first.start("127.0.0.1", 0)
    with pytest.raises(OSError, match="address already in use"):
        await second.start("127.0.0.1", URL(base).port or 0)
    await second.stop()
    await first.stop()


REASON = b'{"why": "a gap", "who": "ana@desk"}'


async def test_skip(port: Port, worker: Worker) -> None:
    """A position is moved, and the log says from where to where, who did it and why."""
    written: list[str] = []
    with logs.capture(written):
        answer = await port.ask("POST", "/input/0/skip/42", REASON)
    assert answer == (200, "application/json", b'{"partition":0,"before":10,"offset":42,"done":true}')
    assert worker.done == [("skip", "0 42")]
    [line] = map(json.loads, written)
    said = {name: line[name] for name in ("event", "action", "partition", "before", "offset", "who", "why")}
    assert said == {
        "event": "operator_acted",
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
