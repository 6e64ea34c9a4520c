"""Commands on files alone: `scenario` and `replay`."""

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.options import AsJson, ConfigPath, log_to_stderr
from worker.errors import ConfigError


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

    log_to_stderr()
    made_up = {"acme": account_from("acme", {}, scenario=True)}
    asked = None if sections is None else workers
    raise typer.Exit(run_replay(file, accounts or made_up, send=send, as_json=as_json, workers=asked))
