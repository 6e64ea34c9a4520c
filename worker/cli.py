"""The command line. What a command does lives in the module that it imports when it is called: help is instant."""

# ruff: noqa: PLC0415 - imports inside of commands: each loads only what it needs

import json
import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from worker import __version__, http_url
from worker.errors import CartsyncError, ConfigError, UsageError, exit_codes

if TYPE_CHECKING:
    from schemas.views import OrderView
    from worker.config import Config, KafkaSection
    from worker.core.targets import TargetChoice
    from worker.model.account import Account
    from worker.tools.control import Port

_HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="cartsync",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=_HELP,
    epilog=exit_codes(),
)
order_app = typer.Typer(
    no_args_is_help=True, help="Look at one order, or have it sent.", rich_markup_mode=None, context_settings=_HELP
)
account_app = typer.Typer(
    no_args_is_help=True, help="Merchant accounts.", rich_markup_mode=None, context_settings=_HELP
)
config_app = typer.Typer(no_args_is_help=True, help="The configuration.", rich_markup_mode=None, context_settings=_HELP)
input_app = typer.Typer(
    no_args_is_help=True, help="The position in the event topic.", rich_markup_mode=None, context_settings=_HELP
)
callback_app = typer.Typer(
    no_args_is_help=True, help="Addresses that providers call.", rich_markup_mode=None, context_settings=_HELP
)
topics_app = typer.Typer(no_args_is_help=True, help="The Kafka topics.", rich_markup_mode=None, context_settings=_HELP)
app.add_typer(order_app, name="order")
app.add_typer(account_app, name="account")
app.add_typer(config_app, name="config")
app.add_typer(callback_app, name="callback")
app.add_typer(topics_app, name="topics")
app.add_typer(input_app, name="input")

ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Default: $CARTSYNC_CONFIG, else ./cartsync.toml."),
]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Url = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The worker's private port. Default: [http] of the configuration."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Holds the worker's [http] token. Default: that of the configuration."),
]
Ref = Annotated[str, typer.Argument(help="account/reference, or a reference that only one account has.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cartsync {__version__}")
        raise typer.Exit


@app.callback()
def cartsync(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback when something fails, and what libraries complain of.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Keeps payment providers in agreement with what became of an order.

    Reads order events from Kafka, computes each order's shipped and unshipped cart, and sends what changed.

    \b
    cartsync demo                          see it work; needs nothing
    cartsync scenario tests/scenarios      check expectations written as files
    cartsync replay events.jsonl           what would be sent for these events
    cartsync config check                  is the configuration right?
    cartsync topics create                 make the Kafka topics
    cartsync run                           be a worker
    cartsync receive                       be called back by providers
    cartsync order show acme/A14           what is known of an order, and why it is not sent
    """


@app.command()
def run(
    config: ConfigPath = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Of the private port, instead of [http] host.")
    ] = None,
    accept_target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ACCOUNT=send|keep", help="The account's address or merchant is another one; may be given again."
        ),
    ] = None,
    adopt_state: Annotated[
        bool,
        typer.Option("--adopt-state", help="Take the state over from another deployment, which has stopped."),
    ] = False,
) -> None:
    """Be a worker, until SIGTERM or Ctrl-C.

    It leaves in order, which may take some seconds, 24 at most; a second signal ends it at once, which costs a hold.
    SIGHUP has secrets and accounts read again. When an account has another base_url, merchant_id or provider than its
    orders were told to, it does not start before you say what follows: send (all of them are told anew) or keep (they
    count as told).

    A state topic belongs to one deployment (group_id, transactional_id_prefix, event topic, cluster). When one of them
    was changed on purpose, stop all workers and start the first one with --adopt-state.

    \b
    cartsync run --config /etc/cartsync.toml
    cartsync run --host 0.0.0.0
    cartsync run --accept-target acme=send
    """
    settings = _load(config)
    accepted = _accepted_targets(accept_target or [], settings)
    if adopt_state:
        worker = settings.worker.model_copy(update={"adopt_state": True})
        settings = settings.model_copy(update={"worker": worker})
    from worker.app.run import run_worker

    raise typer.Exit(run_worker(settings, lambda: _load(config), host, accepted))


@app.command()
def receive(
    config: ConfigPath = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Of the private port, instead of [http] host.")
    ] = None,
) -> None:
    """Be called back by providers, until SIGTERM or Ctrl-C.

    Opens the public port ([callbacks] host, port), and a private one for probes and metrics. What a provider says is
    written to the event topic before the provider hears that it was taken. Any number of receivers may run; each needs
    to write to the event topic, and nothing else. TLS ends in front of it. SIGHUP has accounts and secrets read again.

    \b
    cartsync receive --config /etc/cartsync.toml
    cartsync callback url acme A14/12345
    """
    from worker.config.receiving import ReceiverConfig, receiver_config

    def load() -> ReceiverConfig:
        settings = receiver_config(config)
        _check_kafka(settings.kafka)
        return settings

    settings = load()
    from worker.app.receive import run_receiver

    raise typer.Exit(run_receiver(settings, load, host))


@app.command()
def demo(
    orders: Annotated[int, typer.Option(min=1, max=100_000, help="How many orders the shops have, together.")] = 300,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="For how long they are open.")] = 15.0,
    seed: Annotated[int, typer.Option(help="Another one, another day in the shops.")] = 1,
    kafka: Annotated[bool, typer.Option("--kafka", help="With a real Kafka on this machine (needs Java).")] = False,
) -> None:
    """See it work: three shops, three providers, one worker.

    The providers fail, and call back late, twice, and in the wrong order.

    All on this machine, and nothing else is needed. Exit 0 when all orders agree in the end, 1 when not. Afterwards
    `cartsync order show` looks at single orders.

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
    explain: Annotated[bool, typer.Option("--explain", help="Say what each event changes, and why.")] = False,
) -> None:
    """Check that events lead to the expected updates.

    Real worker, scripted provider, virtual time: no broker, no network, no waiting. Exit 0, 1 (a difference was found)
    or 2 (a file cannot be read).

    \b
    cartsync scenario my-shop/
    cartsync scenario returns.json --junit report.xml
    cartsync scenario returns.json --explain
    """
    if explain:
        if junit is not None:
            raise typer.BadParameter("--explain expects nothing, so it has nothing to report to --junit")
        from worker.tools.scenario.explain import explain_files

        raise typer.Exit(explain_files(paths, as_json))
    from worker.tools.scenario import run_files

    raise typer.Exit(run_files(paths, as_json, junit))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="CloudEvents, one JSON object a line.")],
    send: Annotated[
        bool,
        typer.Option("--send/--dry-run", help="Send it, over whatever the provider holds. Default: only print it."),
    ] = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Print what the events of a file lead to, without Kafka.

    With --send it is sent, and overwrites what the provider holds of these orders, so not beside running workers.
    The accounts are those of the configuration; when none is configured and nothing is sent, an account `acme` is made
    up.

    \b
    cartsync replay events.jsonl
    cartsync replay events.jsonl --send --config staging.toml
    """
    from worker.config import account_from, configured_accounts, state_sections

    accounts = configured_accounts(config)
    if not accounts and send:
        raise ConfigError("no account is configured; add [accounts.NAME], or leave out --send")
    sections = state_sections(config) if send else None

    def workers() -> list[str]:
        assert sections is not None
        from worker.tools.running import running_workers

        return running_workers(sections[0])

    from worker.tools.replay import run_replay

    _log_to_stderr()
    made_up = {"acme": account_from("acme", {}, scenario=True)}
    asked = None if sections is None else workers
    raise typer.Exit(run_replay(file, accounts or made_up, send=send, as_json=as_json, workers=asked))


@app.command()
def sandbox(
    provider: Annotated[str, typer.Option(metavar="sequra|qliro|atarapay", help="Whom it stands in for.")] = "sequra",
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")] = 8090,
    account: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CREDENTIALS",
            help="sequra MERCHANT:USER:PASSWORD, may be given again (acme:user:secret); qliro KEY:SECRET "
            "(HATS:secret); atarapay PUBLIC_KEY:PRIVATE_KEY (public:private).",
        ),
    ] = None,
    faults: Annotated[str, typer.Option(help="What goes wrong how often: 500=0.05,reset_applied=0.02")] = "",
    seed: Annotated[int, typer.Option(help="For the faults.")] = 0,
    callback_url: Annotated[
        str, typer.Option(metavar="URL", help="AtaraPay's notifications go there (`cartsync callback url` prints it).")
    ] = "",
) -> None:
    """Be a provider on this machine, to try things against.

    Answers as the provider does, until Ctrl-C, and calls back. Look at what it holds with a browser. Orders are placed
    with POST /checkout (seQura knows one by its first update), things happen with POST /acts; the page says more.

    \b
    cartsync sandbox
    cartsync sandbox --port 9000 --faults 5xx=0.1,timeout_lost=0.01:10s
    cartsync sandbox --provider qliro --faults push_late=0.2:3s,push_doubled=0.1,result_error=0.05
    """
    from worker.tools.sandbox_server import run_sandbox

    raise typer.Exit(
        run_sandbox(
            provider=provider,
            host=host,
            port=port,
            accounts=account or (),
            faults=faults,
            seed=seed,
            callback_url=callback_url,
        )
    )


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the version."""
    print(json.dumps({"version": __version__}) if as_json else f"cartsync {__version__}")


