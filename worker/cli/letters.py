"""`cartsync dlq …`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from worker.cli.options import AsJson, ConfigPath, Why, group, load_watched, only_the_last_line
from worker.errors import UsageError

letters_app = group("Dead letters: events that were refused.")

Place = Annotated[str, typer.Argument(metavar="PARTITION/OFFSET", help="As `dlq list` prints it.")]
Places = Annotated[list[str] | None, typer.Argument(metavar="PARTITION/OFFSET…", help="Or choose with --filter.")]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="NAME=VALUE",
        help="reason, account, order, type (order.*), detail, source, older (1h), newer, handled (no, yes, replayed, "
        "mended, dismissed); once more: and.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print what would be written.")]
Again = Annotated[bool, typer.Option("--again", help="Also what was dealt with already.")]
Lines = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


@letters_app.command("list")
def dlq_list(filters: Filters = None, config: ConfigPath = None, as_json: Lines = False) -> None:
    """List the dead letters, partition by partition, the oldest first.

    What may be personal is hidden.

    \b
    cartsync dlq list --filter handled=no --filter newer=24h
    cartsync dlq list --filter account=acme --filter reason=invalid_data --json
    """
    from worker.tools.letters.choosing import choice_of
    from worker.tools.letters.listing import run_list

    choice, settings = choice_of(filters or ()), load_watched(config)
    only_the_last_line()
    raise typer.Exit(run_list(settings, choice, as_json=as_json))


@letters_app.command("show")
def dlq_show(
    place: Place,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show what may be personal, too.")] = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Show a dead letter, with the place that is wrong.

    \b
    cartsync dlq show 0/17
    """
    from worker.tools.letters import place_of
    from worker.tools.letters.listing import run_show

    found, settings = place_of(place), load_watched(config)
    only_the_last_line()
    raise typer.Exit(run_show(settings, found, reveal=reveal, as_json=as_json))


@letters_app.command("mend")
def dlq_mend(
    place: Place,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="data.lines[0].quantity=2; the value is JSON, else a text."),
    ] = None,
    removals: Annotated[
        list[str] | None, typer.Option("--remove", metavar="PATH", help="A member, or an item of a list.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="The whole event instead, as JSON; - for standard input."),
    ] = None,
    edit: Annotated[bool, typer.Option("--edit", help="Edit the event in $EDITOR.")] = False,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Another record key.")] = None,
    partition: Annotated[
        int | None, typer.Option(min=0, help="Of the event topic, where it cannot be told otherwise.")
    ] = None,
    dry_run: DryRun = False,
    again: Again = False,
    why: Why = "",
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Mend an event that was refused, and write it to the event topic.

    It is written only if workers would take it now, and once, whoever else mends or replays it at the same time: its
    letter is marked as dealt with in the same transaction. What providers and operators said (provider.*, operator.*)
    cannot be mended, because its MAC is over the very bytes.

    \b
    cartsync dlq mend 0/17 --set data.lines[0].quantity=2 --dry-run
    cartsync dlq mend 0/17 --set time=2026-11-30T09:00:00Z --remove data.color
    cartsync dlq mend 0/17 --edit
    """
    from worker.config.receiving import believed
    from worker.core.mending import assignment_of, path_of
    from worker.tools.control import who
    from worker.tools.letters import place_of
    from worker.tools.letters.editing import edited
    from worker.tools.letters.replaying import Mending, Wishes, run_mend

    mending = Mending(
        sets=[assignment_of(text) for text in sets or ()],
        removals=[path_of(text) for text in removals or ()],
        whole=None if file is None else _text_of(file),
        edit=edited if edit else None,
        key=None if key is None else key.encode(errors="surrogateescape"),
        partition=partition,
    )
    found, settings = place_of(place), load_watched(config)
    only_the_last_line()
    wishes = Wishes(is_dry=dry_run, again=again, as_json=as_json, by=who(), why=why)
    raise typer.Exit(run_mend(settings, believed(config), found, mending, wishes))


@letters_app.command("replay")
def dlq_replay(
    places: Places = None,
    filters: Filters = None,
    dry_run: DryRun = False,
    rate: Annotated[float, typer.Option(metavar="N", min=0.01, max=100_000, help="Events a second, at most.")] = 100.0,
    force: Annotated[bool, typer.Option("--force", help="Also what workers would refuse again.")] = False,
    again: Again = False,
    why: Why = "",
    config: ConfigPath = None,
    as_json: Lines = False,
) -> None:
    """Write refused events again, as they are.

    For events that were not wrong themselves: a secret, a partitioner or a limit was, and is right now. Those that
    workers would refuse again are left. Each goes to the partition that it came from, carries a header
    x-cartsync-replayed-from with the place of its letter, and is written once, whoever else replays at the same time:
    its letter is marked as dealt with in the same transaction. Needs permission to write to the event topic and the
    dead-letter topic. Exit 1 if some were left.

    \b
    cartsync dlq replay --filter reason=not_trusted --dry-run
    cartsync dlq replay --filter reason=not_trusted --rate 20
    cartsync dlq replay 0/17 2/4
    """
    wishes = {"rate_per_s": rate, "again": again, "force": force, "why": why}
    raise typer.Exit(_replay(places, filters, config, is_dry=dry_run, as_json=as_json, **wishes))


@letters_app.command("dismiss")
def dlq_dismiss(
    places: Places = None,
    filters: Filters = None,
    dry_run: DryRun = False,
    why: Why = "",
    config: ConfigPath = None,
    as_json: Lines = False,
) -> None:
    """Mark dead letters as dealt with, without writing their events.

    For events that are not needed any more: the shop has written right ones, or they mean nothing. The letters stay
    where they are; lists and the console no longer count them.

    \b
    cartsync dlq dismiss 0/17
    cartsync dlq dismiss --filter reason=not_json --filter older=30d --dry-run
    """
    raise typer.Exit(_replay(places, filters, config, is_dry=dry_run, as_json=as_json, why=why, dismisses=True))


def _replay(places: list[str] | None, filters: list[str] | None, config: Path | None, **wishes: Any) -> int:
    """Does it to the letters that are meant. Raises `UsageError` unless that is said in one of two ways."""
    from worker.config.receiving import believed
    from worker.tools.control import who
    from worker.tools.letters import place_of
    from worker.tools.letters.choosing import choice_of
    from worker.tools.letters.replaying import Wishes, run_replay

    if bool(places) == bool(filters):
        raise UsageError("name letters (PARTITION/OFFSET), or choose them with --filter NAME=VALUE")
    asked = Wishes(by=who(), **wishes)
    named = [place_of(text) for text in places or ()]
    choice = choice_of(filters, handled="" if asked.again else "no") if filters else None
    settings = load_watched(config)
    only_the_last_line()
    return run_replay(settings, believed(config), named, choice, asked)


def _text_of(file: Path) -> str:
    try:
        return typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: not UTF-8") from None
