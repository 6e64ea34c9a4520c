"""The command line. What a command does lives in the module that it imports when it is called: help is instant."""

# ruff: noqa: PLC0415 - imports inside of commands: each loads only what it needs

import json
import os
import sys
import traceback
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from worker import __version__
from worker.errors import CartsyncError, ConfigError

if TYPE_CHECKING:
    from schemas.views import OrderView
    from worker.config import Config

_EXITS = """Exit codes: 0 done, 1 a difference was found, 2 usage or unreadable file, 64 configuration, 70 watchdog or
defect, 71 two owners, 72 topics, 75 try again later, 143 second SIGTERM."""

app = typer.Typer(
    name="cartsync",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=_EXITS,
)
order_app = typer.Typer(no_args_is_help=True, help="Look at one order, or have it sent.", rich_markup_mode=None)
account_app = typer.Typer(no_args_is_help=True, help="Merchant accounts.", rich_markup_mode=None)
config_app = typer.Typer(no_args_is_help=True, help="The configuration.", rich_markup_mode=None)
topics_app = typer.Typer(no_args_is_help=True, help="The Kafka topics.", rich_markup_mode=None)
app.add_typer(order_app, name="order")
app.add_typer(account_app, name="account")
app.add_typer(config_app, name="config")
app.add_typer(topics_app, name="topics")

ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Default: $CARTSYNC_CONFIG, else ./cartsync.toml."),
]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Url = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The worker's private port. Default: [http] of the configuration."),
]
Ref = Annotated[str, typer.Argument(help="account/reference, or a reference that only one account has.")]


@app.callback()
def cartsync(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    """Keeps payment providers in agreement with what became of an order.

    Reads order events from Kafka, computes each order's shipped and unshipped cart, and sends what changed.

    \b
    cartsync demo                          see it work; needs nothing
    cartsync scenario tests/scenarios      check expectations written as files
    cartsync replay events.jsonl --dry-run what would be sent for these events
    cartsync config check                  is the configuration right?
    cartsync topics create                 make the Kafka topics
    cartsync run                           be a worker
    cartsync order show acme/A14           what is known of an order, and why it is not sent
    """


@app.command()
def run(
    config: ConfigPath = None,
    adopt_state: Annotated[
        bool,
        typer.Option("--adopt-state", help="Take the state over from another deployment, which has stopped."),
    ] = False,
) -> None:
    """Be a worker, until SIGTERM or Ctrl-C.

    It leaves in order, which may take some seconds; a second signal ends it at once, which costs a hold.

    A state topic belongs to one deployment (group_id, transactional_id_prefix, event topic, cluster). When one of them
    was changed on purpose, stop all workers and start the first one with --adopt-state.

    \b
    cartsync run --config /etc/cartsync.toml
    CARTSYNC_HTTP__HOST=0.0.0.0 cartsync run
    """
    settings = _load(config)
    if adopt_state:
        worker = settings.worker.model_copy(update={"adopt_state": True})
        settings = settings.model_copy(update={"worker": worker})
    from worker.app.run import run_worker

    raise typer.Exit(run_worker(settings))


@app.command()
def demo(
    orders: Annotated[int, typer.Option(min=1, max=100_000, help="How many orders the shop has.")] = 300,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="For how long the shop is open.")] = 15.0,
    seed: Annotated[int, typer.Option(help="Another one, another day in the shop.")] = 1,
    kafka: Annotated[bool, typer.Option("--kafka", help="With a real Kafka on this machine (needs Java).")] = False,
) -> None:
    """See it work: a shop, a worker, a provider that fails.

    All on this machine, and nothing else is needed. Afterwards `cartsync order show` looks at single orders.

    \b
    cartsync demo
    cartsync demo --orders 1000 --seconds 30 --seed 7
    """
    from worker.tools.demo import run_demo

    raise typer.Exit(run_demo(orders=orders, seconds=seconds, seed=seed, kafka=kafka))


