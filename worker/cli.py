"""The command line. Each command imports the module that does its work only when it runs, so that help is instant."""

# ruff: noqa: PLC0415 - imports inside commands: each loads only what it needs

import json
import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from worker import __version__, http_url
from worker.core.commands import COMMANDS, Command
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
    no_args_is_help=True, help="Inspect an order, or have it sent again.", rich_markup_mode=None, context_settings=_HELP
)
account_app = typer.Typer(
    no_args_is_help=True, help="Merchant accounts.", rich_markup_mode=None, context_settings=_HELP
)
config_app = typer.Typer(no_args_is_help=True, help="The configuration.", rich_markup_mode=None, context_settings=_HELP)
input_app = typer.Typer(
    no_args_is_help=True, help="The position in the event topic.", rich_markup_mode=None, context_settings=_HELP
)
callback_app = typer.Typer(
    no_args_is_help=True, help="The URLs that providers call back.", rich_markup_mode=None, context_settings=_HELP
)
console_app = typer.Typer(
    invoke_without_command=True,
    help="See every order, in a browser.",
    rich_markup_mode=None,
    context_settings=_HELP,
)
user_app = typer.Typer(
    no_args_is_help=True, help="Who may sign in at a console.", rich_markup_mode=None, context_settings=_HELP
)
topics_app = typer.Typer(no_args_is_help=True, help="The Kafka topics.", rich_markup_mode=None, context_settings=_HELP)
app.add_typer(order_app, name="order")
app.add_typer(account_app, name="account")
app.add_typer(config_app, name="config")
app.add_typer(callback_app, name="callback")
app.add_typer(topics_app, name="topics")
app.add_typer(input_app, name="input")
app.add_typer(console_app, name="console")
console_app.add_typer(user_app, name="user")

ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Default: $CARTSYNC_CONFIG, else ./cartsync.toml."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[
    str | None,
    typer.Option(metavar="URL", help="URL of the worker's private port. Default: from [http] in the configuration."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File with the worker's [http] token. Default: the token in the configuration."),
]
Why = Annotated[str, typer.Option(metavar="TEXT", help="The reason: kept with the event, at most 500 characters.")]
By = Annotated[str, typer.Option(metavar="NAME", help="Who does it. Default: USER@HOST.")]
Ref = Annotated[str, typer.Argument(help="account/reference, or the reference alone if only one account has it.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cartsync {__version__}")
        raise typer.Exit


@app.callback()
def cartsync(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, and the warnings of libraries.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Keeps payment providers in sync with the state of each order.

    Reads order events from Kafka, computes each order's shipped and unshipped cart, and sends the changes.

    \b
    cartsync demo                          see it work; needs nothing else
    cartsync scenario tests/scenarios      check expectations written as files
    cartsync replay events.jsonl           print what would be sent for these events
    cartsync config check                  check the configuration
    cartsync topics create                 create the Kafka topics
    cartsync run                           run a worker
    cartsync receive                       receive callbacks from providers
    cartsync order show acme/A14           show an order, and what is blocking it, if anything
    cartsync reconcile                     compare every order with what its provider has
    cartsync console                       see every order in a browser
    """


@app.command()
def run(
    config: ConfigPath = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Bind the private port to this host; overrides [http] host.")
    ] = None,
    accept_target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ACCOUNT=send|keep", help="Accept that the account's URL or merchant has changed; repeatable."
        ),
    ] = None,
    adopt_state: Annotated[
        bool,
        typer.Option("--adopt-state", help="Take over the state of another deployment, which has stopped."),
    ] = False,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C.

    The first signal drains, which takes a few seconds (24 at most). A second one exits immediately, and the next owner
    must hold the orders it had in flight. SIGHUP rereads secrets and accounts. If an account's base_url, merchant_id or
    provider differs from where its orders were sent, the worker refuses to start until you decide: send (all of them
    are sent again) or keep (they count as acknowledged).

    A state topic belongs to one deployment (group_id, transactional_id_prefix, event topic, cluster). If you changed
    one of these on purpose, stop all workers and start the first one with --adopt-state.

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
        str | None, typer.Option(metavar="HOST", help="Bind the private port to this host; overrides [http] host.")
    ] = None,
) -> None:
    """Receive callbacks from providers until SIGTERM or Ctrl-C.

    Opens the public port ([callbacks] host, port), and a private one for probes and metrics. Each callback is written
    to the event topic before it is acknowledged to the provider. Any number of receivers may run; all that each needs
    is permission to write to the event topic. Terminate TLS in front of it. SIGHUP rereads accounts and secrets.

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
    orders: Annotated[int, typer.Option(min=1, max=100_000, help="Orders of all shops together.")] = 300,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long the shops place orders.")] = 15.0,
    seed: Annotated[int, typer.Option(help="Random seed: another seed, another history.")] = 1,
    kafka: Annotated[bool, typer.Option("--kafka", help="Use a real Kafka on this machine (needs Java).")] = False,
    console: Annotated[bool, typer.Option("--console", help="Also open the console, until Ctrl-C.")] = False,
    console_port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free port.")] = 8082,
) -> None:
    """See it work: three shops, three providers, one worker.

    The providers fail, and call back late, twice, and in the wrong order.

    Everything runs on this machine and needs nothing else. Exit 0 if all orders agree in the end, 1 if not. Afterwards
    `cartsync order show` shows single orders.

    \b
    cartsync demo
    cartsync demo --orders 1000 --seconds 30 --seed 7
    """
    from worker.tools.demo import run_demo

    port = console_port if console else None
    raise typer.Exit(run_demo(orders=orders, seconds=seconds, seed=seed, kafka=kafka, console_port=port))


@app.command()
def scenario(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files, or folders of *.json.")],
    as_json: AsJson = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a JUnit report for CI.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Explain what each event changes, and why.")] = False,
) -> None:
    """Check that events lead to the expected updates.

    Real worker, scripted provider, virtual time: no broker, no network, no waiting. Exit 0, 1 (a difference was found)
    or 2 (an unreadable file).

    \b
    cartsync scenario my-shop/
    cartsync scenario returns.json --junit report.xml
    cartsync scenario returns.json --explain
    """
    if explain:
        if junit is not None:
            raise typer.BadParameter("--explain checks nothing, so there is nothing to report to --junit")
        from worker.tools.scenario.explain import explain_files

        raise typer.Exit(explain_files(paths, as_json))
    from worker.tools.scenario import run_files

    raise typer.Exit(run_files(paths, as_json, junit))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="CloudEvents, one JSON object per line.")],
    send: Annotated[
        bool,
        typer.Option(
            "--send/--dry-run", help="Send the updates, overwriting what the provider has. Default: only print them."
        ),
    ] = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Print the updates for the events of a file, without Kafka.

    With --send they are sent and overwrite what the provider has for these orders: never do so while workers are
    running. The accounts are those of the configuration; without any, and without --send, an account `acme` is made up.

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
def reconcile(
    accounts: Annotated[
        list[str] | None, typer.Argument(metavar="ACCOUNT…", help="As in [accounts.NAME]. Default: all.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            min=0.01,
            max=10_000,
            help="Requests a second to each provider, at most. Default: 10; never above the account's rate_per_s.",
        ),
    ] = None,
    fetch: Annotated[
        bool,
        typer.Option(
            "--fetch",
            help="seQura: read all disbursements from seQura. Default: what was read of them already, unless the "
            "account's disbursements are off.",
        ),
    ] = False,
    payout_days: Annotated[
        int,
        typer.Option(
            metavar="DAYS", min=0, max=3650, help="seQura: how long after a change it may take to be paid out."
        ),
    ] = 31,
    every: Annotated[
        bool, typer.Option("--all", help="List orders that are not final or were not compared; with --json all.")
    ] = False,
    config: ConfigPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one object a line, a summary last.")] = False,
) -> None:
    """Compare every order with what its provider has.

    Qliro is asked with GetOrder, AtaraPay with Order Status; seQura, which cannot be asked, has to have paid out what
    was shipped and kept. Orders are read from the state topic. Nothing is changed anywhere, and workers may go on: an
    order that changes meanwhile is compared again.

    Each difference says who is owed what, and what to do. Exit 0: none; 1: there are some; 64, 75: not everything could
    be compared; 130: Ctrl-C. What was found until then is printed, and said to be partial.

    \b
    cartsync reconcile
    cartsync reconcile hats --rate 2
    cartsync reconcile acme --fetch --json > differences.jsonl
    """
    from worker.config import configured_accounts, http_section, state_sections

    sections = state_sections(config)
    if sections is None:
        raise ConfigError("[kafka] is not configured: orders are read from the state topic")
    settings = configured_accounts(config)
    if not settings:
        raise ConfigError("[accounts]: no account is configured; add [accounts.NAME]")
    from worker.tools.reconcile import Wishes, run_reconcile

    _only_the_last_line()
    wishes = Wishes(tuple(accounts or ()), rate, payout_days, fetch, every, as_json)
    raise typer.Exit(run_reconcile(wishes, *sections, http_section(config), settings))


