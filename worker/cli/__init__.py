"""The command line. Each command imports the module that does its work only when it runs, so that help is instant."""

import json
import os
import sys
import traceback
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer

from worker import __version__
from worker.cli.accounts import account_app
from worker.cli.checks import doctor, reconcile, status
from worker.cli.configuration import callback_app, config_app
from worker.cli.consoles import console_app
from worker.cli.files import replay, scenario
from worker.cli.letters import letters_app
from worker.cli.migrating import migrate_app
from worker.cli.operating import add_commands
from worker.cli.options import HELP, AsJson
from worker.cli.orders import order_app, orders_app
from worker.cli.processes import demo, receive, run, sandbox
from worker.cli.state import state_app
from worker.cli.topics import input_app, topics_app
from worker.errors import CartsyncError, exit_codes

app = typer.Typer(
    name="cartsync",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=HELP,
    epilog=exit_codes(),
)


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
    cartsync status                        all workers and partitions, and what needs a person
    cartsync order show acme/A14           show an order, and what is blocking it, if anything
    cartsync orders list --status parked   find orders
    cartsync dlq list                      events that were refused
    cartsync reconcile                     compare every order with what its provider has
    cartsync console                       see every order in a browser
    """


def version(as_json: AsJson = False) -> None:
    """Print the version."""
    print(json.dumps({"version": __version__}) if as_json else f"cartsync {__version__}")


add_commands()
for _command in (run, receive, status, doctor, demo, scenario, replay, reconcile, sandbox, version):
    app.command()(_command)
for _name, _group in (
    ("order", order_app),
    ("orders", orders_app),
    ("dlq", letters_app),
    ("state", state_app),
    ("account", account_app),
    ("config", config_app),
    ("callback", callback_app),
    ("topics", topics_app),
    ("input", input_app),
    ("migrate", migrate_app),
    ("console", console_app),
):
    app.add_typer(_group, name=_name)


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