@app.command()
def scenario(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files, or folders of *.json.")],
    as_json: AsJson = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a JUnit report for CI, too.")] = None,
) -> None:
    """Check that events lead to the expected updates.

    Real worker, scripted provider, virtual time: no broker, no network, no waiting. Exit 0, 1 (a difference was found)
    or 2 (a file cannot be read).

    \b
    cartsync scenario my-shop/
    cartsync scenario returns.json --junit report.xml
    """
    from worker.tools.scenario import run_files

    raise typer.Exit(run_files(paths, as_json, junit))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="CloudEvents, one JSON object a line.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be sent; send nothing.")] = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Send what the events of a file lead to, without Kafka.

    The accounts are those of the configuration; with --dry-run and none configured, an account `acme` is made up.

    \b
    cartsync replay events.jsonl --dry-run
    cartsync replay events.jsonl --config staging.toml
    """
    from worker.config import account_from, configured_accounts

    accounts = configured_accounts(config)
    if not accounts and not dry_run:
        raise ConfigError("no account is configured; add [accounts.NAME], or try --dry-run")
    from worker.tools.replay import run_replay

    _log_to_stderr()
    made_up = {"acme": account_from("acme", {}, scenario=True)}
    raise typer.Exit(run_replay(file, accounts or made_up, dry_run=dry_run, as_json=as_json))


@app.command()
def sandbox(
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")] = 8090,
    account: Annotated[
        list[str] | None,
        typer.Option(metavar="MERCHANT:USER:PASSWORD", help="May be given again. Default: acme:user:secret."),
    ] = None,
    faults: Annotated[str, typer.Option(help="What goes wrong how often: 500=0.05,reset_applied=0.02")] = "",
    seed: Annotated[int, typer.Option(help="For the faults.")] = 0,
) -> None:
    """Be a provider on this machine, to try things against.

    Answers updates as seQura does, until Ctrl-C. Look at what it holds with a browser.

    \b
    cartsync sandbox
    cartsync sandbox --port 9000 --faults 5xx=0.1,timeout_lost=0.01:10s
    """
    from worker.tools.sandbox_server import run_sandbox

    accounts = account or ["acme:user:secret"]
    raise typer.Exit(run_sandbox(host=host, port=port, accounts=accounts, faults=faults, seed=seed))


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the version."""
    print(json.dumps({"version": __version__}) if as_json else f"cartsync {__version__}")