@app.command()
def sandbox(
    provider: Annotated[str, typer.Option(metavar="sequra|qliro|atarapay", help="The provider to fake.")] = "sequra",
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free port.")] = 8090,
    account: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CREDENTIALS",
            help="sequra MERCHANT:USER:PASSWORD, repeatable (acme:user:secret); qliro KEY:SECRET "
            "(HATS:secret); atarapay PUBLIC_KEY:PRIVATE_KEY (public:private).",
        ),
    ] = None,
    faults: Annotated[str, typer.Option(help="Faults and their rates: 500=0.05,reset_applied=0.02")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the fault generator.")] = 0,
    callback_url: Annotated[
        str, typer.Option(metavar="URL", help="Where AtaraPay's notifications go (`cartsync callback url` prints it).")
    ] = "",
) -> None:
    """Run a local fake provider to try things against.

    Responds and calls back as the provider does, until Ctrl-C. Open it in a browser to see its orders. Place orders
    with POST /checkout (seQura creates one at its first update), trigger events with POST /acts; the page explains.

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
    """Show an order, and what is blocking it, if anything.

    Its carts, what was acknowledged, what comes next. Asks the worker; if it does not answer or does not serve the
    order, reads the state topic; if no Kafka is configured, reads what the last demo left behind.

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
        with suppress(ConfigError):  # a password file may be unreadable here: then account details are left out
            accounts = configured_accounts(config)
        return read_orders(ref, *sections, accounts)

    sections = state_sections(config)
    topic = None if sections is None else read_topic
    raise typer.Exit(show_order(ref, _url(url, config, token_file), as_json=as_json, topic=topic))


