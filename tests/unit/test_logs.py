"""The logs: one line per event, nothing secret in any of them, and a place to collect them."""

import gc
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import structlog

from worker import logs
from worker.model.exchange import OutcomeKind
from worker.providers.sequra.options import SequraAccount

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
    account = SequraAccount("acme", "sequra", "https://x", "acme", "user", SECRET)
    deep: object = SECRET
    for _ in range(10):
        deep = [deep]
    line = captured({"of": account, "raw": SECRET.encode(), "deep": deep, "many": {1: account}})
    assert SECRET not in json.dumps(line)
    assert (line["of"], line["raw"]) == ("SequraAccount", "***")


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


def test_what_is_bound_is_on_every_line() -> None:
    """A logger may have fields of its own; those of a line count more."""
    lines: list[str] = []
    with logs.capture(lines):
        bound = log.bind(epoch=2, partition=3)
        bound.info("restored", partition=4)
        bound.info("served")
    assert [(read["partition"], read["epoch"]) for read in map(json.loads, lines)] == [(4, 2), (3, 2)]


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
    assert logs.flush()
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["text"] == "a\nb"


def test_console_cannot_be_forged() -> None:
    """As text for people, line feeds from outside do not begin a line of their own."""
    stream = io.StringIO()
    logs.configure("console", "info", stream=stream)
    log.info("seen", text="a\nb", password=SECRET)
    logging.getLogger("other").warning("one\ntwo")
    assert logs.flush()
    first, second = stream.getvalue().splitlines()
    assert "seen" in first
    assert r"a\nb" in first
    assert SECRET not in first
    assert r"one\ntwo" in second


def test_orders_that_are_hashed() -> None:
    """Where a reference may be somebody's address, it can be left out, and lines of one order still be found."""
    stream = io.StringIO()
    logs.configure("json", "info", stream=stream, hash_orders=True)
    log.info("settled", order="acme/maria@example.com/1", partition=3)
    assert logs.flush()
    assert json.loads(stream.getvalue())["order"] == "acme/" + sha256(b"maria@example.com/1").hexdigest()[:16]


def test_capture_ends() -> None:
    """After a capture lines go where they went before, and handlers of `logging` are as they were."""
    stream, lines = io.StringIO(), list[str]()
    logs.configure("json", "info", stream=stream)
    handlers = logging.root.handlers[:]
    with logs.capture(lines):
        log.info("inside")
    log.info("outside")
    assert logs.flush()
    assert len(lines) == 1
    assert json.loads(stream.getvalue())["event"] == "outside"
    assert len(logging.root.handlers) == len(handlers) == 1


# --- streams that fail ---


class Flaky(io.StringIO):
    """A stream that can be full."""

    is_full = False

    def write(self, text: str) -> int:
        if self.is_full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_full_disk() -> None:
    """A line that cannot be written is lost, whoever logs does not hear of it; the next that can be says how many."""
    stream = Flaky()
    logs.configure("json", "info", stream=stream)
    stream.is_full = True
    for number in range(3):
        log.info("lost", number=number)
    assert logs.flush()
    assert logs.dropped() == 3
    stream.is_full = False
    log.info("written")
    assert logs.flush()
    log.info("written")
    assert logs.flush()
    read = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in read] == ["log_lines_dropped", "written", "written"]
    assert (read[0]["count"], read[0]["level"]) == (3, "warning")


def test_full_device() -> None:
    """The same of a real file."""
    with Path("/dev/full").open("w") as full:
        logs.configure("json", "info", stream=full)
        log.info("lost")
        assert logs.flush()
        assert logs.dropped() == 1


def test_stream_that_is_closed() -> None:
    """Nor does a stream matter that is there no more."""
    stream = io.StringIO()
    logs.configure("json", "info", stream=stream)
    stream.close()
    log.info("lost")
    assert logs.flush()
    assert logs.dropped() == 1


def test_reader_that_hangs() -> None:
    """While nobody reads the pipe lines are queued up to a bound, then dropped; read again, all comes out in order."""
    reads, writes = os.pipe()
    with os.fdopen(reads, "rb", buffering=0) as reader, os.fdopen(writes, "w") as stream:
        logs.configure("json", "info", stream=stream)
        for number in range(2 * logs.QUEUE_MAX):
            log.info("said", number=number)
        assert not logs.flush(0.01)
        assert logs.dropped() > 0
        content = b""
        while b"log_lines_dropped" not in content:
            if b"said" in content[-65_536:]:
                log.info("later")
            content += reader.read(65_536)
        read = [json.loads(line) for line in content.splitlines() if line.endswith(b"}")]
        said = [line["number"] for line in read if line["event"] == "said"]
        assert said == sorted(said)


def test_line_that_was_cut() -> None:
    """What a stream took only in part does not run into the next line."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with os.fdopen(reads, "rb", buffering=0) as reader, os.fdopen(writes, "w") as stream:
        logs.configure("json", "info", stream=stream)
        for number in range(1_000):
            log.info("said", number=number, text="x" * 200)
        content = b""
        while b'"number":999' not in content:
            content += reader.read(65_536)
        assert [json.loads(line)["number"] for line in content.splitlines()] == list(range(1_000))


HUNG = """
import structlog, sys
from worker import logs
logs.configure("json", "info", stream=sys.stdout)
for number in range(5000):
    structlog.get_logger("x").info("said", number=number)
