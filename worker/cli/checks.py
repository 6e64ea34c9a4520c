"""Commands that look at everything and change nothing: `status`, `doctor` and `reconcile`."""

from contextlib import suppress
from typing import Annotated

import typer

from worker.cli.options import AsJson, ConfigPath, check_kafka, load_config, load_watched, only_the_last_line
from worker.errors import ConfigError


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

    A provider that can be read is asked for each order; one that cannot has to have paid out what was shipped and kept.
    Orders are read from the state topic. Nothing is changed anywhere, and workers may go on: an order that changes
    meanwhile is compared again.

    Each difference says who is owed what, and what to do. Exit 0: none; 1: there are some; 64, 75: not everything could
    be compared; 130: Ctrl-C. What was found until then is printed, and said to be partial.

    \b
    cartsync reconcile
    cartsync reconcile hats --rate 2
    cartsync reconcile acme --fetch --json > differences.jsonl
    """
    from worker.config import configured_accounts, http_section, missing_file, refused, state_sections

    sections = state_sections(config)
    if sections is None:
        raise refused(["[kafka] is not configured: orders are read from the state topic", *missing_file(config)])
    settings = configured_accounts(config)
    if not settings:
        raise ConfigError("[accounts]: no account is configured; add [accounts.NAME]")
    from worker.tools.reconcile import Wishes, run_reconcile

    only_the_last_line()
    wishes = Wishes(tuple(accounts or ()), rate, payout_days, fetch, every, as_json)
    raise typer.Exit(run_reconcile(wishes, *sections, http_section(config), settings))


def status(
    url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="Private port of a worker; repeatable. Default: [console] workers, else from [http]."
        ),
    ] = None,
    orders: Annotated[
        bool, typer.Option("--orders/--no-orders", help="Count orders and dead letters, which reads both topics.")
    ] = True,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Show all workers and partitions, and what needs a person.

    Who serves them, how far they are, and what waits. Read from the consumer group and the state topic, so it does
    not matter where workers run. Phase and lease are known of workers whose private ports can be asked.

    \b
    cartsync status
    cartsync status --no-orders --url http://10.0.0.7:8080 --url http://10.0.0.8:8080
    """
    settings = load_watched(config)
    from worker.tools.fleet import run_status

    only_the_last_line()
    raise typer.Exit(run_status(settings, url or (), with_orders=orders, as_json=as_json))


def doctor(
    config: ConfigPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> None:
    """Look at everything that has to work, and say what to do.

    The configuration; Kafka's brokers, topics, permissions and clock; of each account the provider's name, certificate
    and credentials, by a read that changes nothing. For the clock a transaction is begun and aborted. Run it where a
    worker is to run, as whom it is to run.

    Exit 0: all works; 1: something failed.

    \b
    cartsync doctor
    """
    from worker.config import HttpSection, configured_accounts, http_section, state_sections
    from worker.tools.doctor import run_doctor

    only_the_last_line()
    problems: list[str] = []
    try:
        load_config(config)
    except ConfigError as error:
        problems = str(error).splitlines()
    sections, http, accounts = None, HttpSection(), {}
    with suppress(ConfigError):
        sections = state_sections(config)
        if sections is not None:
            check_kafka(sections[0])
    with suppress(ConfigError):
        http = http_section(config)
    with suppress(ConfigError):
        accounts = configured_accounts(config)
    raise typer.Exit(run_doctor(problems, sections, http, accounts, as_json=as_json))
