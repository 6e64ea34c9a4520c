"""`cartsync migrate …`."""

from typing import Annotated

import typer

from worker.cli.options import AsJson, ConfigPath, group, load_watched, only_the_last_line

migrate_app = group("The state, for another deployment.")


@migrate_app.command("partitions")
def migrate_partitions(
    to: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="Partitions that there are to be.")],
    event_topic: Annotated[
        str, typer.Option(metavar="NAME", help="The new event topic. Default: the present name, a dot and N.")
    ] = "",
    state_topic: Annotated[
        str, typer.Option(metavar="NAME", help="The new state topic. Default: the present name, a dot and N.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at everything; change nothing.")] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take back one that was interrupted: workers serve the old state again.")
    ] = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Copy the state for another number of partitions.

    With the workers' present configuration, once the shop writes to the new event topic alone, all events of the old
    one are taken, and all workers are stopped. Creates the new topics like the old ones, copies every order to where
    [kafka] partitioner puts it, compares, and prints what to set then. Interrupted, run it again: before its very last
    step no worker takes anything of the new state. Run again when it is done, it looks for events that came too late.

    Exit 0; 1: events came too late; 72: something stands in the way, and nothing was changed.

    \b
    cartsync migrate partitions --to 24 --dry-run
    cartsync migrate partitions --to 24
    """
    settings = load_watched(config)
    from worker.tools.migrate.partitions import Wishes, run_migration

    only_the_last_line()
    wishes = Wishes(to, event_topic, state_topic, dry_run, undo, as_json)
    raise typer.Exit(run_migration(settings, wishes))
