"""What providers may answer, however strange: an adapter never fails at it, and the step after it is an ordinary one."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from tests.shops.events import SUBJECT, confirmed, goods, order, shipped
from tests.unit.providers.atarapay.reported import ALL_DELIVERED, NUMBER, PRIVATE, PUBLIC, asked
from tests.unit.providers.qliro.turns import ACCOUNT as HATS
from tests.unit.providers.qliro.turns import ORDER_ID, Client, item, opened
from tests.unit.providers.sequra.test_disbursements import LINE, LISTED, ONE
from worker.core.plan import Send, plan
from worker.model.exchange import Exchange, HttpRequest, HttpResponse, OutcomeKind
from worker.model.provider import Answered, Destination, Question
from worker.providers.atarapay import AtaraPay
from worker.providers.qliro import Qliro
from worker.providers.sequra.jobs import SequraDisbursements
from worker.providers.sequra.options import SequraAccount
from worker.providers.sequra.steps import Sequra
from worker.sandbox.atarapay.escrow import Sandbox

HUGE = "1" * 5_000
PAGES = [
    f"<html>&#{HUGE};&#x{HUGE};&#{HUGE}</html>".encode(),
    b"<" * 10_000,
    b"\xff\xfe" * 1_000,
    b"[" * 20_000,
    b'{"errors": ' + b"[" * 20_000,
    b'{"errors": [' + HUGE.encode() + b"]}",
    b'{"status": ' + HUGE.encode() + b"}",
    b"null",
    b"[]",
    b"{}",
    b"",
]
STATUSES = [200, 201, 299, 400, 401, 403, 404, 409, 410, 422, 429, 500, 503]
VALUES = [
    *(HUGE, f"-{HUGE}", str(2**63), str(2**64), str(-(2**64)), "1e999999", "-1e999999", "1e100000", "1e-999999"),
    *("0.001", "1.5", "-1", "0", "null", "true", "[]", "{}", '""', f'"{HUGE}"', '"1e999999"', '"\\u0000"', '"-0"'),
]
_VALUE = re.compile(rb'(?<=: )-?[0-9][0-9.]*|(?<=: )"[^"]*"|(?<=:)-?[0-9][0-9.]*(?=[,}])|(?<=:)"[^"]*"(?=[,}])')


def mutants(body: bytes) -> Iterator[bytes]:
    """The body, with each of its values replaced by each strange one."""
    yield body
    for found in _VALUE.finditer(body):
        for value in VALUES:
            yield body[: found.start()] + value.encode() + body[found.end() :]


def bodies(body: bytes) -> Iterator[HttpResponse]:
    """Pages and errors of all kinds, and mutants of a good answer."""
    for status in STATUSES:
        for page in PAGES:
            yield HttpResponse(status, {"retry-after": HUGE}, page)
        yield HttpResponse(status, {}, body)
    for mutant in mutants(body):
        yield HttpResponse(200, {}, mutant)
        yield HttpResponse(400, {}, mutant)


def test_mutants() -> None:
    """Numbers and texts, with and without a space before them."""
    found = set(mutants(b'{"a": 1.5,"b":"x","c":{"d":-2}}'))
    assert {
        b'{"a": null,"b":"x","c":{"d":-2}}',
        b'{"a": 1.5,"b":[],"c":{"d":-2}}',
        b'{"a": 1.5,"b":"x","c":{"d":0}}',
    } < found


@pytest.fixture
def hats() -> Client:
    """An order that Qliro knows, shipped in part."""
    client = opened(item("hat", 2, 1000), item("WELCOME", 1, -100, "Discount"))
    return client.tell(
        confirmed(
            goods("hat", 2, 1000),
            {"type": "discount", "reference": "WELCOME", "name": "Welcome", "total_minor": -100},
            references={"provider": str(ORDER_ID)},
        ),
        shipped("s1", hat=1),
    )


def answered(client: Client, request: HttpRequest) -> HttpResponse:
    """By Qliro's side."""
    said = client.api.answer(request.method, request.url, request.headers["Authorization"], request.body, client.now)
    return HttpResponse(said[0], {}, said[1])


def test_qliro(hats: Client) -> None:
    """GetOrder and a command, and the turn after both."""
    qliro = Qliro()
    planned = plan(hats.record, SUBJECT, Destination(HATS, qliro))
    assert isinstance(planned, Send)
    question = Question(SUBJECT.partition("/")[2], HATS, planned.update, planned.remote, now_ms=hats.now_ms)
    read = qliro.next_step(question)
    assert isinstance(read, Exchange)
    good = answered(hats, read.request)
    understood = [each for each in bodies(good.body) if goes_on(qliro, question, read, each)]
    assert len(understood) > 20
    command = qliro.next_step(replace(question, seen=qliro.read_response(question, read, good).seen))
    assert isinstance(command, Exchange)
    assert not command.is_read
    said = answered(hats, command.request)
    for each in bodies(said.body):
        outcome = qliro.read_response(question, command, each).outcome
        then = replace(question, remote=question.remote if outcome.remote is None else outcome.remote)
        qliro.next_step(then)


def goes_on(adapter: Any, question: Question, sent: Exchange, response: HttpResponse) -> bool:
    """Reads it, and takes the next step; whether the response was understood."""
    found: Answered = adapter.read_response(question, sent, response)
    if not sent.is_read or found.outcome.kind is not OutcomeKind.APPLIED:
        return False
    adapter.next_step(replace(question, seen=found.seen))
    return True


def test_atarapay() -> None:
    """Order Status and a word."""
    adapter, side = AtaraPay(), Sandbox(PUBLIC, PRIVATE)
    found = order(*ALL_DELIVERED)
    side.open(NUMBER, found.reference, 9000)
    question = asked(found, remote_unknown=True)
    read = adapter.next_step(question)
    assert isinstance(read, Exchange)
    assert read.is_read
    good = side.call(read.request.body)
    assert len([each for each in bodies(good.body) if goes_on(adapter, question, read, each)]) > 20
    word = adapter.next_step(asked(found))
    assert isinstance(word, Exchange)
    for each in bodies(side.call(word.request.body).body):
        outcome = adapter.read_response(question, word, each).outcome
        adapter.next_step(asked(found, b"" if outcome.remote is None else outcome.remote))


def test_sequra() -> None:
    """An update, and the lists of a job."""
    adapter = Sequra()
    account = SequraAccount("acme", "sequra", "https://x", "acme", "u", "p")
    question = Question("A14/1", account, adapter.render(order(*ALL_DELIVERED), account), b"", now_ms=0)
    update = adapter.next_step(question)
    assert isinstance(update, Exchange)
    for each in bodies(b'{"errors": [{"title": "no"}]}'):
        adapter.read_response(question, update, each)
    jobs = SequraDisbursements()
    for each in bodies(msgspec.json.encode([LISTED])):
        listed = jobs.read_list(each, 0)
        if listed.outcome.kind is OutcomeKind.APPLIED:
            for one in jobs.unread(b"", listed.found):
                jobs.item_request(account, one)
                jobs.after_reading(b"", listed.found, one)
    for each in bodies(msgspec.json.encode({"lines": [LINE]})):
        jobs.read_item(ONE, each, 0)
