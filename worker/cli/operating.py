"""`cartsync order release`, `cartsync account resume` and the other commands of operators, made from their table."""

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.accounts import account_app
from worker.cli.options import (
    AsJson,
    By,
    ConfigPath,
    Ref,
    TokenFile,
    Url,
    Why,
    only_the_last_line,
    worker_port,
)
from worker.cli.orders import order_app
from worker.core.commands import COMMANDS, Command
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.config import KafkaSection
    from worker.core.trust import Trust


def add_commands() -> None:
    """Adds each command to the group of what it is about."""
    for command in COMMANDS.values():
        _add_command(command)


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
        from worker.tools.control import who

        raise typer.Exit(_operated(command, ref, by or who(), why, url, config, token_file, as_json=as_json))

    def of_parked(
        ref: Annotated[str | None, typer.Argument(help="As for show; leave out with --all.")] = None,
        every: Annotated[bool, typer.Option("--all", help="All parked orders of --account.")] = False,
        account: Annotated[
            str | None, typer.Option(metavar="NAME", help="With --all: the NAME in [accounts.NAME].")
        ] = None,
        reason_contains: Annotated[
            str, typer.Option(metavar="TEXT", help="With --all: only orders whose reason contains TEXT.")
        ] = "",
        rate: Annotated[
            float, typer.Option(metavar="N", min=0.01, max=100_000, help="With --all: events a second, at most.")
        ] = 100.0,
        why: Why = "",
        by: By = "",
        url: Url = None,
        config: ConfigPath = None,
        token_file: TokenFile = None,
        as_json: AsJson = False,
    ) -> None:
        from worker.tools.control import operate_parked, who

        if not every:
            if ref is None or account is not None or reason_contains:
                raise UsageError(
                    "name one order (account/reference), or pass --all --account NAME [--reason-contains TEXT]"
                )
            of_order(ref, why, by, url, config, token_file, as_json)
        if ref is not None or account is None:
            raise UsageError("--all needs --account NAME, and takes no order")
        doer = by or who()
        _check_account(account, url, config)
        if (sections := _by_event(url, config)) is not None:
            from worker.tools.operating_kafka import operate_parked_by_event

            only_the_last_line()
            kafka, trust = sections
            raise typer.Exit(
                operate_parked_by_event(
                    command, account, reason_contains, kafka, trust, who=doer, why=why, per_s=rate, as_json=as_json
                )
            )
        asked = worker_port(url, config, token_file)
        raise typer.Exit(operate_parked(command, account, reason_contains, asked, who=doer, why=why, as_json=as_json))

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
    if command.about == "account":
        _check_account(target, url, config)
    if (sections := _by_event(url, config)) is not None:
        from worker.tools.operating_kafka import operate_by_event

        only_the_last_line()
        return operate_by_event(command, target, *sections, who=who, why=why, as_json=as_json)
    from worker.tools.control import operate

    return operate(command, target, worker_port(url, config, token_file), who=who, why=why, as_json=as_json)


def _check_account(name: str, url: str | None, config: Path | None) -> None:
    """Raises `UsageError` for an account that the configuration does not have, while it has others: an event about it
    would be taken by every partition all the same. A worker that is named by its URL knows its own.
    """
    from worker.config import account_names

    if url is None and (known := account_names(config)) and name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"configured are {', '.join(sorted(known))}"
        raise UsageError(f"no account {name}; {hint}")


def _by_event(url: str | None, config: Path | None) -> "tuple[KafkaSection, Trust] | None":
    """By events, where the configuration has what makes workers believe them; `None`: by the private port, where a
    worker's is named, or without.
    """
    from worker.config import operator_sections

    sections = None if url is not None else operator_sections(config)
    return sections if sections is not None and sections[1].can_sign else None