"""


def test_end_of_the_process_waits_for_nobody() -> None:
    """A reader that hangs does not keep the process from ending."""
    with subprocess.Popen([sys.executable, "-c", HUNG], stdout=subprocess.PIPE) as process:
        assert process.wait(timeout=20) == 0


def test_end_of_the_process_loses_nothing() -> None:
    """What was logged last is written all the same."""
    out = subprocess.run([sys.executable, "-c", HUNG], stdout=subprocess.PIPE, check=True).stdout
    assert len(out.splitlines()) == 5000


def test_logging_from_a_garbage_collection() -> None:
    """What is logged while another line is being logged waits for no lock."""

    class Leftover:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            logging.getLogger("asyncio").error("Task was destroyed but it is pending!")

    stream = io.StringIO()
    logs.configure("json", "info", stream=stream)
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(200):
            Leftover()
            log.warning("said", sampled_by="x", number=number)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert logs.flush()
    assert "log_lines_sampled" in stream.getvalue()


def test_line_that_cannot_be_made() -> None:
    """A value that raises when it is looked at costs the line, not more."""

    class Raising:
        def __repr__(self) -> str:
            raise RuntimeError

    lines: list[str] = []
    with logs.capture(lines):
        log.info("something", what=Raising())
        logging.getLogger("other").error("%d", "x")
    assert [json.loads(line)["event"] for line in lines] == ["log_line_failed"] * 2


def test_long_texts() -> None:
    """A field is cut, so is a line."""
    assert len(str(captured({"order": "x" * 1_000_000})["order"])) < 1_100
    lines: list[str] = []
    with logs.capture(lines):
        log.info("something", many=["x" * 1_000] * 1_000)
    assert json.loads(lines[0])["characters"] > 1_000_000
    assert len(lines[0]) < 1_000


# --- floods ---


def test_flood_is_sampled() -> None:
    """The first lines of a kind in full, then how many there were; other kinds are not touched by it."""
    lines: list[str] = []
    now_ms = 1_000_000
    with logs.capture(lines, wall_ms=lambda: now_ms):
        for number in range(1_000):
            log.warning("event_refused", sampled_by="not_json", offset=number)
        log.warning("event_refused", sampled_by="no_key", offset=1_000)
        assert len(lines) == logs.SAMPLE_FIRST + 1
        now_ms += round(1000 * logs.SAMPLE_INTERVAL_S)
        log.warning("event_refused", sampled_by="not_json", offset=1_001)
    read = [json.loads(line) for line in lines]
    assert [line.get("offset") for line in read] == [*range(logs.SAMPLE_FIRST), 1_000, None, 1_001]
    told = read[-2]
    assert (told["event"], told["of"], told["sampled_by"]) == ("log_lines_sampled", "event_refused", "not_json")
    assert (told["left_out"], told["seconds"]) == (1_000 - logs.SAMPLE_FIRST, 60)
    assert "sampled_by" not in read[0]


def test_flood_of_a_library_is_sampled() -> None:
    """A library that cannot reach its server says so many times a second."""
    lines: list[str] = []
    with logs.capture(lines, "info"):
        for number in range(500):
            logging.getLogger("aiokafka.client").error("Unable connect to node with id %s: %s", number, "refused")
            logging.getLogger("aiokafka.client").error(f"Topic {number} not found")  # noqa: G004 - as some do
        logging.getLogger("aiokafka.conn").error("Unable connect to node with id %s: %s", 0, "refused")
        assert len(lines) == 2 * logs.SAMPLE_FIRST + 1
        logs.flush()
    told = [json.loads(line) for line in lines[2 * logs.SAMPLE_FIRST + 1 :]]
    assert [line["left_out"] for line in told] == [500 - logs.SAMPLE_FIRST] * 2
    assert (told[0]["of"], told[0]["logger"]) == ("Unable connect to node with id %s: %s", "aiokafka.client")


def test_many_kinds_are_no_leak() -> None:
    """However many kinds there are, what is kept of them is bounded, and no count is lost by that."""
    lines: list[str] = []
    with logs.capture(lines, wall_ms=lambda: 0):
        for _ in range(logs.SAMPLE_FIRST + 5):
            log.info("said", sampled_by="first")
        for number in range(5_000):
            log.info("said", sampled_by=str(number))
    counts = [json.loads(line) for line in lines if "log_lines_sampled" in line]
    assert [(line["sampled_by"], line["left_out"]) for line in counts] == [("first", 5)]


def test_what_a_server_was_sent_is_not_shown() -> None:
    """A request that cannot be parsed may hold a token, in its line too: only the kind of the error is logged."""
    lines: list[str] = []
    with logs.capture(lines, "info"):
        try:
            refuse(SECRET)
        except ValueError:
            logging.getLogger("aiohttp.server").exception("Error handling request from %s", f"/{SECRET}")
    read = json.loads(lines[0])
    assert (read["event"], read["error"]) == ("Error handling request from %s", "ValueError")
    assert SECRET not in lines[0]
    assert "exception" not in read
