"""`cartsync account …`."""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.options import (
    AsJson,
    ConfigPath,
    TokenFile,
    Url,
    group,
    load_watched,
    only_the_last_line,
    worker_port,
)
from worker.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from worker.model.account import Account

account_app = group("Merchant accounts.")


@account_app.command("list")
def account_list(
    orders: Annotated[
        bool, typer.Option("--orders/--no-orders", help="Count the orders that are owed and parked.")
    ] = True,
    config: ConfigPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> None:
    """List the accounts, and by whom each is paused.

    Reads the configuration and the whole state topic; no worker is asked. What a worker has paused itself, such as for
    a wrong password, `cartsync status` shows.

    \b
    cartsync account list
    cartsync account list --no-orders --json
    """
    from worker.config import configured_accounts
    from worker.tools.accounts_list import run_list

    settings = load_watched(config)
    accounts: Mapping[str, Account] = {}
    with suppress(ConfigError):  # a secret may be unreadable here: then that is left out for which it is not needed
        accounts = configured_accounts(config)
    only_the_last_line()
    raise typer.Exit(run_list(settings, accounts, with_orders=orders, as_json=as_json))


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
    page_id, asked = page_taken or page_not_taken, worker_port(url, config, token_file)
    raise typer.Exit(report_now(name, asked, page_id=page_id, is_taken=bool(page_taken), as_json=as_json))
