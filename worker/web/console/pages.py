"""The pages: HTML from templates that escape whatever they are given. They read and work without any script."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from aiohttp import web
from markupsafe import Markup

from schemas.console import ActionView, Session
from schemas.views import STATUS_RULES
from worker import __version__
from worker.core.commands import COMMANDS
from worker.core.letters import DOINGS
from worker.core.trust import GUARDED
from worker.errors import UsageError
from worker.web.console import asked, letters
from worker.web.console.amounts import age, machine_time, money, utc
from worker.web.console.answers import ACT_MAX, Answers
from worker.web.console.auth import MAY_ONLY_LOOK, User
from worker.web.console.operator import command_named
from worker.web.console.queries import STATUSES, Filter
from worker.web.names import between

_FOLDER = Path(__file__).parent / "pages"
_MEANINGS: Mapping[str, str] = {name: rules.meaning for name, rules in STATUS_RULES.items()}
_COLUMNS = tuple(name for name, rules in STATUS_RULES.items() if rules.in_overview)
"""Of the accounts in the overview: how many orders have each status."""
_REFUSED_MAX = 50
"""Of an action that goes on, for how many it is said why nothing was done."""
_SORT_NAMES = {
    "changed": "newest event",
    "age": "waiting longest",
    "reference": "reference",
    "shipped": "shipped amount",
    "unshipped": "unshipped amount",
}


class Pages:
    """One method for each page."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._env = _environment(answers.site.now_ms, answers.site.trace_url)

    def _render(self, name: str, session: Session | None, **values: Any) -> str:
        template = self._env.get_template(f"{name}.html")
        running = [] if session is None or name == "done" else self._answers.actions.running()
        index = self._answers.index()
        return template.render(session=session, index=index, version=__version__, page=name, running=running, **values)

    async def overview(self, _request: web.Request, session: Session) -> str:
        """What needs a person, and everything at a glance."""
        overview = await self._answers.overview()
        now_ms = self._answers.site.now_ms()
        return self._render(
            "overview",
            session,
            overview=overview,
            columns=_COLUMNS,
            bars=_bars(overview.activity, now_ms),
            busiest=_busiest(overview.activity),
        )

    async def orders(self, request: web.Request, session: Session) -> str:
        """A list of orders."""
        query = asked.query_in(request)
        wanted, sort = asked.filter_of(query), asked.sort_of(query)
        found = await self._answers.orders(wanted, sort, query.get("cursor") or None, asked.limit_of(query))
        site = self._answers.site
        return self._render(
            "orders",
            session,
            found=found,
            wanted=wanted,
            sort=sort,
            sorts=_SORT_NAMES,
            is_first="cursor" not in query,
            statuses=STATUSES,
            accounts=await self._answers.accounts(),
            providers=sorted(set(site.providers.values())),
            address=asked.address_of(wanted, sort),
            older=asked.older_text(wanted.older_s),
            act_max=ACT_MAX,
        )

    async def order(self, request: web.Request, session: Session) -> str:
        """One order."""
        subject = between(request, "/orders/")
        found = await self._answers.order(subject)
        action = self._answers.actions.find(asked.query_in(request).get("done", ""))
        outcome = action.view() if action is not None and action.by == session.user else None
        return self._render("order", session, found=found, order=found.order, outcome=outcome)

    async def letters(self, request: web.Request, session: Session) -> str:
        """Dead letters, the newest first."""
        query = asked.query_in(request)
        reason, subject = query.get("reason", ""), query.get("subject", "")
        found = await self._answers.letters(reason, subject, query.get("cursor") or None, asked.limit_of(query))
        left = (await self._answers.letters_left(reason, subject))[0] if reason or subject else 0
        return self._render(
            "letters",
            session,
            found=found,
            reason=reason,
            subject=subject,
            address=asked.letters_address(reason, subject),
            left=left,
            why_not=self._why_not_deal(session),
            is_first="cursor" not in query,
        )

    async def letter(self, request: web.Request, session: Session, user: User, *, reveal: bool) -> str:
        """One dead letter."""
        found, lines = await self._answers.letter(*asked.place_in(request), reveal=reveal, user=user)
        return self._render(
            "letter",
            session,
            found=found,
            lines=lines,
            headers=letters.headers_of(found.headers),
            reveal=reveal,
            why_not=self._why_not_deal(session),
            is_guarded=found.letter.type.startswith(GUARDED),
        )

    def _why_not_deal(self, session: Session) -> str:
        """Why who asks cannot deal with dead letters; empty: he can."""
        problem = self._answers.site.letters.why_not()
        return problem or ("" if session.role == "operator" else MAY_ONLY_LOOK)

    async def confirm_letters(self, request: web.Request, session: Session) -> str:
        """What would be done with one letter, or with how many, before it is done. Raises `UsageError`."""
        query = asked.query_in(request)
        doing, letter = asked.doing_of(query.get("command")), query.get("letter")
        reason, subject, count = query.get("reason"), query.get("subject"), 1
        if letter:
            asked.place_of(letter)
        else:
            asked.check_of_many(doing)
            count, _ = await self._answers.letters_left(reason, subject)
        return self._render(
            "confirm_letters",
            session,
            command=doing,
            letter=letter,
            reason=reason,
            subject=subject,
            address=asked.letters_address(reason, subject),
            count=count,
            act_max=ACT_MAX,
            why_not=self._why_not_deal(session),
        )

    async def mending(self, request: web.Request, session: Session, user: User, *, reveal: bool) -> str:
        """Where an event that was refused is edited. Raises `UsageError` when it cannot be."""
        place = asked.place_in(request)
        found, event = await self._answers.letter_to_mend(*place, reveal=reveal, user=user)
        return self._mend(place, session, found=found, event=event, detail=found.letter.detail, is_shown=reveal)

    async def mended(self, place: tuple[int, int], event: str, why: str, problem: str, session: Session) -> str:
        """The event as it would be written; or the place in it that is still wrong."""
        lines = letters.marked(event, problem)
        return self._mend(place, session, event=event, why=why, problem=problem, lines=lines)

    def _mend(self, place: tuple[int, int], session: Session, **values: Any) -> str:
        unknown: dict[str, Any] = {"found": None, "is_shown": True, "detail": "", "why": "", "problem": "", "lines": []}
        letter = f"{place[0]}/{place[1]}"
        why_not = self._why_not_deal(session)
        return self._render("mend", session, command=DOINGS["mend"], letter=letter, why_not=why_not, **unknown | values)

    async def confirm(self, request: web.Request, session: Session) -> str:
        """What would be done, and to how many, before it is done. Raises `UsageError`."""
        query = asked.query_in(request)
        command = command_named(query.get("command", ""))
        subject, wanted = query.get("subject", ""), asked.filter_of(query)
        count = 1
        examples = [subject]
        if not subject:
            if wanted.is_empty or not command.of_many:
                raise UsageError("choose which orders first: this would be all of them")
            found = await self._answers.orders(wanted, "age", None, 5)
            count, examples = found.total, [row.subject for row in found.orders]
        return self._render(
            "confirm",
            session,
            command=command,
            subject=subject,
            wanted=wanted,
            filter=asked.address_of(wanted),
            count=count,
            examples=examples,
            act_max=ACT_MAX,
        )

    async def done(self, done: ActionView, session: Session) -> str:
        """How far an action is, or what came of it."""
        refused = [line for line in done.lines if not line.done]
        lines = refused[:_REFUSED_MAX] if done.state == "running" else sorted(done.lines, key=lambda line: line.done)
        return self._render("done", session, done=done, lines=lines, refused_max=_REFUSED_MAX)

    async def attempt(self, _request: web.Request, session: Session) -> str:
        """Where events are pasted."""
        return self._render("try", session, text="", tried=None)

    async def attempted(self, text: str, session: Session) -> str:
        """What they would lead to."""
        return self._render("try", session, text=text, tried=await self._answers.attempt(text))

    def scenario(self, text: str) -> web.Response:
        """The events as a file for `cartsync scenario`. Raises `UsageError`."""
        events = self._answers.site.read_events(text)
        steps = [{"event": event} for event in events]
        body = json.dumps({"title": "From the console", "steps": steps}, indent=2, ensure_ascii=False)
        headers = {"Content-Disposition": 'attachment; filename="scenario.json"'}
        # A half surrogate becomes its escape again.
        encoded = f"{body}\n".encode("utf-8", "backslashreplace")
        return web.Response(body=encoded, content_type="application/json", charset="utf-8", headers=headers)

    def api(self, routes: Sequence[Any]) -> Callable[[web.Request, Session], Awaitable[str]]:
        """What `/api` offers."""

        async def page(_request: web.Request, session: Session) -> str:
            return self._render("api", session, routes=routes)

        return page

    def problem(self, status: int, title: str, detail: str, session: Session | None) -> str:
        """What went wrong, and the way on."""
        return self._render("problem", session, status=status, title=title, detail=detail)


