"""`cartsync order …` and `cartsync orders …`."""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.options import (
    AsJson,
    ConfigPath,
    Ref,
    TokenFile,
    Url,
    group,
    load_watched,
    only_the_last_line,
    worker_port,
)
from worker.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from schemas.views import OrderView
    from worker.model.account import Account

order_app = group("Inspect an order, or have it sent again.")
orders_app = group("Find orders.")


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
    from worker.tools.control import UnknownOrderError, show_order

    def read_topic(ref: str) -> "list[OrderView]":
        assert sections is not None
        from worker.tools.state_topic import read_orders

        only_the_last_line()
        accounts: Mapping[str, Account] = {}
        with suppress(ConfigError):  # a password file may be unreadable here: then account details are left out
            accounts = configured_accounts(config)
        return read_orders(ref, *sections, accounts)

    sections = state_sections(config)
    topic = None if sections is None else read_topic
    try:
        code = show_order(ref, worker_port(url, config, token_file), as_json=as_json, topic=topic)
    except UnknownOrderError as error:
        if sections is None:
            raise
        from worker.tools.unknown_order import why_unknown

        raise UnknownOrderError(f"{error}{why_unknown(ref, load_watched(config))}") from None
    raise typer.Exit(code)


@order_app.command("history")
def order_history(
    ref: Ref,
    config: ConfigPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> None:
    """Show what happened to an order, the newest 50 entries.

    Events taken, attempts with their answers and durations, holds, parkings, what operators did. From the history
    topic, which is read as a whole, without joining the group; no worker has to run.

    \b
    cartsync order history acme/A14
    cartsync order history A14 --json
    """
    from worker.tools.history import run_history

    settings = load_watched(config)
    only_the_last_line()
    raise typer.Exit(run_history(ref, settings, as_json=as_json))


@orders_app.command("list")
def orders_list(
    status: Annotated[
        list[str] | None, typer.Option(metavar="STATUS", help="owed, parked, … (a comma, or once more: or).")
    ] = None,
    account: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Of this account.")] = None,
    provider: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Of accounts with this provider.")] = None,
    reason: Annotated[str, typer.Option(metavar="WORDS", help="With each of these words in the reason.")] = "",
    older: Annotated[str, typer.Option(metavar="TIME", help="Waiting for so long: 30s, 15m, 6h, 2d.")] = "",
    reference: Annotated[
        str, typer.Option(metavar="START", help="Whose reference, or account/reference, begins so.")
    ] = "",
    differs: Annotated[
        bool, typer.Option("--differs", help="Whose amounts are not those that the provider has or paid.")
    ] = False,
    on_hold: Annotated[bool, typer.Option("--on-hold", help="Whose last request may still arrive.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, as the console exports it.")] = False,
    config: ConfigPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> None:
    """List the orders that match, from the state topic.

    The filters are those of the console. No worker has to run. The whole topic is read, without joining the group.
    Reasons are printed without what may be personal; `cartsync order show` has all of them.

    \b
    cartsync orders list --status parked --account acme --reason 409
    cartsync orders list --status owed --older 1h --json
    cartsync orders list --csv > orders.csv
    """
    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other")
    from urllib.parse import urlencode

    from worker.web.console.asked import Query, filter_of

    asked = {
        "status": status or (),
        "account": account or (),
        "provider": provider or (),
        "reason": reason,
        "older": older,
        "q": reference,
        "differs": int(differs),
        "on_hold": int(on_hold),
    }
    wanted = filter_of(Query(urlencode(asked, doseq=True)))
    settings = load_watched(config)
    from worker.tools.orders_list import run_list

    only_the_last_line()
    raise typer.Exit(run_list(settings, wanted, "csv" if as_csv else "json" if as_json else "text"))
