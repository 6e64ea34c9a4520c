"""`cartsync topics …` and `cartsync input …`."""

from typing import Annotated

import typer

from worker.cli.options import (
    AsJson,
    ConfigPath,
    TokenFile,
    group,
    load_config,
    only_the_last_line,
    worker_port,
)

topics_app = group("The Kafka topics.")
input_app = group("The position in the event topic.")


@topics_app.command("check")
def topics_check(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Check the topics, and print what is wrong with them.

    Exit 0, or 72 if a worker would not start.
    """
    settings = load_config(config)
    from worker.tools.topics import run_check

    only_the_last_line()
    raise typer.Exit(run_check(settings, as_json=as_json))


@topics_app.command("create")
def topics_create(
    config: ConfigPath = None,
    partitions: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Partitions of the event topic, if it has to be created. Default: 12."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create the missing topics, then check all of them.

    \b
    cartsync topics create --partitions 12
    """
    settings = load_config(config)
    from worker.tools.topics import run_create

    only_the_last_line()
    raise typer.Exit(run_create(settings, partitions=partitions, as_json=as_json))


@input_app.command("skip")
def input_skip(
    partition: Annotated[int, typer.Argument(min=0, help="A partition of the event topic.")],
    offset: Annotated[int, typer.Argument(min=0, help="The next offset to read.")],
    why: Annotated[str, typer.Option(metavar="TEXT", help="The reason, for the log (which also records who did it).")],
    url: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="URL of a worker's private port; repeatable. Default: from [http]."),
    ] = None,
    config: ConfigPath = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Move the position of a partition past events that cannot be read.

    For example past a gap where retention removed events while no worker ran: everything in between is never applied.
    Committed like everything else; a halted partition serves again immediately. Only moves forward, unless [worker]
    topic_epoch was raised.

    \b
    cartsync input skip 3 120000 --why "retention removed 118000 to 120000, told the shop"
    """
    from worker.config import state_sections
    from worker.tools.control import skip_input, who

    def owner() -> str | None:
        sections = state_sections(config)
        if sections is None:
            return None
        from worker.tools.state_topic import read_owner

        only_the_last_line()
        return read_owner(partition, sections[0])

    urls = [worker_port(each, config, token_file) for each in url or ()] or [worker_port(None, config, token_file)]
    raise typer.Exit(skip_input(partition, offset, why, urls, who=who(), as_json=as_json, owner=owner))