def order_path(subject: str) -> str:
    """Where an order is shown."""
    return f"/orders/{quote(subject, safe='')}"


# --- what templates use -------------------------------------------------------------------------------------------


def _environment(now_ms: Callable[[], int], trace_url: str) -> jinja2.Environment:
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def since(ms: int) -> str:
        return age((now_ms() - ms) / 1000)

    env.filters |= {
        "money": money,
        "when": _when,
        "since": since,
        "order_path": order_path,
        "number": lambda count: f"{count:,}".replace(",", "\u202f"),
        "words": lambda name: str(name).replace("_", " "),
        "json": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
        "printable": printable,
        "times": _with_times,
        "trace": lambda text, name="": _trace(text, trace_url, name),
        "sentence": lambda text: f"{text.rstrip('. ')}.",
    }
    env.globals |= {
        "meaning": _MEANINGS,
        "orders_address": _orders_address,
        "with_sort": _with_sort,
        "hidden": letters.HIDDEN,
        "commands": {**COMMANDS, **DOINGS},
    }
    return env


def _when(ms: int) -> Markup:
    """A time that the script shows in the reader's own zone; without it, UTC."""
    text = utc(ms)
    return Markup('<time datetime="{}" title="{} UTC">{} UTC</time>').format(machine_time(ms), text, text)


