"""What the console answers, for pages and `/api` alike."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec import Struct, field

from schemas import history as history_of
from schemas import state
from schemas.console import (
    ActionDone,
    ActionLine,
    IndexView,
    LetterRow,
    LettersPage,
    LetterView,
    OrderPage,
    OrdersPage,
    Overview,
    Sort,
    StoryLine,
    Tried,
    WorkerLine,
)
from schemas.state import OrderRecord
from schemas.views import OrderView, StatusView
from worker.core.commands import COMMANDS, Command
from worker.core.letters import DOINGS, Doing, refused_record
from worker.core.mending import event_text, is_guarded
from worker.core.policy import DeliveryPolicy
from worker.core.story import words_of
from worker.core.view import view_order
from worker.errors import LogError, UsageError
from worker.metrics import Metrics
from worker.model.order import account_of
from worker.ports import Records, StoredRecord
from worker.web.console import asked, detail
from worker.web.console.actions import Action, Actions
from worker.web.console.auth import MAY_ONLY_LOOK, User
from worker.web.console.follower import Follower
from worker.web.console.index import Index
from worker.web.console.letters import Line, masked_row, view_letter
from worker.web.console.operator import ActionProgress, Letters, Operator, Place, Workers
from worker.web.console.overview import Counted, make_overview
from worker.web.console.queries import Filter, Reader
from worker.web.console.rows import Describe
from worker.web.console.sheet import HEADER, csv_lines, csv_row

log = structlog.get_logger(__name__)

ACT_MAX = 1_000
"""Orders that one action is done to; of more, the rest is said."""
DAY_MS = 86_400_000
_HOUR_MS = 3_600_000
_READERS = 3
_REST = 10
"""The overview is made again at most so often that it takes a tenth of the time, and each second."""
_KEEP_S = 1.0
_SHOW_WITHIN_S = 3.0
"""How long an order's owner may take to say how it stands."""
_STATUS_EVERY_S = 5.0
_FOLLOW_TRIES = 10
_FOLLOW_S = 0.1
TRY_MAX_BYTES = 256 * 1024

_T = TypeVar("_T")
Trier = Callable[[str], Awaitable[Tried]]
"""Says what pasted events would lead to."""


class Site(Struct, frozen=True):
    """What the answers are made of."""

    records: Records
    index: Index
    follower: Follower
    operator: Operator
    letters: Letters
    workers: Workers
    trier: Trier
    read_events: Callable[[str], list[dict[str, Any]]]
    """The events in a pasted text. Raises `UsageError`."""
    rules: DeliveryPolicy
    providers: Mapping[str, str]
    """By account, of those that are configured."""
    describe: Describe
    now_ms: Callable[[], int]
    metrics: Metrics = field(default_factory=Metrics)
    trace_url: str = ""
    """An address with `{trace_id}`; empty: nobody knows where traces are looked at."""


class UnknownError(UsageError):
    """There is no such order or dead letter."""


class NotAllowedError(UsageError):
    """The role of who asks does not go so far."""


def _check_operator(user: User) -> None:
    if user.role != "operator":
        raise NotAllowedError(MAY_ONLY_LOOK)


def _check_may(what: Command | Doing, user: User, why: str, *, problem: str) -> None:
    """`problem`: why nobody can do it; empty: somebody can."""
    _check_operator(user)
    if problem:
        raise UsageError(problem)
    if what.needs_why and not why:
        raise UsageError(f"{what.name} needs a reason: say why")


