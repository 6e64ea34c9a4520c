"""The command line: what is printed, what is asked of a worker, and the exit codes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import msgspec
import pytest

from schemas.views import ItemView, OrderView
from tests.unit.web.operated import Worker
from worker import __version__, errors, logs
from worker.cli import app, main
from worker.errors import CartsyncError, InvariantError, LogError
from worker.web.operations import Operations

SECRET = "s3cr3t-99"
CONFIG = f"""
[kafka]
bootstrap_servers = "broker:9092"
[worker]
lease = "25s"
[accounts."My shop"]
provider = "sequra"
merchant_id = "acme"
base_url = "https://sandbox.example"
username = "user"
password = "{SECRET}"
cancellation_reasons = {{ "No stock!" = "out_of_stock" }}
"""

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Runs the program with arguments in an empty folder; exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for name in ("CARTSYNC_CONFIG", "CARTSYNC_SECRETS_DIR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cartsync", *arguments])
        try:
            main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        assert SECRET not in out + err
        return int(code or 0), out, err

    with logs.capture([]):  # where commands send logs ends with the test
        yield run


@pytest.fixture
def worker() -> Worker:
    """What a worker knows."""
    return Worker()


@pytest.fixture
async def url(worker: Worker) -> AsyncIterator[str]:
    """The private port of that worker."""
    operations = Operations(worker)
    yield await operations.start("127.0.0.1", 0)
    await operations.stop()


def commands() -> list[list[str]]:
    """Every command and group of commands."""
    groups = {group.name or "": group.typer_instance for group in app.registered_groups if group.typer_instance}
    found = [[command.name or command.callback.__name__] for command in app.registered_commands if command.callback]
    for name, group in groups.items():
        found += [[name], *([name, command.name or ""] for command in group.registered_commands)]
    return found


# --- help, version, start-up ---


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_explains_itself(cli: Cli, command: list[str]) -> None:
    """Each command has a help text that begins with what it does."""
    code, out, _ = cli(*command, "--help")
    assert code == 0
    usage, _, rest = out.partition("\n\n")
    assert usage.startswith(f"Usage: cartsync {' '.join(command)}")
    assert rest.strip().partition("\n")[0].endswith(".")


def test_help_names_the_commands(cli: Cli) -> None:
    """The first help shows what to try, and no summary is cut off."""
    code, out, _ = cli("--help")
    assert code == 0
    assert "cartsync demo " in out
    assert "..." not in out.partition("Commands:")[2]
    assert {"run", "demo", "scenario", "replay", "sandbox", "version", "order", "account", "config", "topics"} <= {
        command[0] for command in commands()
    }


def test_version(cli: Cli) -> None:
    """The version is printed for people and for machines."""
    assert cli("version") == (0, f"cartsync {__version__}\n", "")
    assert json.loads(cli("version", "--json")[1]) == {"version": __version__}


def test_usage(cli: Cli) -> None:
    """Words that mean nothing end with 2."""
    for arguments in (["nonsense"], ["order", "show"], ["demo", "--orders", "x"], ["order", "show", "a", "--url", "x"]):
        code, out, err = cli(*arguments)
        assert (code, out) == (2, "")
        assert err


def test_help_is_instant() -> None:
    """The command line itself loads neither Kafka nor HTTP nor the configuration."""
    heavy = ("aiokafka", "aiohttp", "pydantic", "uvloop", "rich", "structlog", "prometheus_client")
    code = f"import sys, worker.cli; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_as_a_module() -> None:
    """`python -m worker` is the same program."""
    run = subprocess.run([sys.executable, "-m", "worker", "version"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, f"cartsync {__version__}\n", "")


# --- output ---

PROGRAM = [sys.executable, "-m", "worker"]
SCENARIOS = str(Path(__file__).parents[1] / "scenarios" / "own")


def test_output_that_cannot_be_written() -> None:
    """A full disk is said in one line, with 75: another try may work. No traceback."""
    with Path("/dev/full").open("w") as full:
        run = subprocess.run([*PROGRAM, "scenario", SCENARIOS], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (run.returncode, run.stderr) == (75, b"cartsync: the output: No space left on device\n")


def test_reader_that_has_seen_enough() -> None:
    """`cartsync … | head` ends without a word."""
    writing = subprocess.Popen([*PROGRAM, "scenario", SCENARIOS], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writing.stdout is not None
    writing.stdout.close()
    assert writing.stderr is not None
    with writing.stderr:
        assert (writing.stderr.read(), writing.wait()) == (b"", 1)


def test_terminal_without_the_characters(tmp_path: Path) -> None:
    """What a terminal cannot show is shown as its code."""
    (tmp_path / "s.json").write_text(json.dumps({"name": "ñ", "steps": []}))
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    words = [*PROGRAM, "scenario", str(tmp_path / "s.json")]
    run = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "\\xf1" in run.stdout


# --- exit codes ---


def test_every_error_has_an_exit_code() -> None:
    """Each error of ours ends with the code of its kind, and the codes are those of the manual."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CartsyncError)]
    codes = {kind.__name__: kind.exit_code for kind in kinds}
    assert codes == {
        "CartsyncError": 75,
        "ConfigError": 64,
        "MalformedEventError": 2,
        "UsageError": 2,
        "TopicError": 72,
        "LogError": 75,
        "TwoOwnersError": 71,
        "FencedError": 75,
        "SizeRefusedError": 75,
        "DamagedStateError": 72,
        "GapError": 75,
        "InvariantError": 70,
    }


