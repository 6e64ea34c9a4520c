"""The logs: one line per event, nothing secret in any of them, and a place to collect them."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from schemas.updates import Account, OutcomeKind
from worker import logs

SECRET = "s3cr3t-99"

log = structlog.get_logger(__name__)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """What a test configures ends with it."""
    with logs.capture([]):
        yield


def refuse(credentials: str) -> None:
    """Fails as a library might: with credentials in a variable and in the message."""
    raise ValueError(f"no access with Basic {credentials}")


def captured(fields: dict[str, object]) -> dict[str, object]:
    """What one line with these fields says."""
    lines: list[str] = []
    with logs.capture(lines):
        log.info("something_happened", **fields)
    (line,) = lines
    read: dict[str, object] = json.loads(line)
    return read


def test_line() -> None:
    """A line is a JSON object: when, how grave, what, and the fields as they were given."""
    lines: list[str] = []
    with logs.capture(lines, wall_ms=lambda: 1_767_225_600_250):
        log.info("order_settled", order="acme/1", revision=7, kind=OutcomeKind.APPLIED, delays=(1.5, None))
    (line,) = lines
    assert line == (
        '{"time":"2026-01-01T00:00:00.250Z","level":"info","event":"order_settled","order":"acme/1",'
        '"revision":7,"kind":"applied","delays":[1.5,null]}'
    )


def test_machine_clock_unless_told() -> None:
    """Without a clock of its own a line carries the machine's time, in UTC."""
    assert str(captured({})["time"]).endswith("Z")


MASKED = (
    *("password", "PASSWORD", "sasl_password", "Authorization", "api_key", "apiKey", "client_secret"),
    *("accessToken", "Set-Cookie", "request_body", "body", "headers", "payload", "customer"),
    "delivery_address",
)


@pytest.mark.parametrize("name", MASKED)
def test_names_that_are_masked(name: str) -> None:
    """A field that is named like a credential, a body or personal data is masked, nested or not."""
    fields: dict[str, object] = {name: SECRET, "outer": {"inner": [{name: SECRET}]}}
    line = captured(fields)
    assert SECRET not in json.dumps(line)
    assert (line[name], line["outer"]) == ("***", {"inner": [{name: "***"}]})


@pytest.mark.parametrize("name", ["account", "somebody", "running", "warning", "order", "reason", "status", "address"])
def test_names_that_are_not_masked(name: str) -> None:
    """What only contains such a word is shown."""
    assert captured({name: "shown"})[name] == "shown"


def test_values_that_are_not_shown() -> None:
    """Structs, bytes and what is nested too deeply could hold anything."""
    account = Account("acme", "sequra", "acme", "https://x", "user", SECRET)
    deep: object = SECRET
    for _ in range(10):
        deep = [deep]
    line = captured({"of": account, "raw": SECRET.encode(), "deep": deep, "many": {1: account}})
    assert SECRET not in json.dumps(line)
    assert (line["of"], line["raw"]) == ("Account", "***")


def test_traceback_shows_no_variables() -> None:
    """An exception brings its traceback, not what the variables held, and no credentials from its text."""
    lines: list[str] = []
    with logs.capture(lines):
        try:
            refuse(SECRET)
        except ValueError:
            log.exception("failed", partition=3)
    (line,) = lines
    read = json.loads(line)
    assert (read["level"], read["partition"]) == ("error", 3)
    assert "ValueError: no access with ***" in read["exception"]
    assert SECRET not in line


def test_levels() -> None:
    """What is below the level leaves no line; the level holds for loggers used before, too."""
    lines: list[str] = []
    with logs.capture(lines, "warning"):
        for method in (log.debug, log.info, log.warning, log.error, log.critical):
            method("graded")
    assert [json.loads(line)["level"] for line in lines] == ["warning", "error", "critical"]
    assert captured({})["level"] == "info"


def test_logging_of_libraries() -> None:
    """What libraries log comes out as lines of the same kind, theirs from `warning` on."""
    lines: list[str] = []
    with logs.capture(lines, "info"):
        logging.getLogger("aiokafka.cluster").info("chatter")
        logging.getLogger("aiokafka.cluster").warning("lost %s", "https://user:s3cr3t-99@broker")
        logging.getLogger("other").info("said with %d", 1)
    read = [json.loads(line) for line in lines]
    assert [(line["event"], line["logger"], line["level"]) for line in read] == [
        ("lost https://***@broker", "aiokafka.cluster", "warning"),
        ("said with 1", "other", "info"),
    ]


def test_libraries_at_debug() -> None:
    """At `debug` nothing is held back."""
    lines: list[str] = []
    with logs.capture(lines, "debug"):
        logging.getLogger("aiokafka.cluster").debug("chatter")
    assert json.loads(lines[0])["event"] == "chatter"


def test_exception_through_logging() -> None:
    """An exception that a library logs keeps its traceback."""
    lines: list[str] = []
    with logs.capture(lines):
        try:
            refuse("")
        except ValueError:
            logging.getLogger("other").exception("failed")
    assert "ValueError: no access" in json.loads(lines[0])["exception"]


def test_context_is_on_every_line() -> None:
    """What is bound to the context of a task is on its lines."""
    lines: list[str] = []
    with logs.capture(lines), structlog.contextvars.bound_contextvars(partition=4):
        log.bind(epoch=2).info("restored")
    read = json.loads(lines[0])
    assert (read["partition"], read["epoch"]) == (4, 2)


def test_whatever_is_logged_a_line_comes_out() -> None:
    """Lone surrogates, keys that are no texts and numbers that JSON lacks do not stop the worker."""
    line = captured({"text": "\ud800", "numbers": {1: float("nan")}, "what": object})
    assert "something_happened" in str(line["event"])
    assert "ud800" in json.dumps(line)


def test_json_stream_is_one_line_each() -> None:
    """On a stream that is no terminal `auto` writes JSON, one line each, line feeds escaped."""
    stream = io.StringIO()
    logs.configure("auto", "info", stream=stream)
    log.debug("unseen")
    log.info("seen", text="a\nb")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["text"] == "a\nb"


def test_console_cannot_be_forged() -> None:
    """As text for people, line feeds from outside do not begin a line of their own."""
    stream = io.StringIO()
    logs.configure("console", "info", stream=stream)
    log.info("seen", text="a\nb", password=SECRET)
    logging.getLogger("other").warning("one\ntwo")
    first, second = stream.getvalue().splitlines()
    assert "seen" in first
    assert r"a\nb" in first
    assert SECRET not in first
    assert r"one\ntwo" in second


def test_capture_ends() -> None:
    """After a capture lines go where they went before, and handlers of `logging` are as they were."""
    stream, lines = io.StringIO(), list[str]()
    logs.configure("json", "info", stream=stream)
    handlers = logging.root.handlers[:]
    with logs.capture(lines):
        log.info("inside")
    log.info("outside")
    assert len(lines) == 1
    assert json.loads(stream.getvalue())["event"] == "outside"
    assert len(logging.root.handlers) == len(handlers) == 1
