"""What `cartsync doctor` makes of what it sees."""

import asyncio
import ssl
from typing import Any

import pytest
import trustme

from schemas.commands import DoctorCheck
from tests.unit.providers.sequra.test_report import ACCOUNT
from worker.errors import ConfigError, LogError
from worker.kafka.examining import OPERATIONS, BrokerSeen, ClockSeen
from worker.kafka.metadata import TopicSeen
from worker.kafka.settings import KafkaSettings
from worker.model.exchange import Outcome, OutcomeKind
from worker.tools.doctor import line_of, run_doctor
from worker.tools.doctor.kafka import _action, broker_checks, clock_check, operations_check, permission_checks
from worker.tools.doctor.providers import _tls_check, credentials_checks, tls_check

DAY_S = 86_400.0
ALL = sum(1 << code for code in OPERATIONS.values())


def test_brokers() -> None:
    """Each that does not respond is named; of the others one line is enough."""
    up, down = BrokerSeen("a:9092", 3.0, ""), BrokerSeen("b:9092", 5_000.0, "TimeoutError")
    first, second = broker_checks([up, down])
    assert (first.result, first.name, "advertised.listeners" in first.action) == ("fail", "b:9092", True)
    assert (second.result, second.text) == ("ok", "1 of 2 respond, within 3 ms")
    assert [check.result for check in broker_checks([down])] == ["fail"]


def test_only_what_was_refused_is_to_be_granted() -> None:
    """A cluster that is still starting, or lacks a topic, has nothing to do with permissions."""
    assert "deploy/ACLS.md" in _action(ConfigError("describing group a: GroupAuthorizationFailedError"))
    assert "ACLS" not in _action(LogError("describing group a: NotCoordinatorForGroupError"))


@pytest.mark.parametrize(
    ("ahead_ms", "within_ms", "result", "said"),
    [
        (1_500, 5, "ok", "1.50 s ahead of ours"),
        (-2_500, 5, "warn", "2.50 s behind ours"),
        (2_500, 800, "ok", "give or take 0.80 s"),
        (-400_000, 5, "fail", "400.00 s behind ours"),
    ],
)
def test_clocks(ahead_ms: float, within_ms: float, result: str, said: str) -> None:
    """As far as the difference is certain."""
    check = clock_check(ClockSeen(ahead_ms, within_ms))
    assert (check.result, said in check.text, bool(check.action)) == (result, True, result != "ok")


def test_clock_that_cannot_be_seen() -> None:
    """It is no failure."""
    assert clock_check(None).result == "warn"


@pytest.mark.parametrize(
    ("operations", "result", "said"),
    [
        (ALL, "ok", "Read, Write"),
        (1 << OPERATIONS["Read"], "fail", "Write is missing"),
        (0, "fail", "Read and Write"),
        (None, "warn", "do not say"),
    ],
)
def test_operations(operations: int | None, result: str, said: str) -> None:
    """What is missing is named; what is not reported is no failure."""
    check = operations_check("topic t", operations, ("Read", "Write"))
    assert (check.result, said in check.text) == (result, True)


def test_permissions_by_topic() -> None:
    """Of each topic that there is, what a worker needs there."""
    settings = KafkaSettings(bootstrap_servers="a:1", results_topic="")
    seen = {name: TopicSeen("", 1, {}, operations=ALL) for name in ("orders.events", "cartsync.state")}
    checks = list(permission_checks(settings, seen))
    assert [(check.name, check.text) for check in checks] == [
        ("topic orders.events", "Read, DescribeConfigs"),
        ("topic cartsync.state", "Read, Write, DescribeConfigs"),
    ]


@pytest.mark.parametrize(
    ("kind", "status", "result"),
    [
        (OutcomeKind.APPLIED, 200, "ok"),
        (OutcomeKind.NOT_FOUND, 404, "ok"),
        (OutcomeKind.CREDENTIALS, 401, "fail"),
        (OutcomeKind.FORBIDDEN, 403, "warn"),
        (OutcomeKind.NOT_SENT, None, "fail"),
        (OutcomeKind.UNKNOWN, 502, "fail"),
        (OutcomeKind.PERMANENT, 400, "warn"),
    ],
)
def test_credentials(kind: OutcomeKind, status: int | None, result: str) -> None:
    """By what came back of the read."""
    (check,) = credentials_checks(ACCOUNT, Outcome(kind, "why", status))
    assert (check.result, check.name, bool(check.action)) == (result, ACCOUNT.name, result != "ok")


def test_certificates() -> None:
    """One that ends soon is worth a look."""
    certificate = {"notAfter": "Jan 31 00:00:00 2027 GMT"}
    now = ssl.cert_time_to_seconds("Jan  1 00:00:00 2027 GMT")
    check = tls_check("acme", "h", "TLSv1.3", certificate, now)
    assert (check.result, check.text) == ("ok", "h speaks TLSv1.3; its certificate is valid until 2027-01-31")
    assert tls_check("acme", "h", "TLSv1.3", certificate, now + 20 * DAY_S).result == "warn"
    assert tls_check("acme", "h", "TLSv1.3", None, now).text == "h speaks TLSv1.3"


async def test_certificate_that_is_not_trusted() -> None:
    """What a client cannot verify fails, with the reason; of a trusted one the end is known."""
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_context)

    async def hear(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0, ssl=server_context)
    port = server.sockets[0].getsockname()[1]
    trusting = ssl.create_default_context()
    check = await _tls_check("acme", "localhost", port, trusting)
    assert (check.result, "is not trusted: " in check.text) == ("fail", True)
    authority.configure_trust(trusting)
    check = await _tls_check("acme", "localhost", port, trusting)
    assert (check.result, "its certificate is valid until" in check.text) == ("ok", True)
    server.close()
    await server.wait_closed()
    check = await _tls_check("acme", "localhost", port, trusting)
    assert (check.result, "no TLS connection" in check.text) == ("fail", True)


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """What to do stands below what was found; the exit code tells whether something failed."""
    check = DoctorCheck("clock", "broker", "warn", "behind", "set it")
    assert line_of(check) == "warn  clock broker: behind\n      → set it\n"
    from worker.config import HttpSection

    nothing: dict[str, Any] = {}
    assert run_doctor(["[kafka] is missing"], None, HttpSection(), nothing, as_json=False) == 1
    assert run_doctor([], None, HttpSection(), nothing, as_json=True) == 0
    out, err = capsys.readouterr()
    assert out.startswith("fail  configuration: [kafka] is missing\n      → mend it")
    assert err == "0 ok, 0 to look at, 1 failed\n"
