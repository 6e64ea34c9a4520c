"""`cartsync state …`."""

from typing import Annotated

import typer

from worker.cli.options import ConfigPath, group, load_watched, only_the_last_line

state_app = group("The state topic as a whole.")


@state_app.command("export")
def state_export(
    personal: Annotated[
        bool, typer.Option("--personal", help="With names, addresses and the provider's words.")
    ] = False,
    config: ConfigPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="Does nothing: JSON lines are all there is.")] = True,  # noqa: ARG001
) -> None:
    """Print every order of the state topic as JSON lines.

    After the orders of a partition comes a line that says how far it is. What may be personal is left out, but for
    the order's own reference. No worker has to run, and those that do are not disturbed.

    \b
    cartsync state export > state.jsonl
    """
    settings = load_watched(config)
    from worker.tools.state.export import run_export

    only_the_last_line()
    raise typer.Exit(run_export(settings, personal=personal))


@state_app.command("verify")
def state_verify(
    partition: Annotated[list[int] | None, typer.Option(min=0, help="Only this one; repeatable.")] = None,
    config: ConfigPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, a summary last.")] = False,
) -> None:
    """Fold the input again, and compare it with the state.

    As far as events are still there, with the worker's own code, and changing nothing; workers may go on. Of an
    order whose events are all there, the facts have to be the same; of one whose older events are gone, those that
    are left have to be in the state. Events that were refused are known by their dead letters. Needs memory for the
    orders of a partition, as a worker does.

    Exit 0: nothing differs; 1: something does. Differences are expected where `cartsync input skip` left events out.

    \b
    cartsync state verify
    cartsync state verify --partition 3 --json
    """
    settings = load_watched(config)
    from worker.config import account_from, configured_accounts
    from worker.config.receiving import believed
    from worker.errors import ConfigError
    from worker.model.provider import Destination
    from worker.providers.registry import PROVIDERS
    from worker.tools.state.verify import run_verify

    notes = []
    try:
        accounts = configured_accounts(config)
    except ConfigError:
        notes.append("the accounts cannot be read here: what events mean to a provider is taken as by default")
        accounts = {
            name: account_from(name, {"provider": provider}, scenario=True)
            for name, provider in settings.providers.items()
        }
    destinations = {name: Destination(each, PROVIDERS[each.provider]) for name, each in accounts.items()}
    only_the_last_line()
    code = run_verify(
        settings, destinations, believed(config), partitions=partition or (), notes=notes, as_json=as_json
    )
    raise typer.Exit(code)
