"""What an operator may do to an order or an account: one table.

The command line, the routes of the private port and of the console, their words, the console's buttons, and the
operator steps of scenarios are made from it. Who adds a command adds a row here and its effect: of an order in
`core.effects`, of an account in `app.worker`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from msgspec import Struct

from schemas.views import Status

About = Literal["order", "account"]


class Command(Struct, frozen=True):
    """One row."""

    name: str
    """The verb, in every place: a word of the command line, the end of a route."""
    about: About
    """What it is done to."""
    what: str
    """What it does, in a sentence: for who is about to do it."""
    words: Callable[[bool, Status | None], str]
    """What came of it: whether there was anything to do, and how the order stands now (`None`: that is not known, or it
    is an account).
    """
    help: str
    """What the command line says of it: its first line in a list, all of it with `--help`."""
    needs_why: bool = False
    """Nobody may do it without a reason."""
    is_final: bool = False
    """Nothing undoes it: it is asked for twice."""
    is_event_only: bool = False
    """It is done by an event alone: without `[callbacks] record_secrets` nobody can do it."""
    of_many: bool = False
    """The console does it to all orders that match a filter, too."""
    of_parked: bool = False
    """The private port and the command line do it to all parked orders of an account, too."""

    @property
    def button(self) -> str:
        """What a button says."""
        return self.name.capitalize()

    def words_of_parked(self, count: int, *, is_filtered: bool) -> str:
        """What came of it for all parked orders of an account: to how many something was done. `is_filtered`: only
        those whose reason contains a text were meant.
        """
        if count:
            return f"{count} {self.words(True, None)}"
        return f"no order is parked{' whose reason contains that' if is_filtered else ''}"

    @property
    def step(self) -> str:
        """Its name in a scenario."""
        return self.name if self.about == "order" else f"{self.name}_{self.about}"


def _release_words(done: bool, status: Status | None) -> str:
    is_ready = status in ("owed", "settled")
    if done:
        return "released" if is_ready or status is None else f"its attempt counts were reset, but it is still {status}"
    if status == "owed":
        return "nothing to release: it is owed, and is sent as soon as its delay, its hold and its account permit"
    if status == "parked":
        return "nothing to release: its events contradict each other until one of them resolves that"
    return "nothing to release" if status is None else f"nothing to release: it is {status}"


def _resend_words(_done: bool, status: Status | None) -> str:
    if status is None or status in ("owed", "settled"):
        return "will be sent again"
    return f"will be sent again once possible; it is {status}"


def _resume_words(done: bool, _status: Status | None) -> str:
    return "resumed" if done else "it is not paused"


def _pause_words(done: bool, _status: Status | None) -> str:
    return "paused" if done else "an operator has paused it already"


def _note_words(_done: bool, _status: Status | None) -> str:
    return "noted"


def _adopt_words(done: bool, status: Status | None) -> str:
    if done:
        return "what the provider has counts as sent"
    if status in ("settled", None):
        return "nothing to adopt: all of it is acknowledged"
    return f"it cannot be adopted: it is {status}, or its account is not configured"


def _forget_words(_done: bool, status: Status | None) -> str:
    rest = "its record is removed within a day" if status == "settled" else "its record is removed once nothing is owed"
    return f"its personal details are erased; {rest}"


COMMANDS: Mapping[str, Command] = {
    command.name: command
    for command in (
        Command(
            "release",
            "order",
            "A parked order is tried again at once; if the provider refuses it again, it is parked again.",
            _release_words,
            """Send a parked order again, or all parked orders of an account.

            Attempt counts start over; running delays and holds stay. Returns once the change is committed, and says
            whether anything was released. --all reads the state topic and writes an event for each order, at most
            --rate a second, and ends early when no worker takes them. Without [callbacks] record_secrets, or with
            --url, it asks a worker's private port, and reaches only its partitions: run it for each worker.

            \b
            cartsync order release acme/A14
            cartsync order release --all --account acme --reason-contains "302"
            """,
            of_many=True,
            of_parked=True,
        ),
        Command(
            "resend",
            "order",
            "Its newest state is sent again, whatever was acknowledged.",
            _resend_words,
            """Send an order's newest state again, even if it was acknowledged.

            Returns once the request is committed; an update in flight finishes first.
            """,
            of_many=True,
        ),
        Command(
            "note",
            "order",
            "A note is kept with the order, and changes nothing else.",
            _note_words,
            """Keep a note with an order: --why is its text.

            \b
            cartsync order note acme/A14 --why "customer called, parcel is at the neighbour's"
            """,
            needs_why=True,
            is_event_only=True,
        ),
        Command(
            "adopt",
            "order",
            "What the provider has counts as sent: for an order that was settled there by hand. Nothing is sent.",
            _adopt_words,
            """Take what the provider has as sent: somebody has settled it by hand.

            Nothing is sent until the order changes again. Look at the provider first: nobody checks it for you.

            \b
            cartsync order adopt acme/A14 --why "refunded in the back office, ticket 4711"
            """,
            needs_why=True,
            is_event_only=True,
        ),
        Command(
            "forget",
            "order",
            "Customer, addresses and what the provider said are erased for good; the record goes once nothing is owed.",
            _forget_words,
            """Erase an order's personal details for good.

            Customer, delivery address, invoice address, what the provider said in words, and the texts of operators go
            at once, and nothing is sent because of that. What money needs stays until nothing is owed; then the whole
            record is removed, within a day. Events, dead letters and backups of yours are not touched.

            \b
            cartsync order forget acme/A14 --why "erasure request 2026-117"
            """,
            needs_why=True,
            is_final=True,
            is_event_only=True,
        ),
        Command(
            "pause",
            "account",
            "Nothing is sent to the provider for this account, by any worker, until somebody resumes it.",
            _pause_words,
            """Pause an account: nothing is sent for it until it is resumed.

            Reaches all workers, also those that start later; events are taken as ever. Requests in flight end as they
            may.

            \b
            cartsync account pause acme --why "seQura's maintenance until 04:00"
            """,
            is_event_only=True,
        ),
        Command(
            "resume",
            "account",
            "A paused account goes on at once; its worker reads the password again.",
            _resume_words,
            """Resume a paused account immediately.

            An account is paused because its credentials or too many of its orders were rejected, or by an operator. It
            also probes by itself ([worker] account_probe). Workers reread the password file. Without [callbacks]
            record_secrets, or with --url, one worker is asked: run it for each. SIGHUP resumes all accounts of one
            worker.
            """,
        ),
    )
}
"""By name."""


def commands(about: About) -> Iterator[Command]:
    """Those that are done to an order, or to an account."""
    return (command for command in COMMANDS.values() if command.about == about)
