"""The command line: what is printed, what is asked of a worker, and the exit codes."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from inspect import get_annotations
from pathlib import Path
from urllib.request import urlopen

import msgspec
import pytest

from schemas.views import ItemView, OrderView, ProviderView
from tests.unit.web.control import SUBJECTS, Worker
from worker import __version__, errors, logs
from worker.cli import app, main
from worker.cli.processes import sandbox
from worker.errors import CartsyncError, InvariantError, LogError
from worker.sandbox.registry import SANDBOXES
from worker.tools.demo import leave
from worker.tools.kafka_ports import free_ports
from worker.web.private_port import Access, PrivatePort

SECRET = "s3cr3t-99"
CONFIG = f"""
[kafka]
bootstrap_servers = "localhost:9092"
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
    operations = PrivatePort(worker)
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


def test_short_and_long_options(cli: Cli) -> None:
    """What every program knows: `--version`, and `-h` everywhere."""
    assert cli("--version") == (0, f"cartsync {__version__}\n", "")
    for words in ([], ["run"], ["order"], ["order", "show"], ["config", "init"], ["topics", "check"], ["account"]):
        assert cli(*words, "-h") == cli(*words, "--help")


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
        "StoreError": 75,
        "InvariantError": 70,
    }


def test_one_list_of_exit_codes(cli: Cli) -> None:
    """The help lists the codes of the errors, and no other ones; `test_manual.py` has the same for the manual."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CartsyncError)]
    assert {kind.exit_code for kind in kinds} <= errors.EXIT_CODES.keys()
    assert " ".join(cli("--help")[1].split()).endswith(errors.exit_codes())


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["config", "print"], 64),
        (["config", "check"], 64),
        (["topics", "check"], 64),
        (["topics", "create"], 64),
        (["order", "show", "acme/1", "--url", "http://127.0.0.1:1"], 75),
        (["order", "show", "acme/1", "--url", "ftp://x"], 2),
        (["order", "release", "acme/1", "--url", "http://127.0.0.1:1"], 75),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else None,
)
def test_errors_for_machines(cli: Cli, command: list[str], code: int) -> None:
    """With `--json` an error is an object on stdout, too; without, words on stderr."""
    ended, out, _ = cli(*command, "--json")
    read = json.loads(out)
    assert (ended, read["ok"], read["exit_code"]) == (code, False, code)
    assert all(isinstance(line, str) and line for line in read["problems"])
    ended, out, err = cli(*command)
    assert (ended, out) == (code, "")
    assert read["problems"][-1] in err


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
    assert cli("config", "check", "--config", "mine.toml") == (0, "the configuration is valid; accounts: My shop\n", "")
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
    code, out, _ = cli("config", "print")
    assert code == 0
    assert re_spaced(out, 'lease = "25s" # cartsync.toml: [worker] lease')
    assert re_spaced(out, 'settle = "30s" # default')
    code, as_json, _ = cli("config", "print", "--json")
    assert as_json.endswith("}\n")
    assert tomllib.loads(out) == json.loads(as_json)
    assert json.loads(as_json)["accounts"]["My shop"]["password"] == "***"


def test_config_init(cli: Cli) -> None:
    """The example is written where it is wanted, into no file that is there, be it a link to nowhere."""
    example = (Path(__file__).parents[2] / "deploy" / "cartsync.example.toml").read_bytes()
    assert cli("config", "init") == (0, "written: cartsync.toml; then `cartsync config check`\n", "")
    assert Path("cartsync.toml").read_bytes() == example
    Path("cartsync.toml").write_text("mine", encoding="utf-8")
    Path("link.toml").symlink_to("elsewhere.toml")
    for path in ("cartsync.toml", "link.toml"):
        code, out, err = cli("config", "init", path)
        assert (code, out, "was not changed" in err) == (2, "", True)
    assert Path("cartsync.toml").read_text(encoding="utf-8") == "mine"
    assert not Path("elsewhere.toml").exists()
    assert json.loads(cli("config", "init", "other.toml", "--json")[1]) == {"written": "other.toml"}
    assert cli("config", "init", "nowhere/x.toml")[0] == 2


def re_spaced(text: str, line: str) -> bool:
    """Whether the text has this line, however it is spaced."""
    return line in [" ".join(each.split()) for each in text.splitlines()]


@pytest.mark.parametrize(
    "command",
    [
        *(["run"], ["topics", "check"], ["topics", "create"], ["replay", "events.jsonl", "--send"]),
        *(
            ["status"],
            ["account", "list"],
            ["orders", "list"],
            ["dlq", "list"],
            ["dlq", "show", "0/1"],
            ["dlq", "mend", "0/1"],
        ),
        *(["dlq", "replay", "0/1"], ["state", "export"], ["state", "verify"]),
    ],
)
def test_what_needs_a_configuration(cli: Cli, command: list[str]) -> None:
    """Without one these end with 64 before they do anything."""
    assert cli(*command)[0] == 64


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["orders", "list", "--csv", "--json"], "--csv and --json exclude each other"),
        (["orders", "list", "--status", "lost"], "status: there is no 'lost'; expected one of unconfirmed"),
        (["dlq", "list", "--filter", "reason"], "--filter reason: expected NAME=VALUE, with one of reason, account"),
        (["dlq", "list", "--filter", "color=red"], "--filter color=red: expected NAME=VALUE"),
        (["dlq", "list", "--filter", "reason=bad"], "there is no such reason; expected one of"),
        (["dlq", "list", "--filter", "handled=perhaps"], "expected one of no, yes, replayed"),
        (["dlq", "list", "--filter", "older=soon"], "--filter older: expected a time such as 30s"),
        (["dlq", "show", "17"], "17: expected PARTITION/OFFSET of a dead letter"),
        (["dlq", "mend", "0/17", "--set", "quantity"], "quantity: expected PATH=VALUE"),
        (["dlq", "mend", "0/17", "--remove", "a b"], "a b: expected a path such as data.lines"),
        (["dlq", "mend", "0/17", "--file", "none.json"], "none.json: cannot be read"),
        (["dlq", "replay"], "name letters (PARTITION/OFFSET), or choose them"),
        (["dlq", "replay", "0/1", "--filter", "reason=no_key"], "name letters (PARTITION/OFFSET), or choose them"),
    ],
)
def test_what_is_meant_has_to_be_said(cli: Cli, command: list[str], said: str) -> None:
    """What cannot be understood is said before anything is read."""
    code, out, err = cli(*command)
    assert (code, said in " ".join((out + err).split())) == (2, True)


@pytest.mark.parametrize(("name", "said"), [("acne", "did you mean acme?"), ("hats", "configured are acme")])
def test_account_that_nobody_has(cli: Cli, tmp_path: Path, name: str, said: str) -> None:
    """A typing error does not pause what is not there: every partition would take such an event."""
    file = tmp_path / "cartsync.toml"
    file.write_text('[kafka]\nbootstrap_servers = "127.0.0.1:1"\n[accounts.acme]\npassword_file = "/nowhere"\n')
    code, _, error = cli("account", "pause", name, "--why", "a test", "--config", str(file))
    assert (code, f"no account {name}; {said}" in error) == (2, True), error


def test_doctor_without_a_configuration(cli: Cli) -> None:
    """It says what is missing, as of everything else."""
    code, out, err = cli("doctor")
    assert (code, out.startswith("fail  configuration: ")) == (1, True)
    assert err.endswith(" failed\n")


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
        "  shipped    71.00 EUR",
        "                  71.00  1 × jacket (Jacket\\n)",
        "  unshipped  12.50 EUR",
        "                  12.50  handling",
        "  revision   12, acknowledged 9",
        "  next       in 2.2 s",
        "  partition  3",
    ]
    code, out, _ = await asyncio.to_thread(cli, "order", "show", "1", "--json", "--url", url)
    assert (code, msgspec.json.decode(out, type=OrderView)) == (0, view)


async def test_order_whose_money_ends_different(cli: Cli, worker: Worker, url: str) -> None:
    """It says what the provider has more, or less, than the carts come to, where it knows."""
    known = {"order_id": "7", "differs_minor": {"shipped": -120, "unshipped": 0}}
    worker.orders["acme/1"] = OrderView("acme/1", "settled", "", currency="EUR", provider=ProviderView(known=known))
    _, out, _ = await asyncio.to_thread(cli, "order", "show", "acme/1", "--url", url)
    assert "  differs    the provider has 1.20 EUR less shipped than the carts" in out.splitlines()
    assert out.count("differs") == 1
    worker.orders["acme/1"] = OrderView("acme/1", "settled", "", provider=ProviderView(known={"order_id": "7"}))
    _, out, _ = await asyncio.to_thread(cli, "order", "show", "acme/1", "--url", url)
    assert "differs" not in out


async def test_order_by_its_reference(cli: Cli, worker: Worker, url: str) -> None:
    """A reference alone is enough where one account has it; it may hold slashes."""
    for ref, said in (("A14/12345", "released\n"), ("acme/A14/12345", "nothing to release: it is owed")):
        code, out, _ = await asyncio.to_thread(cli, "order", "release", ref, "--url", url)
        assert code == 0
        assert out.startswith("acme/A14/12345: " + said)
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


@pytest.mark.parametrize(
    ("option", "asked"),
    [
        ([], ("report", "acme")),
        (["--page-taken", "a1"], ("decide a1", "True")),
        (["--page-not-taken", "a1"], ("decide a1", "False")),
    ],
)
async def test_account_report(cli: Cli, worker: Worker, url: str, option: list[str], asked: tuple[str, str]) -> None:
    """Its jobs are due now, or a page was taken, or was not."""
    code, out, _ = await asyncio.to_thread(cli, "account", "report", "acme", *option, "--url", url)
    assert (code, out.startswith("account acme: ")) == (0, True)
    assert worker.done == [asked]


async def test_account_report_of_both(cli: Cli, worker: Worker, url: str) -> None:
    """A page cannot be taken and not."""
    both = ["--page-taken", "a1", "--page-not-taken", "a1"]
    assert (await asyncio.to_thread(cli, "account", "report", "acme", *both, "--url", url))[0] == 2
    assert worker.done == []


async def test_who_and_why_go_with_a_command(cli: Cli, worker: Worker, url: str) -> None:
    """To the worker that is asked; what nobody does without a reason is refused before anybody is."""
    release = ("order", "release", "acme/1", "--url", url)
    assert (await asyncio.to_thread(cli, *release, "--why", "mended", "--by", "ana"))[0] == 0
    assert worker.asked == ("ana", "mended")
    assert (await asyncio.to_thread(cli, *release))[0] == 0
    assert "@" in worker.asked[0]
    every = ("order", "release", "--all", "--account", "acme", "--url", url, "--by", "ana")
    assert (await asyncio.to_thread(cli, *every))[0] == 0
    assert worker.asked == ("ana", "")
    code, _, err = await asyncio.to_thread(cli, "order", "forget", "acme/1", "--url", url)
    assert (code, "needs a reason: --why TEXT" in err) == (2, True)


async def test_account_resume(cli: Cli, worker: Worker, url: str) -> None:
    """A paused account goes on; an unknown one ends with 2."""
    assert await asyncio.to_thread(cli, "account", "resume", "acme", "--url", url) == (0, "account acme: resumed\n", "")
    assert worker.done == [("resume", "acme")]
    code, out, _ = await asyncio.to_thread(cli, "account", "resume", "acme", "--url", url)
    assert (code, out) == (0, "account acme: it is not paused\n")
    assert (await asyncio.to_thread(cli, "account", "resume", "none", "--url", url))[0] == 2


async def test_release_of_all(cli: Cli, worker: Worker, url: str) -> None:
    """All parked orders of an account, of one worker, that a text in the reason chooses."""
    words = ("order", "release", "--all", "--account", "acme", "--reason-contains", "422: n", "--url", url)
    code, out, _ = await asyncio.to_thread(cli, *words)
    assert (code, out) == (0, f"account acme: 7 released in the partitions of the worker at {url}\n")
    assert worker.done[0] == ("release_all", "422: n")
    code, out, _ = await asyncio.to_thread(cli, *words, "--json")
    assert (code, json.loads(out)["released"]) == (0, 0)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--all",),
        ("acme/1", "--all", "--account", "acme"),
        ("acme/1", "--account", "acme"),
        ("acme/1", "--reason-contains", "x"),
    ],
)
def test_release_of_one_or_of_all(cli: Cli, words: tuple[str, ...]) -> None:
    """Which orders are meant has to be said in one of two ways."""
    code, _, err = cli("order", "release", *words)
    assert code == 2
    assert "--all" in err


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
    assert (code, err) == (2, f"cartsync: partition 7 is not served at {url}; try again shortly\n")
    code, _, err = await asyncio.to_thread(cli, "input", "skip", "12", "42", "--why", "a gap", "--url", url)
    assert (code, err) == (2, "cartsync: there is no partition 12: the event topic has 12, the first is 0\n")
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


TOKEN = "a-token-of-24-characters"


@pytest.fixture
async def guarded(worker: Worker) -> AsyncIterator[str]:
    """The number of a port that is open to other machines, and wants a token."""
    operations = PrivatePort(worker, Access(token=TOKEN))
    base = await operations.start("0.0.0.0", 0)
    yield base.rpartition(":")[2]
    await operations.stop()


def write(name: str, text: str) -> None:
    """Writes a file where the test runs."""
    Path(name).write_text(text, encoding="utf-8")


async def test_worker_that_hands_out_no_orders_is_not_taken_for_one_that_knows_none(cli: Cli, worker: Worker) -> None:
    """Open to other machines without a token, it refuses: that is said, and not that there is no such order."""
    operations = PrivatePort(worker)
    base = await operations.start("0.0.0.0", 0)
    url = f"http://127.0.0.1:{base.rpartition(':')[2]}"
    code, _, err = await asyncio.to_thread(cli, "order", "resend", SUBJECTS[0], "--url", url)
    assert (code, "token" in err, "no order" in err) == (2, True, False)
    await operations.stop()


async def test_token_of_the_configuration(cli: Cli, worker: Worker, guarded: str) -> None:
    """Commands send the token that the worker wants; without it, or with another, they say what is missing."""
    act = ["account", "resume", "acme"]
    write("cartsync.toml", f'[http]\nport = {guarded}\nhost = "0.0.0.0"\ntoken_file = "token"\n')
    write("token", TOKEN + "\n")
    write("wrong", "another-token-than-that\n")
    write("none", "no token\u00e9 at all")
    url = ["--url", f"http://127.0.0.1:{guarded}"]
    assert (await asyncio.to_thread(cli, *act))[0] == 0
    assert (await asyncio.to_thread(cli, "order", "show", "acme/1", *url))[0] == 0
    code, _, err = await asyncio.to_thread(cli, *act, "--token-file", "wrong")
    assert (code, "token" in err, "another-token" in err) == (2, True, False)
    code, _, err = await asyncio.to_thread(cli, *act, "--token-file", "none")
    assert (code, "not a token" in err, "at all" in err) == (64, True, False)
    write("cartsync.toml", "[http")
    assert (await asyncio.to_thread(cli, *act, *url, "--token-file", "token"))[0] == 0
    assert (await asyncio.to_thread(cli, *act, *url))[0] == 2
    assert worker.done == [("resume", "acme")] * 2


NOBODY = ("--url", "http://127.0.0.1:1")
SKIP = ["input", "skip", "0", "1", "--why", "a gap"]


def test_nobody_answers(cli: Cli) -> None:
    """Without a worker it is worth trying again later."""
    for command in (["order", "show", "1"], ["order", "resend", "1"], ["account", "resume", "acme"], SKIP):
        code, _, err = cli(*command, *NOBODY)
        assert code == 75
        assert "no worker responds at http://127.0.0.1:1" in err


def test_kafka_does_not_answer(cli: Cli) -> None:
    """What the library complains of meanwhile is not shown; the last line says all of it."""
    (port,) = free_ports(1)
    Path("cartsync.toml").write_text(CONFIG.replace("localhost:9092", f'127.0.0.1:{port}"\nconnect_timeout = "1s'))
    for command in (["topics", "check"], ["topics", "create"]):
        code, out, err = cli(*command)
        assert (code, out) == (75, "")
        assert err.startswith(f"cartsync: no Kafka broker responds at 127.0.0.1:{port}")
        assert err.count("\n") == 1


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
            assert f"{url} is not a cartsync worker" in err
        server.shutdown()


def test_orders_of_the_demo(cli: Cli) -> None:
    """Without a worker an order is shown as the last demo left it."""
    views = [OrderView(subject, "settled", "") for subject in ("acme/1", "acme/2", "beta/2", "acme/x/y")]
    Path(".cartsync").mkdir()
    Path(".cartsync/demo.json").write_bytes(msgspec.json.encode({"orders": {view.subject: view for view in views}}))
    for ref, subject in (("1", "acme/1"), ("beta/2", "beta/2"), ("x/y", "acme/x/y")):
        code, out, err = cli("order", "show", ref, "--json", *NOBODY)
        assert (code, json.loads(out)["subject"]) == (0, subject)
        assert "reading .cartsync/demo.json, from the last demo" in err
    code, out, err = cli("order", "show", "2", *NOBODY)
    assert (code, out, err.splitlines()[-1]) == (2, "", "cartsync: 2 is ambiguous: use acme/2 or beta/2")
    assert cli("order", "show", "3", *NOBODY)[0] == 2
    Path(".cartsync/demo.json").write_text("{", encoding="utf-8")
    code, _, err = cli("order", "show", "1", *NOBODY)
    assert (code, "cannot be read" in err) == (2, True)


def test_demo_follows_no_link(cli: Cli) -> None:
    """What the demo leaves goes into a folder of its own, wherever links in it lead."""
    path = Path(".cartsync/demo.json")
    Path("other").mkdir()
    Path(".cartsync").symlink_to("other")
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        leave(path, b"{}")
    assert not list(Path("other").iterdir())
    Path(".cartsync").unlink()
    Path(".cartsync").mkdir()
    Path("precious").write_text("mine", encoding="utf-8")
    path.symlink_to("../precious")
    leave(path, b"{}")
    assert (path.read_bytes(), path.is_symlink()) == (b"{}", False)
    assert Path("precious").read_text(encoding="utf-8") == "mine"
    assert [each.name for each in path.parent.iterdir()] == ["demo.json"]


# --- signals ---


def test_signal_while_it_starts(tmp_path: Path) -> None:
    """A worker that is told to end before it has begun to work ends, and by its own doing: as process 1 the usual way
    of the system does not exist.
    """
    os.mkfifo(tmp_path / "config")
    process = subprocess.Popen([*PROGRAM, "run", "--config", str(tmp_path / "config")])
    with (tmp_path / "config").open("wb"):  # it reads now, which takes until we close
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_signals_come_first() -> None:
    """They are handled before anything is loaded that takes time."""
    code = "import sys, worker.__main__; print([n for n in ('typer', 'structlog', 'worker.cli') if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


# --- programs ---


@pytest.mark.parametrize(
    ("config", "words", "code", "said"),
    [
        ("", (), 64, "[kafka] is not configured: orders are read from the state topic"),
        ('[kafka]\nbootstrap_servers = "127.0.0.1:1"\n', (), 64, "no account is configured"),
        (CONFIG, ("shop",), 2, "account shop is not configured; configured are: My shop"),
        (CONFIG, ("--rate", "0"), 2, "--rate"),
    ],
    ids=["no Kafka", "no account", "another account", "no rate"],
)
def test_reconcile_says_what_it_needs(
    cli: Cli, tmp_path: Path, config: str, words: tuple[str, ...], code: int, said: str
) -> None:
    """A mistake of the command line or the configuration is said before anything is read."""
    (tmp_path / "cartsync.toml").write_text(config)
    found, out, err = cli("reconcile", *words)
    assert (found, out) == (code, "")
    assert said in err


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
    for arguments in ([], ["--dry-run"]):
        code, out, err = cli("replay", "events.jsonl", "--json", *arguments)
        assert code == 0
        assert json.loads(out.splitlines()[0])["url"] == "https://sandbox.sequrapi.com/merchants/acme/orders/1"
        assert err == ""


def test_replay_does_not_send_where_nobody_knows_of_workers(cli: Cli) -> None:
    """With Kafka configured and silent, a worker may be running: nothing is sent."""
    Path("events.jsonl").write_text("{}\n", encoding="utf-8")
    Path("cartsync.toml").write_text(
        CONFIG.replace(
            'bootstrap_servers = "localhost:9092"', 'bootstrap_servers = "127.0.0.1:1"\nconnect_timeout = "10ms"'
        ),
        encoding="utf-8",
    )
    code, out, err = cli("replay", "events.jsonl", "--send")
    assert (code, out) == (75, "")
    assert "no Kafka broker responds" in err


def test_accept_target(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words for accounts that are there reach the worker, over those of the configuration; others are an error."""
    Path("cartsync.toml").write_text(CONFIG, encoding="utf-8")
    given: list[dict[str, str]] = []

    def run_worker(_config: object, _reread: object, _host: str | None, accepted: dict[str, str], _path: object) -> int:
        given.append(accepted)
        return 0

    monkeypatch.setattr("worker.app.run.run_worker", run_worker)
    assert cli("run", "--accept-target", "My shop=send")[0] == 0
    assert cli("run")[0] == 0
    assert given == [{"My shop": "send"}, {}]
    for wrong in ("My shop", "My shop=yes", "acme=send", "=keep"):
        code, _, err = cli("run", "--accept-target", wrong)
        assert (code, "expected ACCOUNT=send or ACCOUNT=keep; accounts: My shop" in err) == (2, True)


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