def test_debug_shows_a_traceback(cli: Cli) -> None:
    """Only who asks for it gets a traceback."""
    assert "Traceback" not in cli("config", "check")[2]
    code, _, err = cli("--debug", "config", "check")
    assert (code, "Traceback" in err) == (64, True)


# --- configuration ---


def test_config_check(cli: Cli) -> None:
    """A right configuration is said to be right; a wrong one ends with 64 and a line for each mistake."""
    path = Path("mine.toml")
    path.write_text(CONFIG, encoding="utf-8")
    assert cli("config", "check", "--config", "mine.toml") == (0, "the configuration is right; accounts: My shop\n", "")
    path.write_text(CONFIG.replace("lease", "leese").replace("[worker]", 'heartbeat = "x"\n[worker]'), encoding="utf-8")
    code, out, err = cli("config", "check", "-c", "mine.toml")
    assert (code, out) == (64, "")
    first, *lines = err.splitlines()
    assert first == "cartsync: 2 problems:"
    assert [line.partition(":")[0] for line in lines] == ["  mine.toml", "  mine.toml"]
    code, out, err = cli("config", "check", "-c", "mine.toml", "--json")
    read = json.loads(out)
    assert (code, read["ok"], len(read["problems"]), err) == (64, False, 2, "")


def test_config_check_asks_kafka_settings(cli: Cli) -> None:
    """The rules of the Kafka part are held, too."""
    Path("cartsync.toml").write_text(CONFIG.replace("[worker]", 'heartbeat = "20s"\n[worker]'), encoding="utf-8")
    code, _, err = cli("config", "check")
    assert code == 64
    assert "[kafka] heartbeat (20s) must be at most a third" in err


def test_config_print(cli: Cli) -> None:
    """What is printed is TOML, and JSON on demand, with origins and without secrets."""
    Path("cartsync.toml").write_text(CONFIG, encoding="utf-8")
    code, out, _ = cli("config", "print", "--redacted")
    assert code == 0
    assert re_spaced(out, 'lease = "25s" # cartsync.toml: [worker] lease')
    assert re_spaced(out, 'settle = "30s" # default')
    code, as_json, _ = cli("config", "print", "--json")
    assert tomllib.loads(out) == json.loads(as_json)
    assert json.loads(as_json)["accounts"]["My shop"]["password"] == "***"


def re_spaced(text: str, line: str) -> bool:
    """Whether the text has this line, however it is spaced."""
    return line in [" ".join(each.split()) for each in text.splitlines()]


@pytest.mark.parametrize("command", [["run"], ["topics", "check"], ["topics", "create"], ["replay", "events.jsonl"]])
def test_what_needs_a_configuration(cli: Cli, command: list[str]) -> None:
    """Without one these end with 64 before they do anything."""
    assert cli(*command)[0] == 64


# --- orders and accounts ---


async def test_order_show(cli: Cli, worker: Worker, url: str) -> None:
    """An order is shown for people, nothing in it can steer the terminal; and for machines as it is."""
    view = OrderView(
        subject="acme/1",
        status="parked",
        reason="422: no\x1b[2J",
        currency="EUR",
        shipped_minor=7100,
        unshipped_minor=1250,
        shipped=[ItemView("product", "jacket", "Jacket\n", 1, 7100)],
        unshipped=[ItemView("handling", None, None, 0, 1250)],
        revision=12,
        acked=9,
        next_attempt_s=2.25,
        partition=3,
    )
    worker.orders["acme/1"] = view
    code, out, err = await asyncio.to_thread(cli, "order", "show", "acme/1", "--url", url)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "acme/1: parked",
        "  why        422: no\\x1b[2J",
        "  shipped    7100 EUR (minor units)",
        "                   7100  1 × jacket (Jacket\\n)",
        "  unshipped  1250 EUR (minor units)",
        "                   1250  handling",
        "  revision   12, acknowledged 9",
        "  next       in 2.2 s",
        "  partition  3",
    ]
    code, out, _ = await asyncio.to_thread(cli, "order", "show", "1", "--json", "--url", url)
    assert (code, msgspec.json.decode(out, type=OrderView)) == (0, view)


