"""`cartsync order release`, `cartsync account resume` and the other commands of operators, made from their table."""

from typing import Annotated

import typer

from worker.cli.accounts import account_app
from worker.cli.options import AsJson, ConfigPath, Ref, TokenFile, Url, worker_port
from worker.cli.orders import order_app
from worker.core.commands import COMMANDS, Command
from worker.errors import UsageError


def add_commands() -> None:
    """Adds each command to the group of what it is about."""
    for command in COMMANDS.values():
        _add_command(command)


def _add_command(command: Command) -> None:
    """An operator's command (`core.commands`): `order NAME` or `account NAME`."""

    def of_order(
        ref: Ref,
        url: Url = None,
        config: ConfigPath = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> None:
        from worker.tools.control import operate

        raise typer.Exit(operate(command, ref, worker_port(url, config, token_file), as_json=as_json))

    def of_parked(
        ref: Annotated[str | None, typer.Argument(help="As for show; leave out with --all.")] = None,
        every: Annotated[bool, typer.Option("--all", help="All parked orders of --account.")] = False,
        account: Annotated[
            str | None, typer.Option(metavar="NAME", help="With --all: the NAME in [accounts.NAME].")
        ] = None,
        reason_contains: Annotated[
            str, typer.Option(metavar="TEXT", help="With --all: only orders whose reason contains TEXT.")
        ] = "",
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
            of_order(ref, url, config, token_file, as_json)
        if ref is not None or account is None:
            raise UsageError("--all needs --account NAME, and takes no order")
        asked = worker_port(url, config, token_file)
        raise typer.Exit(operate_parked(command, account, reason_contains, asked, as_json=as_json))

    def of_account(
        name: Annotated[str, typer.Argument(help="The NAME in [accounts.NAME].")],
        url: Url = None,
        config: ConfigPath = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> None:
        of_order(name, url, config, token_file, as_json)

    if command.about == "account":
        account_app.command(command.name, help=command.help)(of_account)
    else:
        order_app.command(command.name, help=command.help)(of_parked if command.of_parked else of_order)