def test_scenario_explain(cli: Cli) -> None:
    """What each event changed; it expects nothing, so there is nothing to report to CI."""
    file = f"{Path(SCENARIOS).parent / 'sequra' / 'FA04k.json'}"
    code, out, _ = cli("scenario", file, "--explain")
    assert (code, "6000 refunded for returned units" in out) == (0, True)
    assert json.loads(cli("scenario", file, "--explain", "--json")[1])["scenarios"][0]["name"] == "FA04k"
    assert cli("scenario", file, "--explain", "--junit", "report.xml")[0] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--account", "a:b:c", "--faults", "500=0.1"), ("seQura", " for a;")),
        (("--provider", "qliro", "--account", "HATS:b:c", "--faults", "push_late=0.1"), ("Qliro", " for HATS;")),
        (("--provider", "atarapay", "--callback-url", "http://127.0.0.1:9/x"), ("AtaraPay", ";")),
    ],
)
def test_sandbox(options: tuple[str, ...], said: tuple[str, str]) -> None:
    """A provider serves until it is interrupted; AtaraPay's keys are not shown."""
    command = [sys.executable, "-m", "worker", "sandbox", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = line.split()[3].rstrip(";")
        with urlopen(f"{url}/orders", timeout=5) as response:
            held = json.load(response)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert line.startswith(f"{said[0]} sandbox at {url}{said[1]} its orders")
    assert held == {"count": 0, "orders": []}


def test_help_names_every_sandbox() -> None:
    """Its options are declared without loading one."""
    hints = get_annotations(sandbox)
    said = {name: hints[name].__metadata__[0] for name in ("provider", "account")}
    assert said["provider"].metavar == "|".join(SANDBOXES)
    for provider, kind in SANDBOXES.items():
        assert re.search(rf"\b{provider} {kind.form}(, repeatable)? \({kind.example}\)", said["account"].help)


@pytest.mark.parametrize(
    "options",
    [
        ("--account", "a:b"),
        ("--faults", "x=1"),
        ("--host", "203.0.113.1"),
        ("--provider", "klarna"),
        ("--provider", "qliro", "--account", "HATS"),
        ("--provider", "qliro", "--account", "HATS:a", "--account", "CAPS:b"),
        ("--provider", "qliro", "--callback-url", "http://127.0.0.1:9/x"),
    ],
)
def test_wrong_sandboxes(cli: Cli, options: tuple[str, ...]) -> None:
    """Providers, accounts, faults and addresses that cannot be are usage errors."""
    assert cli("sandbox", "--port", "0", *options)[0] == 2


# --- callbacks ---

CALLED_BACK = CONFIG.replace("password =", f'callback_secrets = ["{"0123456789abcdef" * 2}"]\npassword =')
RECEIVING = CALLED_BACK.replace("[worker]", 'partitioner = "murmur2"\n[worker]') + (
    f'[callbacks]\nrecord_secrets = ["{"0123456789abcdef" * 2}"]\nport = 0\n[http]\nport = 0\n'
)


def test_addresses_of_callbacks(cli: Cli, tmp_path: Path) -> None:
    """What `callback url` prints, `callback verify` lets in; what is wrong ends with 1."""
    (tmp_path / "cartsync.toml").write_text(CALLED_BACK)
    code, out, err = cli("callback", "url", "My shop", "A14/12345", "--purpose", "ipn")
    assert (code, "public_url" in err) == (0, True)
    path = out.split()[-1]
    assert path.startswith("/callbacks/My%20shop/ipn/")
    assert cli("callback", "verify", path)[0] == 0
    assert cli("callback", "verify", path + "6")[0] == 1
    assert cli("callback", "url", "nobody", "7")[0] == 2
    assert json.loads(cli("callback", "url", "My shop", "7", "--json")[1])["account"] == "My shop"


def test_config_check_looks_at_callbacks(cli: Cli, tmp_path: Path) -> None:
    """Whoever is called back writes to the event topic: then the partitioner has to be said, and a secret to sign with."""
    (tmp_path / "cartsync.toml").write_text(CALLED_BACK)
    code, _, err = cli("config", "check")
    assert code == 64
    assert "[kafka] partitioner: must be set" in err
    assert "[callbacks] record_secrets is missing" in err
    (tmp_path / "cartsync.toml").write_text(RECEIVING)
    assert cli("config", "check")[0] == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CALLED_BACK, "[kafka] partitioner: must be set"),
        (RECEIVING.replace("localhost", "kafka.example"), "[kafka] security_protocol PLAINTEXT would send orders"),
    ],
)
def test_receiver_that_is_not_configured(cli: Cli, tmp_path: Path, text: str, expected: str) -> None:
    """It does not start, and says why."""
    (tmp_path / "cartsync.toml").write_text(text)
    code, _, err = cli("receive")
    assert (code, expected in err) == (64, True)