class Answers:
    """Answers, each from what was read until now."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="console-reader")
        self._open: list[Reader] = []
        self._overview: Overview | None = None
        self._overview_until = -inf
        self._making = asyncio.Lock()
        self._statuses: list[tuple[WorkerLine, StatusView | None]] = []
        self.actions = Actions(site.now_ms)
        site.metrics.serves_console([*COMMANDS, *DOINGS])

    async def watch_workers(self) -> None:
        """Asks the workers again and again, until it is cancelled."""
        while True:
            try:
                self._statuses = await self.site.workers.statuses()
            except Exception:  # a defect, by which pages would say for ever how workers were
                log.exception("console_workers_unknown")
                self._statuses = []
            await asyncio.sleep(_STATUS_EVERY_S)

    def close(self) -> None:
        """Ends all connections to the index."""
        self._pool.shutdown(wait=True)
        for reader in self._open:
            reader.close()

    async def ask(self, question: Callable[[Reader], _T]) -> _T:
        """Asks the index beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._asked, question)

    def _asked(self, question: Callable[[Reader], _T]) -> _T:
        reader: Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = self._reader()
        return question(reader)

    def _reader(self) -> Reader:
        reader = Reader(self.site.index.connect(), self.site.providers)
        self._open.append(reader)
        return reader

    # --- the index ---

    def index(self) -> IndexView:
        """How far the console has read."""
        site = self.site
        behind, total = site.follower.progress()
        return IndexView(
            site.follower.state,
            behind,
            total,
            site.follower.detail,
            -1,
            site.index.read_until_ms,
            site.index.version,
        )

    # --- orders ---

    async def orders(self, wanted: Filter, sort: Sort, cursor: str | None, limit: int) -> OrdersPage:
        """A page of a list. Raises `UsageError`."""
        now_ms = self.site.now_ms()
        return await self.ask(lambda reader: reader.orders(wanted, sort, cursor=cursor, limit=limit, now_ms=now_ms))

    async def accounts(self) -> list[str]:
        """All accounts."""
        return await self.ask(lambda reader: reader.accounts())

    async def export(self, wanted: Filter, sort: Sort) -> AsyncGenerator[bytes, None]:
        """All that match as CSV (RFC 4180), a piece at a time."""
        yield csv_lines([HEADER])
        now_ms = self.site.now_ms()
        reader = self._reader()
        try:
            pages = reader.export(wanted, sort, now_ms=now_ms)
            while (page := await asyncio.to_thread(next, pages, None)) is not None:
                yield csv_lines([csv_row(row) for row in page])
        finally:
            self._open.remove(reader)
            reader.close()

    async def find(self, ref: str) -> list[str]:
        """The orders that `ref` may mean: `account/reference`, or a reference of any account."""
        accounts = await self.accounts()

        def question(reader: Reader) -> list[str]:
            whole = [ref] if reader.places(ref) else []
            return whole or reader.named(ref, accounts)

        return await self.ask(question)

    async def order(self, subject: str) -> OrderPage:
        """All that is known of an order. Raises `UnknownError`, `LogError`."""
        site = self.site
        shown = await self._shown(subject)
        places, decoded = await self._record(subject, None if shown is None else shown[1])
        partition = places[0][0]
        now_ms = site.now_ms()
        account = account_of(subject)
        known = site.describe(account, decoded.remote)
        view = view_order(
            subject,
            decoded,
            partition=partition,
            rules=site.rules,
            now_ms=now_ms,
            also_in=[other for other, _ in places[1:]],
            is_configured=not site.providers or account in site.providers,
            known=None if known is None else dict(known),
        )
        source = "state topic"
        # Only of the very same record: its carts, and what the provider has, are those of the record.
        if shown is not None and (shown[1].revision, shown[1].acked) == (view.revision, view.acked):
            source, view = shown
        history, refused = await self.ask(
            lambda reader: (reader.history(subject), reader.letters(subject=subject).letters)
        )
        story = await self._story(subject, partition, decoded, view.currency)
        words, sides = detail.sides_of(subject, decoded, history)
        return OrderPage(
            view,
            source,
            words,
            sides,
            detail.next_of(view, decoded, rules=site.rules, now_ms=now_ms),
            decoded.not_before_ms if decoded.not_before_ms > now_ms else None,
            history,
            [msgspec.structs.replace(masked_row(row), subject=subject) for row in refused],
            decoded.event_id,
            decoded.trace,
            story,
        )

    async def _story(self, subject: str, partition: int, record: OrderRecord, currency: str | None) -> list[StoryLine]:
        """Its history, as it is in Kafka now. Raises `LogError`."""
        offsets = await self.ask(lambda reader: reader.entries(subject, partition))
        found = await self.site.records.picked(("history", partition), offsets) if offsets else []
        whys = {(deed.command, deed.at_ms): deed.why for deed in record.operated}
        return [
            StoryLine(entry, words_of(entry, currency or ""), whys.get((entry.what, entry.at_ms), ""))
            for each in found
            if (entry := history_of.decode(each.value or b"")) is not None
        ]

    async def _shown(self, subject: str) -> tuple[str, OrderView] | None:
        """As its owner has it, and who that is; `None`: nobody says so in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SHOW_WITHIN_S):
                return await self.site.workers.show(subject)
        return None

    async def _record(self, subject: str, shown: OrderView | None) -> tuple[list[tuple[int, int]], OrderRecord]:
        """Where an order lies, and its record, as it is in Kafka now: no older than what its owner has shown, if that
        can be had in a moment. Raises `UnknownError`, `LogError`.
        """
        found: tuple[list[tuple[int, int]], OrderRecord] | None = None
        for _ in range(_FOLLOW_TRIES):
            places = await self.ask(lambda reader: reader.places(subject))
            if not places:
                raise UnknownError(f"no order {subject} in the state topic, as far as it was read")
            record = await self.site.records.record(("state", places[0][0]), places[0][1])
            if record is not None and record.value is not None:
                found = places, state.decode_order(record.value)
                if shown is None or (shown.revision, shown.acked) <= (found[1].revision, found[1].acked):
                    return found
            await asyncio.sleep(_FOLLOW_S)  # it has changed, and the index is about to know
        if found is None:
            raise LogError(f"the record of {subject} is not where the index has it; reload in a moment")
        return found

    # --- dead letters ---

    async def letters(self, reason: str, subject: str, cursor: str | None, limit: int) -> LettersPage:
        """A page, the newest first. Raises `UsageError`."""
        found = await self.ask(
            lambda reader: reader.letters(reason=reason, subject=subject, cursor=cursor, limit=limit)
        )
        return msgspec.structs.replace(found, letters=[masked_row(row) for row in found.letters])

    async def letter(self, partition: int, offset: int, *, reveal: bool, user: User) -> tuple[LetterView, list[Line]]:
        """One, with its record. `reveal`: nothing is hidden, which is for operators, and is logged. Raises
        `NotAllowedError`, `UnknownError`, `LogError`.
        """
        row, record = await self._letter(partition, offset, reveal=reveal, user=user)
        return view_letter(row, record, reveal=reveal)

    async def _letter(self, partition: int, offset: int, *, reveal: bool, user: User) -> tuple[LetterRow, StoredRecord]:
        if reveal and user.role != "operator":
            raise NotAllowedError("personal fields are shown to operators")
        row = await self.ask(lambda reader: reader.letter(partition, offset))
        record = None if row is None else await self.site.records.record(("dead_letters", partition), offset)
        if row is None or record is None:
            raise UnknownError(
                f"no dead letter at offset {offset} of partition {partition}; retention may have taken it"
            )
        if reveal:
            log.info("console_personal_data_shown", by=user.name, partition=partition, offset=offset)
        return row, record

    async def letter_to_mend(self, partition: int, offset: int, *, reveal: bool, user: User) -> tuple[LetterView, str]:
        """One, and its event as it is edited; empty without `reveal`, for nothing of it is hidden. Raises as
        `letter`; `UsageError` when it cannot be mended.
        """
        row, record = await self._letter(partition, offset, reveal=reveal, user=user)
        refused = refused_record(record.key, record.value, record.headers)
        if is_guarded(refused):
            raise UsageError("what a provider or an operator said is replayed as it is: its MAC is over the very bytes")
        view, _ = view_letter(row, record, reveal=reveal)
        return view, event_text(refused) if reveal else ""

    async def letters_left(self, reason: str, subject: str) -> tuple[int, list[Place]]:
        """How many letters match that nobody has dealt with, and where those are that one action takes. Raises
        `UsageError` when nothing was chosen.
        """
        if not reason and not subject:
            raise UsageError("choose which dead letters first, by reason or order: this would be all of them")
        return await self.ask(lambda reader: reader.letters_left(reason=reason, subject=subject, count_max=ACT_MAX))

    async def deal(self, doing: Doing, places: list[Place], user: User, why: str) -> ActionDone:
        """Replays or dismisses letters. Raises `NotAllowedError`, `UsageError` when nothing can be done."""
        self._check_may_deal(doing, user, why)
        return ActionDone(doing.name, await self._deal(doing, places, user, why, ActionProgress()))

    async def _deal(
        self, doing: Doing, places: list[Place], user: User, why: str, progress: ActionProgress
    ) -> list[ActionLine]:
        desk = self.site.letters
        act = desk.dismiss if doing.name == "dismiss" else desk.replay
        lines = await act(places, by=user.name, why=why, progress=progress)
        return self._acted(doing, f"{doing.name}_letter", lines, user, why)

    async def start_dealing(self, doing: Doing, reason: str, subject: str, user: User, why: str) -> Action:
        """Begins to do it to all that match now, the oldest first, up to a bound. Raises as `deal`."""
        self._check_may_deal(doing, user, why)
        count, places = await self.letters_left(reason, subject)
        return self.actions.start(
            doing.name,
            user,
            lambda progress: self._deal(doing, places, user, why, progress),
            total=len(places),
            left=max(0, count - len(places)),
            asked=asked.letters_address(reason, subject),
        )

    async def mend(self, doing: Doing, place: Place, event: str, user: User, why: str) -> ActionDone:
        """Writes an event instead of that of a letter. Raises as `deal`, also when it would still be refused;
        `LogError`.
        """
        self._check_may_deal(doing, user, why)
        line = await self.site.letters.mend(place, event, by=user.name, why=why)
        return ActionDone(doing.name, self._acted(doing, f"{doing.name}_letter", [line], user, why))

    async def check_mended(self, doing: Doing, place: Place, event: str, user: User) -> str:
        """Why it would still be refused; empty: it would be taken. Raises `NotAllowedError`, `LogError`."""
        self._check_may_deal(doing, user, "")
        try:
            await self.site.letters.check(place, event)
        except UsageError as error:
            return str(error)
        return ""

    def _check_may_deal(self, doing: Doing, user: User, why: str) -> None:
        _check_may(doing, user, why, problem=self.site.letters.why_not())

    # --- what is done ---

    async def act(self, command: Command, subject: str, user: User, why: str) -> ActionDone:
        """Does it to one. Raises `NotAllowedError`, `UsageError` when nothing can be done."""
        self._check_may_act(command, user, why)
        return ActionDone(command.name, await self._act(command, [subject], user, why, ActionProgress()))

    def _check_may_act(self, command: Command, user: User, why: str) -> None:
        _check_may(command, user, why, problem=self.site.operator.why_not())

    async def _act(
        self, command: Command, subjects: list[str], user: User, why: str, progress: ActionProgress
    ) -> list[ActionLine]:
        lines = await self.site.operator.submit(command, subjects, by=user.name, why=why, progress=progress)
        return self._acted(command, command.name, lines, user, why)

    def _acted(
        self, what: Command | Doing, logged_as: str, lines: list[ActionLine], user: User, why: str
    ) -> list[ActionLine]:
        """Says what became of each, and that the overview is old."""
        done = sum(line.done for line in lines)
        log.info("console_action", command=logged_as, by=user.name, why=why, asked=len(lines), done=done)
        self.site.metrics.console_acted(what.name, done, len(lines) - done)
        self._overview_until = -inf
        return lines

    async def start_on_all(self, command: Command, wanted: Filter, user: User, why: str) -> Action:
        """Begins to do it to all that match now, those first that wait the longest, up to a bound. Raises as `act`."""
        self._check_may_act(command, user, why)
        if wanted.is_empty:
            raise UsageError("choose which orders first: this would be all of them")
        now_ms = self.site.now_ms()
        count, subjects = await self.ask(
            lambda reader: (
                reader.count(wanted, now_ms=now_ms),
                reader.subjects(wanted, now_ms=now_ms, count_max=ACT_MAX),
            )
        )
        return self.actions.start(
            command.name,
            user,
            lambda progress: self._act(command, subjects, user, why, progress),
            total=len(subjects),
            left=max(0, count - len(subjects)),
            asked=asked.address_of(wanted),
        )

    def action(self, key: str, user: User) -> Action:
        """One that this user may see. Raises `UnknownError`."""
        action = self.actions.find(key)
        if action is None or not action.is_for(user):
            raise UnknownError(
                "what came of this action is not kept: the console was started again, or many came after it; what was"
                " done stays done, and its orders or dead letters show it"
            )
        return action

    def stop_action(self, key: str, user: User) -> Action:
        """What is under way is waited for, the rest is not tried. Raises `NotAllowedError`, `UnknownError`."""
        _check_operator(user)
        action = self.action(key, user)
        self.actions.stop(action)
        log.info("console_action_stopped", command=action.command, by=user.name)
        return action

    async def attempt(self, text: str) -> Tried:
        """What pasted events would lead to."""
        return await self.site.trier(text)

    # --- the overview ---

    async def overview(self) -> Overview:
        """Everything at a glance; of what was read a moment ago."""
        async with self._making:
            began = time.perf_counter()
            if self._overview is None or began >= self._overview_until:
                self._overview = await self._made_overview()
                made = time.perf_counter()
                self._overview_until = made + max(_KEEP_S, _REST * (made - began))
            return msgspec.structs.replace(
                self._overview, index=msgspec.structs.replace(self.index(), orders=self._overview.index.orders)
            )

    async def _made_overview(self) -> Overview:
        now_ms, site = self.site.now_ms(), self.site

        def question(reader: Reader) -> Counted:
            return Counted(
                reader.accounts(),
                reader.by_account(),
                reader.on_hold(),
                reader.differing(),
                reader.by_paid(),
                reader.parked(),
                reader.partitions(),
                reader.activity(now_ms - _HOUR_MS),
                reader.letters_since(now_ms - DAY_MS),
            )

        counted = await self.ask(question)
        count = sum(each for statuses in counted.by_account.values() for each, _ in statuses.values())
        index = msgspec.structs.replace(self.index(), orders=count)
        ends = site.follower.input_ends
        return make_overview(counted, self._statuses, site.providers, ends, index, now_ms)