async def test_order_by_its_reference(cli: Cli, worker: Worker, url: str) -> None:
    """A reference alone is enough where one account has it; it may hold slashes."""
    for ref in ("A14/12345", "acme/A14/12345"):
        code, out, _ = await asyncio.to_thread(cli, "order", "release", ref, "--url", url)
        assert (code, out) == (0, "acme/A14/12345: released\n")
    assert worker.done == [("release", "acme/A14/12345")] * 2


async def test_order_not_found(cli: Cli, url: str) -> None:
    """An order that the worker does not have ends with 2."""
    for command in ("show", "release", "resend"):
        code, out, err = await asyncio.to_thread(cli, "order", command, "none", "--url", url)
        assert (code, out) == (2, "")
        assert "no order none in the worker at" in err


async def test_resend(cli: Cli, worker: Worker, url: str) -> None:
    """An order is sent again; machines get the order as it stands then."""
    code, out, _ = await asyncio.to_thread(cli, "order", "resend", "acme/a%2Fb", "--json", "--url", url)
    assert (code, json.loads(out)["order"]["status"]) == (0, "owed")
    assert worker.done == [("resend", "acme/a%2Fb")]


@pytest.mark.parametrize(("fails", "expected"), [(LogError(""), 75), (InvariantError(""), 70)])
async def test_what_the_worker_cannot_do(cli: Cli, worker: Worker, url: str, fails: Exception, expected: int) -> None:
    """What was not committed may be tried again; a defect is one."""
    worker.fails = fails
    assert (await asyncio.to_thread(cli, "order", "release", "acme/1", "--url", url))[0] == expected


async def test_refused_for_now(cli: Cli, url: str) -> None:
    """What the worker refuses is told in its words."""
    code, _, err = await asyncio.to_thread(cli, "order", "release", "acme/busy", "--url", url)
    assert (code, err) == (2, "cartsync: partition 3 is being restored\n")


async def test_account_resume(cli: Cli, worker: Worker, url: str) -> None:
    """A paused account goes on; an unknown one ends with 2."""
    assert await asyncio.to_thread(cli, "account", "resume", "acme", "--url", url) == (0, "account acme: goes on\n", "")
    assert worker.done == [("resume", "acme")]
    assert (await asyncio.to_thread(cli, "account", "resume", "none", "--url", url))[0] == 2


async def test_input_skip(cli: Cli, worker: Worker, url: str) -> None:
    """The position is moved by the worker, of those named, that serves the partition; with a reason."""
    words = ("input", "skip", "0", "42", "--why", "a gap")
    code, out, _ = await asyncio.to_thread(cli, *words, "--url", url)
    assert (code, out) == (0, "partition 0: moved from offset 10 to 42\n")
    code, out, _ = await asyncio.to_thread(cli, *words, "--json", "--url", url, "--url", "http://127.0.0.1:1")
    assert (code, json.loads(out)) == (0, {"partition": 0, "before": 10, "offset": 42, "done": True})
    assert worker.done == [("skip", "0 42")] * 2


async def test_input_skip_that_is_refused(cli: Cli, worker: Worker, url: str) -> None:
    """Another worker's partition, an offset that there is not, or no reason: usage."""
    code, _, err = await asyncio.to_thread(cli, "input", "skip", "7", "42", "--why", "a gap", "--url", url)
    assert (code, err) == (2, f"cartsync: partition 7 is not served at {url}; try again in a while\n")
    code, _, err = await asyncio.to_thread(cli, "input", "skip", "0", "200", "--why", "a gap", "--url", url)
    assert (code, err) == (2, "cartsync: the input holds offsets 10 to 100\n")
    assert (await asyncio.to_thread(cli, "input", "skip", "0", "42", "--url", url))[0] == 2
    assert worker.done == []