@order_app.command("show")
def order_show(
    ref: Ref,
    url: Url = None,
    config: ConfigPath = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show an order, and what stands in its way.

    Its carts, what was acknowledged, what comes next. Asks the worker; when it does not answer, or does not serve the
    order, the state topic; without a configured Kafka, what the last demo left.

    \b
    cartsync order show acme/A14
    cartsync order show A14 --json
    """
    from worker.config import configured_accounts, state_sections
    from worker.tools.control import show_order

    def read_topic(ref: str) -> "list[OrderView]":
        assert sections is not None
        from worker.tools.state_topic import read_orders

        _only_the_last_line()
        accounts: Mapping[str, Account] = {}
        with suppress(ConfigError):  # a password may be out of reach here; then nothing is said of accounts
            accounts = configured_accounts(config)
        return read_orders(ref, *sections, accounts)

    sections = state_sections(config)
    topic = None if sections is None else read_topic
    raise typer.Exit(show_order(ref, _url(url, config, token_file), as_json=as_json, topic=topic))


@order_app.command("release")
def order_release(
    ref: Annotated[str | None, typer.Argument(help="As for show; none with --all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All parked orders of --account.")] = False,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="With --all: as in [accounts.NAME].")] = None,
    reason_contains: Annotated[
        str, typer.Option(metavar="TEXT", help="With --all: only those whose reason contains this.")
    ] = "",
    url: Url = None,
    config: ConfigPath = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Send a parked order again, or all of an account.

    Its counts start anew; delays and holds that are running stay. Returns when it is committed, and says whether there
    was anything to release. --all asks one worker, for its own partitions: ask each.

    \b
    cartsync order release acme/A14
    cartsync order release --all --account acme --reason-contains "302"
    """
    from worker.tools.control import change_order, release_all

    if every:
        if ref is not None or account is None:
            raise UsageError("--all goes with --account NAME, and without an order")
        raise typer.Exit(release_all(account, reason_contains, _url(url, config, token_file), as_json=as_json))
    if ref is None or account is not None or reason_contains:
        raise UsageError("name one order (account/reference), or say --all --account NAME [--reason-contains TEXT]")
    raise typer.Exit(change_order("release", ref, _url(url, config, token_file), as_json=as_json))


@order_app.command("resend")
def order_resend(
    ref: Ref,
    url: Url = None,
    config: ConfigPath = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Send an order's newest state again.

    Whatever was acknowledged. Returns when it is committed; what is running first ends.
    """
    from worker.tools.control import change_order

    raise typer.Exit(change_order("resend", ref, _url(url, config, token_file), as_json=as_json))


@account_app.command("resume")
def account_resume(
    name: Annotated[str, typer.Argument(help="As in [accounts.NAME].")],
    url: Url = None,
    config: ConfigPath = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a paused account at once.

    Credentials were refused, or many orders. It probes by itself, too ([worker] account_probe). The worker reads its
    password file again. Each worker has to be asked; SIGHUP does the same for all accounts of one.
    """
    from worker.tools.control import resume_account

    raise typer.Exit(resume_account(name, _url(url, config, token_file), as_json=as_json))


@account_app.command("report")
def account_report(
    name: Annotated[str, typer.Argument(help="As in [accounts.NAME].")],
    page_taken: Annotated[
        str, typer.Option("--page-taken", metavar="ID", help="The provider has what this page holds, which is stuck.")
    ] = "",
    page_not_taken: Annotated[str, typer.Option("--page-not-taken", metavar="ID", help="It has not.")] = "",
    url: Url = None,
    config: ConfigPath = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make an account's jobs due now: its delivery report, its disbursements.

    A page of a report that may have been taken, and was refused four times since, is stuck: find out whether the
    provider has it, and say so. Its ID stands in the log (report_stuck) and in /status. Returns when it is committed.
    Each worker has to be asked.

    \b
    cartsync account report acme
    cartsync account report acme --page-not-taken 5f1c07a9b2d4
    """
    from worker.tools.control import report_now

    if page_taken and page_not_taken:
        raise UsageError("a page was taken, or it was not: say one of them")
    page_id, asked = page_taken or page_not_taken, _url(url, config, token_file)
    raise typer.Exit(report_now(name, asked, page_id=page_id, is_taken=bool(page_taken), as_json=as_json))


@input_app.command("skip")
def input_skip(
    partition: Annotated[int, typer.Argument(min=0, help="Of the event topic.")],
    offset: Annotated[int, typer.Argument(min=0, help="The next one to be read.")],
    why: Annotated[str, typer.Option(metavar="TEXT", help="For the log, which says who did it, too.")],
    url: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A worker's private port; may be given again. Default: [http]."),
    ] = None,
    config: ConfigPath = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Move the position of a partition, past what cannot be read.

    Over a gap, say, where retention removed events while no worker ran: what lies between is never taken. Committed as
    everything else is; a partition that was halted serves again at once. Only forward, unless [worker] topic_epoch
    was raised.

    \b
    cartsync input skip 3 120000 --why "retention removed 118000 to 120000, told the shop"
    """
    from getpass import getuser
    from socket import gethostname

    from worker.config import state_sections
    from worker.tools.control import skip_input

    def owner() -> str | None:
        sections = state_sections(config)
        if sections is None:
            return None
        from worker.tools.state_topic import read_owner

        _only_the_last_line()
        return read_owner(partition, sections[0])

    who = f"{getuser()}@{gethostname()}"
    urls = [_url(each, config, token_file) for each in url or ()] or [_url(None, config, token_file)]
    raise typer.Exit(skip_input(partition, offset, why, urls, who=who, as_json=as_json, owner=owner))


@config_app.command("check")
def config_check(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Say everything that is wrong with it.

    Exit 0, or 64 with one line for each mistake.
    """
    settings = _load(config)
    if any(account.callback_secrets for account in settings.accounts.values()):
        from worker.config.receiving import receiver_config

        receiver_config(config)  # whoever is called back has a receiver with these settings
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

    if as_json:
        print(json.dumps(settings.redacted(), ensure_ascii=False, indent=2))
    else:
        print(config_text(settings), end="")


@config_app.command("init")
def config_init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write.")] = Path("cartsync.toml"),
    as_json: AsJson = False,
) -> None:
    """Write an example with every setting and its default.

    What is there already is never overwritten.
    """
    from importlib.resources import files

    example = files("worker.config").joinpath("cartsync.example.toml").read_bytes()
    try:
        with path.open("xb") as file:
            file.write(example)
    except FileExistsError:
        raise UsageError(f"{path}: is there already, and is left as it is; name another file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    print(json.dumps({"written": str(path)}) if as_json else f"written: {path}; then `cartsync config check`")


@callback_app.command("url")
def callback_url(
    account: Annotated[str, typer.Argument(help="As in [accounts.NAME].")],
    reference: Annotated[str, typer.Argument(help="Of the order; none where a seller has one address.")] = "",
    purpose: Annotated[str | None, typer.Option(metavar="P", help="Only this one. Default: all.")] = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Print the addresses that a provider is given for an order.

    Each holds a token of account, purpose and order: give it to the provider alone, and keep it out of logs.

    \b
    cartsync callback url hats A14/12345
    cartsync callback url hats A14/12345 --purpose order-status
    cartsync callback url escrow
    """
    from worker.config.receiving import callers
    from worker.tools.callback_addresses import print_addresses

    raise typer.Exit(print_addresses(*callers(config), account, reference, purpose, as_json=as_json))


@callback_app.command("verify")
def callback_verify(
    address: Annotated[str, typer.Argument(help="A URL, or its path.")],
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Say whether an address would be let in, and by which secret.

    Exit 0, or 1 when it would not.

    \b
    cartsync callback verify https://callbacks.example.com/callbacks/hats/order-status/ji73…/A14%2F12345
    """
    from worker.config.receiving import callers
    from worker.tools.callback_addresses import verify_address

    raise typer.Exit(verify_address(callers(config)[1], address, as_json=as_json))


@topics_app.command("check")
def topics_check(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Say what is wrong with the topics.

    Exit 0, or 72 when a worker would not start.
    """
    settings = _load(config)
    from worker.tools.topics import run_check

    _only_the_last_line()
    raise typer.Exit(run_check(settings, as_json=as_json))


@topics_app.command("create")
def topics_create(
    config: ConfigPath = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Of the event topic, when it is missing, too. Default: 12.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create the topics that are missing, then check all.

    \b
    cartsync topics create --partitions 12
    """
    settings = _load(config)
    from worker.tools.topics import run_create

    _only_the_last_line()
    raise typer.Exit(run_create(settings, partitions=partitions, as_json=as_json))


def _accepted_targets(given: list[str], settings: "Config") -> "dict[str, TargetChoice]":
    accepted: dict[str, TargetChoice] = {}
    for each in given:
        name, _, choice = each.rpartition("=")
        if name not in settings.accounts or choice not in ("send", "keep"):
            known = ", ".join(settings.accounts)
            raise UsageError(f"--accept-target {each}: expected ACCOUNT=send or ACCOUNT=keep, the accounts are {known}")
        accepted[name] = "send" if choice == "send" else "keep"
    return accepted


def _log_to_stderr(level: str = "warning") -> None:
    """What a tool prints is on stdout alone."""
    from worker import logs

    logs.configure(level="warning" if "--debug" in sys.argv[1:] else level, stream=sys.stderr)


def _only_the_last_line() -> None:
    """What went wrong is said once, at the end: what a library complains of on the way is for --debug."""
    _log_to_stderr("critical")


def _check_kafka(section: "KafkaSection") -> None:
    from worker.kafka.settings import KafkaSettings

    try:
        KafkaSettings(**section.members()).check()
    except ConfigError as error:
        raise ConfigError(f"[kafka] {error}") from None


def _load(path: Path | None) -> "Config":
    from worker.config import Config
    from worker.publisher.routes import routes_of

    def kafka_holds(config: Config) -> None:
        _check_kafka(config.kafka)

    def routes_hold(config: Config) -> None:
        routes_of(config.merchant_accounts())

    return Config.load(path, checks=[kafka_holds, routes_hold])


def _url(url: str | None, path: Path | None, token_file: Path | None) -> "Port":
    """Where the worker is, and with which token: a port that listens everywhere is asked on this machine."""
    from worker.config import http_section, read_secret
    from worker.tools.control import Port

    token = None if token_file is None else read_secret(token_file)
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(f"{token_file}: holds no token: one has no spaces, and is ASCII")
    try:
        http = http_section(path)
    except ConfigError:
        if url is None:
            raise
        return Port(url, token or "")  # who names the worker may have no configuration that is right here
    token = http.token.get_secret_value() if token is None else token
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(http.host, http.host)  # noqa: S104 - not bound, but asked
    return Port(http_url(host, http.port) if url is None else url, token)


def _redirect_stdout_to_devnull() -> None:
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
        except CartsyncError:
            if (logs := sys.modules.get("worker.logs")) is not None:
                logs.flush()  # what was logged comes before what it led to
            raise
        except SystemExit:
            sys.stdout.flush()  # what cannot be written is told below, not by the interpreter at its end
            raise
    except CartsyncError as error:
        if "--debug" in sys.argv[1:]:
            traceback.print_exception(error)
        lines = str(error).splitlines() or [type(error).__name__]
        if "--json" in sys.argv[1:]:
            problem = {"ok": False, "problems": lines, "exit_code": error.exit_code}
            print(json.dumps(problem, ensure_ascii=False), flush=True)
            sys.exit(error.exit_code)
        if len(lines) > 1:
            lines = [f"{len(lines)} problems:", *(f"  {line}" for line in lines)]
        sys.stderr.write("cartsync: " + "\n".join(lines) + "\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        _redirect_stdout_to_devnull()  # who reads has seen enough: `cartsync … | head`
        sys.exit(1)  # as the library says, when it is the one to notice
    except OSError as error:
        _redirect_stdout_to_devnull()
        sys.stderr.write(f"cartsync: {error.filename or 'the output'}: {error.strerror}\n")
        sys.exit(CartsyncError.exit_code)
    sys.exit(0)