@order_app.command("show")
def order_show(ref: Ref, url: Url = None, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Show an order, and what stands in its way.

    Its carts, what was acknowledged, what comes next. Asks the worker; when it does not answer, or does not serve the
    order, the state topic; without a configured Kafka, what the last demo left.

    \b
    cartsync order show acme/A14
    cartsync order show A14 --json
    """
    from worker.config import state_sections
    from worker.tools.operate import show_order

    def read_topic(ref: str) -> "list[OrderView]":
        assert sections is not None
        from worker.tools.state_topic import read_orders

        _log_to_stderr()
        return read_orders(ref, *sections)

    sections = state_sections(config)
    topic = None if sections is None else read_topic
    raise typer.Exit(show_order(ref, _url(url, config), as_json=as_json, topic=topic))


@order_app.command("release")
def order_release(ref: Ref, url: Url = None, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Send a parked order again.

    Its counts start anew; delays and holds that are running stay. Returns when it is committed.
    """
    from worker.tools.operate import change_order

    raise typer.Exit(change_order("release", ref, _url(url, config), as_json=as_json))


@order_app.command("resend")
def order_resend(ref: Ref, url: Url = None, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Send an order's newest state again.

    Whatever was acknowledged. Returns when it is committed; what is running first ends.
    """
    from worker.tools.operate import change_order

    raise typer.Exit(change_order("resend", ref, _url(url, config), as_json=as_json))


@account_app.command("resume")
def account_resume(
    name: Annotated[str, typer.Argument(help="As in [accounts.NAME].")],
    url: Url = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Go on with an account whose credentials were refused."""
    from worker.tools.operate import resume_account

    raise typer.Exit(resume_account(name, _url(url, config), as_json=as_json))


@config_app.command("check")
def config_check(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Say everything that is wrong with it.

    Exit 0, or 64 with one line for each mistake.
    """
    try:
        settings = _load(config)
    except ConfigError as error:
        if not as_json:
            raise
        print(json.dumps({"ok": False, "problems": str(error).splitlines()}, ensure_ascii=False))
        raise typer.Exit(error.exit_code) from None
    accounts = ", ".join(settings.accounts)
    print(json.dumps({"ok": True, "problems": []}) if as_json else f"the configuration is right; accounts: {accounts}")


@config_app.command("print")
def config_print(
    config: ConfigPath = None,
    as_json: AsJson = False,
    redacted: Annotated[bool, typer.Option("--redacted", help="Always so: secrets are shown as ***.")] = True,  # noqa: ARG001
) -> None:
    """Print what holds, and where each setting comes from.

    Secrets are shown as ***.
    """
    settings = _load(config)
    from worker.tools.show_config import config_text

    print(json.dumps(settings.redacted(), ensure_ascii=False, indent=2) if as_json else config_text(settings), end="")


@topics_app.command("check")
def topics_check(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Say what is wrong with the topics.

    Exit 0, or 72 when a worker would not start.
    """
    settings = _load(config)
    from worker.tools.topics import run_check

    _log_to_stderr()
    raise typer.Exit(run_check(settings, as_json=as_json))


@topics_app.command("create")
def topics_create(
    config: ConfigPath = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Of the event topic, when it is missing, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create the topics that are missing, then check all.

    \b
    cartsync topics create --partitions 12
    """
    settings = _load(config)
    from worker.tools.topics import run_create

    _log_to_stderr()
    raise typer.Exit(run_create(settings, partitions=partitions, as_json=as_json))


def _log_to_stderr() -> None:
    """What a tool prints is on stdout alone."""
    from worker import logs

    logs.configure(level="warning", stream=sys.stderr)


def _load(path: Path | None) -> "Config":
    from worker.config import Config
    from worker.kafka.settings import KafkaSettings

    def kafka_holds(config: Config) -> None:
        try:
            KafkaSettings(**config.kafka.members()).check()
        except ConfigError as error:
            raise ConfigError(f"[kafka] {error}") from None

    return Config.load(path, checks=[kafka_holds])


def _url(url: str | None, path: Path | None) -> str:
    """Where the worker is: a port that listens everywhere is asked on this machine."""
    if url is not None:
        return url
    from worker.config import http_section

    http = http_section(path)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(http.host, http.host)  # noqa: S104 - not bound, but asked
    return f"http://[{host}]:{http.port}" if ":" in host else f"http://{host}:{http.port}"


def _abandon_stdout() -> None:
    """The interpreter would try once more to write what is left, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> NoReturn:
    """The program: runs a command and ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no ñ must not end a command
    try:
        try:
            app(prog_name="cartsync")
        except SystemExit:
            sys.stdout.flush()  # what cannot be written is told below, not by the interpreter at its end
            raise
    except CartsyncError as error:
        if "--debug" in sys.argv[1:]:
            traceback.print_exception(error)
        lines = str(error).splitlines() or [type(error).__name__]
        if len(lines) > 1:
            lines = [f"{len(lines)} problems:", *(f"  {line}" for line in lines)]
        sys.stderr.write("cartsync: " + "\n".join(lines) + "\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        _abandon_stdout()  # who reads has seen enough: `cartsync … | head`
        sys.exit(1)  # as the library says, when it is the one to notice
    except OSError as error:
        _abandon_stdout()
        sys.stderr.write(f"cartsync: {error.filename or 'the output'}: {error.strerror}\n")
        sys.exit(CartsyncError.exit_code)
    sys.exit(0)