def _add_command(command: Command) -> None:
    """An operator's command (`core.commands`): `order NAME` or `account NAME`."""

    def of_order(
        ref: Ref,
        why: Why = "",
        by: By = "",
        url: Url = None,
        config: ConfigPath = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> None:
        if command.needs_why and not why:
            raise UsageError(f"{command.about} {command.name} needs a reason: --why TEXT")
        who = by or _whoever()
        raise typer.Exit(_operated(command, ref, who, why, url, config, token_file, as_json=as_json))

    def of_parked(
        ref: Annotated[str | None, typer.Argument(help="As for show; leave out with --all.")] = None,
        every: Annotated[bool, typer.Option("--all", help="All parked orders of --account.")] = False,
        account: Annotated[
            str | None, typer.Option(metavar="NAME", help="With --all: the NAME in [accounts.NAME].")
        ] = None,
        reason_contains: Annotated[
            str, typer.Option(metavar="TEXT", help="With --all: only orders whose reason contains TEXT.")
        ] = "",
        why: Why = "",
        by: By = "",
        url: Url = None,
        config: ConfigPath = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> None:
        from worker.tools.control import operate_parked

        if not every:
            if ref is None or account is not None or reason_contains:
                raise UsageError(
                    "name one order (account/reference), or pass --all --account NAME [--reason-contains TEXT]"
                )
            of_order(ref, why, by, url, config, token_file, as_json)
        if ref is not None or account is None:
            raise UsageError("--all needs --account NAME, and takes no order")
        who, asked = by or _whoever(), _url(url, config, token_file)
        raise typer.Exit(operate_parked(command, account, reason_contains, asked, who=who, why=why, as_json=as_json))

    def of_account(
        name: Annotated[str, typer.Argument(help="The NAME in [accounts.NAME].")],
        why: Why = "",
        by: By = "",
        url: Url = None,
        config: ConfigPath = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> None:
        of_order(name, why, by, url, config, token_file, as_json)

    if command.about == "account":
        account_app.command(command.name, help=command.help)(of_account)
    else:
        order_app.command(command.name, help=command.help)(of_parked if command.of_parked else of_order)


def _operated(
    command: Command,
    target: str,
    who: str,
    why: str,
    url: str | None,
    config: Path | None,
    token_file: Path | None,
    *,
    as_json: bool,
) -> int:
    """By an event, where the configuration has what makes workers believe it; by the private port where a worker's is
    named, or without.
    """
    from worker.config import operator_sections

    if url is None and (sections := operator_sections(config)) is not None and sections[1].can_sign:
        from worker.tools.operating_kafka import operate_by_event

        _only_the_last_line()
        return operate_by_event(command, target, *sections, who=who, why=why, as_json=as_json)
    from worker.tools.control import operate

    return operate(command, target, _url(url, config, token_file), who=who, why=why, as_json=as_json)


def _whoever() -> str:
    """Who is at this machine."""
    from getpass import getuser
    from socket import gethostname

    return f"{getuser()}@{gethostname()}"


for _command in COMMANDS.values():
    _add_command(_command)


@account_app.command("report")
def account_report(
    name: Annotated[str, typer.Argument(help="The NAME in [accounts.NAME].")],
    page_taken: Annotated[
        str, typer.Option("--page-taken", metavar="ID", help="The provider did accept this page, which is stuck.")
    ] = "",
    page_not_taken: Annotated[
        str, typer.Option("--page-not-taken", metavar="ID", help="The provider did not accept this page.")
    ] = "",
    url: Url = None,
    config: ConfigPath = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Run an account's jobs now: its delivery report, its disbursements.

    A page of a report is stuck if the provider may have accepted it and has rejected it four times since: find out
    whether the provider has it, and pass the answer with the ID that the log (report_stuck) and /status show. Returns
    once it is committed. Run it for each worker.

    \b
    cartsync account report acme
    cartsync account report acme --page-not-taken 5f1c07a9b2d4
    """
    from worker.tools.control import report_now

    if page_taken and page_not_taken:
        raise UsageError("--page-taken and --page-not-taken exclude each other")
    page_id, asked = page_taken or page_not_taken, _url(url, config, token_file)
    raise typer.Exit(report_now(name, asked, page_id=page_id, is_taken=bool(page_taken), as_json=as_json))


@input_app.command("skip")
def input_skip(
    partition: Annotated[int, typer.Argument(min=0, help="A partition of the event topic.")],
    offset: Annotated[int, typer.Argument(min=0, help="The next offset to read.")],
    why: Annotated[str, typer.Option(metavar="TEXT", help="The reason, for the log (which also records who did it).")],
    url: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="URL of a worker's private port; repeatable. Default: from [http]."),
    ] = None,
    config: ConfigPath = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Move the position of a partition past events that cannot be read.

    For example past a gap where retention removed events while no worker ran: everything in between is never applied.
    Committed like everything else; a halted partition serves again immediately. Only moves forward, unless [worker]
    topic_epoch was raised.

    \b
    cartsync input skip 3 120000 --why "retention removed 118000 to 120000, told the shop"
    """
    from worker.config import state_sections
    from worker.tools.control import skip_input

    def owner() -> str | None:
        sections = state_sections(config)
        if sections is None:
            return None
        from worker.tools.state_topic import read_owner

        _only_the_last_line()
        return read_owner(partition, sections[0])

    who = _whoever()
    urls = [_url(each, config, token_file) for each in url or ()] or [_url(None, config, token_file)]
    raise typer.Exit(skip_input(partition, offset, why, urls, who=who, as_json=as_json, owner=owner))


@config_app.command("check")
def config_check(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Check the configuration, and print everything that is wrong with it.

    Exit 0, or 64 with one line for each mistake.
    """
    settings = _load(config)
    if any(account.callback_secrets for account in settings.accounts.values()):
        from worker.config.receiving import receiver_config

        receiver_config(config)  # a deployment with callbacks has a receiver that reads these settings
    accounts = ", ".join(settings.accounts)
    print(json.dumps({"ok": True, "problems": []}) if as_json else f"the configuration is valid; accounts: {accounts}")


@config_app.command("print")
def config_print(
    config: ConfigPath = None,
    as_json: AsJson = False,
    redacted: Annotated[bool, typer.Option("--redacted", help="Does nothing: secrets are always shown as ***.")] = True,  # noqa: ARG001
) -> None:
    """Print the effective configuration, and where each setting comes from.

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

    Never overwrites an existing file.
    """
    from importlib.resources import files

    example = files("worker.config").joinpath("cartsync.example.toml").read_bytes()
    try:
        with path.open("xb") as file:
            file.write(example)
    except FileExistsError:
        raise UsageError(f"{path}: already exists and was not changed; name another file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    print(json.dumps({"written": str(path)}) if as_json else f"written: {path}; then `cartsync config check`")


@callback_app.command("url")
def callback_url(
    account: Annotated[str, typer.Argument(help="The NAME in [accounts.NAME].")],
    reference: Annotated[
        str, typer.Argument(help="The order's reference; leave out for a provider that has one URL per seller.")
    ] = "",
    purpose: Annotated[str | None, typer.Option(metavar="P", help="Only this purpose. Default: all.")] = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Print the callback URLs to give to a provider for an order.

    Each contains a token for its account, purpose and order: give it to the provider only, and keep it out of logs.

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
    """Check whether a callback URL would be accepted, and by which secret.

    Exit 0, or 1 if it would not.

    \b
    cartsync callback verify https://callbacks.example.com/callbacks/hats/order-status/ji73…/A14%2F12345
    """
    from worker.config.receiving import callers
    from worker.tools.callback_addresses import verify_address

    raise typer.Exit(verify_address(callers(config)[1], address, as_json=as_json))


@topics_app.command("check")
def topics_check(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Check the topics, and print what is wrong with them.

    Exit 0, or 72 if a worker would not start.
    """
    settings = _load(config)
    from worker.tools.topics import run_check

    _only_the_last_line()
    raise typer.Exit(run_check(settings, as_json=as_json))


@topics_app.command("create")
def topics_create(
    config: ConfigPath = None,
    partitions: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Partitions of the event topic, if it has to be created. Default: 12."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create the missing topics, then check all of them.

    \b
    cartsync topics create --partitions 12
    """
    settings = _load(config)
    from worker.tools.topics import run_create

    _only_the_last_line()
    raise typer.Exit(run_create(settings, partitions=partitions, as_json=as_json))


@console_app.callback()
def console(
    context: typer.Context,
    config: ConfigPath = None,
    host: Annotated[str | None, typer.Option(metavar="HOST", help="Instead of [console] host.")] = None,
) -> None:
    """See every order, in a browser, until SIGTERM or Ctrl-C.

    Reads the state topic, dead letters and results, and keeps an index of them in a file ([console] index). Any number
    of consoles may run, each with a file of its own. It needs no credentials of a provider; it acts through the private
    ports of workers ([console] workers). Whom it lets in says [console] auth.

    \b
    cartsync console
    cartsync console user add ana --role operator
    """
    if context.invoked_subcommand is not None:
        return
    from worker.config.console import console_config

    settings = console_config(config, host=host)
    _check_kafka(settings.kafka)
    from worker.tools.console.run import run_console

    raise typer.Exit(run_console(settings))


UsersFile = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="Default: [console] users_file of the configuration.")
]


@user_app.command("add")
def console_user_add(
    name: Annotated[str, typer.Argument(help="Letters, digits and . _ @ + -")],
    role: Annotated[
        str, typer.Option(metavar="viewer|operator", help="viewer: looks; operator: acts, too.")
    ] = "viewer",
    file: UsersFile = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Add a user, or give one another password or role.

    The password is asked for, or read from standard input. Consoles read the file again by themselves.

    \b
    cartsync console user add ana --role operator
    """
    if role not in ("viewer", "operator"):
        raise UsageError(f"--role {role}: expected viewer or operator")
    from worker.tools.console.users import add_user

    chosen: Literal["viewer", "operator"] = "operator" if role == "operator" else "viewer"
    raise typer.Exit(add_user(_users_file(file, config), name, chosen, as_json=as_json))


@user_app.command("remove")
def console_user_remove(
    name: Annotated[str, typer.Argument(help="As it was added.")],
    file: UsersFile = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Remove a user."""
    from worker.tools.console.users import drop_user

    raise typer.Exit(drop_user(_users_file(file, config), name, as_json=as_json))


@user_app.command("list")
def console_user_list(file: UsersFile = None, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """List the users, and their roles."""
    from worker.tools.console.users import list_users

    raise typer.Exit(list_users(_users_file(file, config), as_json=as_json))


def _users_file(file: Path | None, config: Path | None) -> Path:
    if file is not None:
        return file
    from worker.config.console import users_file

    if found := users_file(config):
        return Path(found)
    raise UsageError("name the file with --file, or set [console] users_file")


def _accepted_targets(given: list[str], settings: "Config") -> "dict[str, TargetChoice]":
    accepted: dict[str, TargetChoice] = {}
    for each in given:
        name, _, choice = each.rpartition("=")
        if name not in settings.accounts or choice not in ("send", "keep"):
            known = ", ".join(settings.accounts)
            raise UsageError(f"--accept-target {each}: expected ACCOUNT=send or ACCOUNT=keep; accounts: {known}")
        accepted[name] = "send" if choice == "send" else "keep"
    return accepted


def _log_to_stderr(level: str = "warning") -> None:
    """Keeps stdout free for the tool's own output."""
    from worker import logs

    logs.configure(level="warning" if "--debug" in sys.argv[1:] else level, stream=sys.stderr)


def _only_the_last_line() -> None:
    """Silences the libraries: an error is printed once, at the end. --debug still shows their warnings."""
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

    def check_kafka(config: Config) -> None:
        _check_kafka(config.kafka)

    def check_routes(config: Config) -> None:
        routes_of(config.merchant_accounts())

    return Config.load(path, checks=[check_kafka, check_routes])


def _url(url: str | None, path: Path | None, token_file: Path | None) -> "Port":
    """The worker's URL and token. A port that is bound to all interfaces is reached on loopback."""
    from worker.config import http_section, read_secret
    from worker.tools.control import Port

    token = None if token_file is None else read_secret(token_file)
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(f"{token_file}: not a token (expected ASCII without spaces)")
    try:
        http = http_section(path)
    except ConfigError:
        if url is None:
            raise
        return Port(url, token or "")  # with --url no valid configuration is needed on this machine
    token = http.token.get_secret_value() if token is None else token
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(http.host, http.host)  # noqa: S104 - connected to, not bound
    return Port(http_url(host, http.port) if url is None else url, token)


def _redirect_stdout_to_devnull() -> None:
    """Otherwise the interpreter flushes stdout once more as it exits, and reports the same error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> NoReturn:
    """The program: runs a command and ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot print ñ must not end a command
    try:
        try:
            app(prog_name="cartsync")
        except CartsyncError:
            if (logs := sys.modules.get("worker.logs")) is not None:
                logs.flush()  # so that the log lines come before the error that they led to
            raise
        except SystemExit:
            sys.stdout.flush()  # so that a failure is reported below, not by the interpreter as it exits
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
        _redirect_stdout_to_devnull()  # the reader has seen enough: `cartsync … | head`
        sys.exit(1)  # as click does when it notices first
    except OSError as error:
        _redirect_stdout_to_devnull()
        sys.stderr.write(f"cartsync: {error.filename or 'the output'}: {error.strerror}\n")
        sys.exit(CartsyncError.exit_code)
    sys.exit(0)
