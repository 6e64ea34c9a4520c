"""`cartsync console …`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from worker.cli.options import AsJson, ConfigPath, check_kafka, group
from worker.errors import UsageError

console_app = group("See every order, in a browser.", is_command=True)
user_app = group("Who may sign in at a console.")
console_app.add_typer(user_app, name="user")

UsersFile = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="Default: [console] users_file of the configuration.")
]


@console_app.callback()
def console(
    context: typer.Context,
    config: ConfigPath = None,
    host: Annotated[str | None, typer.Option(metavar="HOST", help="Instead of [console] host.")] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", min=0, max=65_535, help="Instead of [console] port; 0: any free port.")
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65_535, help="Instead of [console] metrics_port; 0: none."),
    ] = None,
    beside: Annotated[
        str | None,
        typer.Option(metavar="URL", hidden=True, help="Of the worker that started it, with which it ends."),
    ] = None,
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

    settings = console_config(config, host=host, port=port, metrics_port=metrics_port)
    check_kafka(settings.kafka)
    from worker.tools.console.run import run_console

    raise typer.Exit(run_console(settings, beside or ""))


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
