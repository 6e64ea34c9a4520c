"""`cartsync account …`."""

from typing import Annotated

import typer

from worker.cli.options import AsJson, ConfigPath, TokenFile, Url, group, worker_port
from worker.errors import UsageError

account_app = group("Merchant accounts.")


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