def _with_times(text: str) -> Markup:
    """A text in which times of UTC stand as `_when` shows them."""
    parts = _TIME.split(printable(text))
    return Markup("").join([_when_read(part) if number % 2 else part for number, part in enumerate(parts)])


def _when_read(text: str) -> str:
    """A time as text; what only looks like one stays as it is."""
    try:
        return _when(round(datetime.fromisoformat(text).timestamp() * 1000))
    except ValueError:
        return text


_TIME = re.compile(r"\b(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)")


def _trace(text: str, trace_url: str, name: str) -> Markup:
    """A trace id, or the `traceparent` that has it, as a link to where traces are looked at, if that is known. `name`:
    what the link says instead of the whole id, …
    """
    found = _TRACE_ID.search(text)
    if found is None or not trace_url:
        return Markup("{} {}").format(name, printable(text)) if name else Markup.escape(printable(text))
    link = Markup('<a href="{}" title="{}" rel="noreferrer">{}</a>')
    return link.format(trace_url.replace("{trace_id}", found[0]), found[0], name or found[0])


_TRACE_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


def printable(text: str) -> str:
    """What would not be seen, or would turn the text around, as an escape."""
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)


def _orders_address(**query: str) -> str:
    return f"/orders?{urlencode(query)}"


def _with_sort(wanted: Filter, sort: str, column: str) -> str:
    """The list sorted by a column; once more turns it around."""
    turned = f"-{column}" if sort == column else column
    return f"/orders?{asked.address_of(wanted, turned)}"  # type: ignore[arg-type]  # one of the sorts


def _bars(activity: Sequence[Any], now_ms: int) -> list[dict[str, Any]]:
    """A bar for each minute of the last hour, in a picture that is 60 wide and 20 high."""
    by_minute = {each.minute_ms: each for each in activity}
    newest = now_ms // 60_000 * 60_000
    most = _busiest(activity)
    bars = []
    for number in range(60):
        found = by_minute.get(newest - (59 - number) * 60_000)
        if found is None or not most:
            continue
        at = 20.0
        for kind in ("acknowledged", "other", "parked"):
            height = getattr(found, kind) * 20 / most
            at -= height
            if height:
                title = f"{utc(found.minute_ms)[11:16]} UTC: {getattr(found, kind)} {_BARS[kind]}"
                bars.append({"x": number, "y": round(at, 2), "height": round(height, 2), "kind": kind, "title": title})
    return bars


def _busiest(activity: Sequence[Any]) -> int:
    """The most changes of one minute."""
    return max((each.acknowledged + each.parked + each.other for each in activity), default=0)


_BARS = {"acknowledged": "settled", "parked": "parked", "other": "other changes"}