async def test_port_from_the_configuration(cli: Cli, worker: Worker, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is asked where the configuration says it listens; everywhere means here."""
    port = url.rpartition(":")[2]
    monkeypatch.setenv("CARTSYNC_HTTP__HOST", "0.0.0.0")
    monkeypatch.setenv("CARTSYNC_HTTP__PORT", port)
    assert (await asyncio.to_thread(cli, "account", "resume", "acme"))[0] == 0
    assert worker.done == [("resume", "acme")]


NOBODY = ("--url", "http://127.0.0.1:1")
SKIP = ["input", "skip", "0", "1", "--why", "a gap"]


def test_nobody_answers(cli: Cli) -> None:
    """Without a worker it is worth trying again later."""
    for command in (["order", "show", "1"], ["order", "resend", "1"], ["account", "resume", "acme"], SKIP):
        code, _, err = cli(*command, *NOBODY)
        assert code == 75
        assert "no worker answers at http://127.0.0.1:1" in err


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"<html>"), (200, b'{"a": 1}'), (404, b"not here"), (500, b"{}")], ids=str
)
def test_something_else_answers(cli: Cli, status: int, body: bytes) -> None:
    """The port belongs to another program: said as such, and the order is looked for where it can be found."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        for command in ("show", "release"):
            code, out, err = cli("order", command, "acme/1", "--url", url)
            assert (code, out) == (75, "")
            assert f"what answers at {url} is no cartsync worker" in err
        server.shutdown()


def test_orders_of_the_demo(cli: Cli) -> None:
    """Without a worker an order is shown as the last demo left it."""
    views = [OrderView(subject, "settled", "") for subject in ("acme/1", "acme/2", "beta/2", "acme/x/y")]
    Path(".cartsync").mkdir()
    Path(".cartsync/demo.json").write_bytes(msgspec.json.encode({"orders": {view.subject: view for view in views}}))
    for ref, subject in (("1", "acme/1"), ("beta/2", "beta/2"), ("x/y", "acme/x/y")):
        code, out, err = cli("order", "show", ref, "--json", *NOBODY)
        assert (code, json.loads(out)["subject"]) == (0, subject)
        assert "looking into .cartsync/demo.json, which the demo left" in err
    code, out, err = cli("order", "show", "2", *NOBODY)
    assert (code, out, err.splitlines()[-1]) == (2, "", "cartsync: 2 is ambiguous: say acme/2 or beta/2")
    assert cli("order", "show", "3", *NOBODY)[0] == 2
    Path(".cartsync/demo.json").write_text("{", encoding="utf-8")
    code, _, err = cli("order", "show", "1", *NOBODY)
    assert (code, "cannot be read" in err) == (2, True)


# --- programs ---


def test_replay_without_accounts(cli: Cli) -> None:
    """A dry run needs no configuration: updates are on stdout, what the worker logs is not."""
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/shop",
        "type": "order.confirmed",
        "time": "2026-06-01T00:00:00Z",
        "subject": "acme/1",
        "data": {"currency": "EUR", "lines": [GOODS]},
    }
    shipped = {"shipment_id": "s", "lines": [{"line_id": "a", "quantity": 1}]}
    second = event | {"id": "2", "type": "order.items_shipped", "data": shipped}
    Path("events.jsonl").write_text(f"{json.dumps(event)}\n{json.dumps(second)}\n", encoding="utf-8")
    code, out, _ = cli("replay", "events.jsonl", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[0])["url"] == "https://sandbox.sequrapi.com/merchants/acme/orders/1"


@pytest.mark.parametrize("subject", ["\\ud800", "acme/1"])
def test_replay_says_which_line_is_wrong(cli: Cli, subject: str) -> None:
    """Half of a surrogate pair is refused like any event, nesting without end as no JSON; nothing ends in a traceback."""
    Path("events.jsonl").write_text(f'{{"subject": "{subject}"}}\n', encoding="utf-8")
    code, _, err = cli("replay", "events.jsonl", "--dry-run")
    assert (code, "line 1 refused" in err) == (1, True)
    Path("events.jsonl").write_text("[" * 100_000 + "\n", encoding="utf-8")
    code, _, err = cli("replay", "events.jsonl", "--dry-run")
    assert (code, "line 1: expected a JSON object" in err) == (2, True)


GOODS = {"reference": "a", "name": "A", "quantity": 1, "unit_price_minor": 100, "total_minor": 100}


def test_scenario_codes(cli: Cli) -> None:
    """The exit code is the runner's; a path that is not there is 2."""
    assert cli("scenario", "none.json")[0] == 2


def test_sandbox() -> None:
    """A provider serves until it is interrupted."""
    command = [sys.executable, "-m", "worker", "sandbox", "--port", "0", "--account", "a:b:c", "--faults", "500=0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        url = said.split()[3]
        with urlopen(f"{url}/orders", timeout=5) as response:
            held = json.load(response)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert (" for a;" in said, held) == (True, {"count": 0, "orders": []})


@pytest.mark.parametrize("option", [("--account", "a:b"), ("--faults", "x=1"), ("--host", "203.0.113.1")])
def test_wrong_sandboxes(cli: Cli, option: tuple[str, str]) -> None:
    """Accounts, faults and addresses that cannot be are usage errors."""
    assert cli("sandbox", "--port", "0", *option)[0] == 2
