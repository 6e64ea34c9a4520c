"""`/api`: its routes, each said once, and the OpenAPI description that is made of them and of the types they answer."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from schemas.console import (
    ActionAsked,
    ActionDone,
    ActionsView,
    ActionView,
    IndexView,
    LettersPage,
    LetterView,
    MendAsked,
    OrderPage,
    OrdersPage,
    Overview,
    Role,
    Session,
    Tried,
)
from worker import __version__
from worker.core.commands import Command, commands
from worker.core.letters import DOINGS, Doing
from worker.web.console import asked
from worker.web.console.actions import Action
from worker.web.console.answers import Answers
from worker.web.console.auth import User
from worker.web.console.queries import SORTS, STATUSES
from worker.web.names import between
from worker.web.problems import Problem

Handle = Callable[[web.Request, User], Awaitable[Any]]
ANY = r"{name:[\s\S]+}"
"""A reference may hold slashes and line feeds."""
_FILTERS = ("status", "account", "provider", "reason", "older", "differs", "on_hold", "q")


class Parameter(Struct, frozen=True):
    """A parameter of an address."""

    name: str
    what: str
    schema: Mapping[str, Any] = MappingProxyType({"type": "string"})
    is_in: Literal["query", "path"] = "query"


class Route(Struct, frozen=True):
    """One thing that can be asked."""

    method: Literal["GET", "POST"]
    path: str
    """With `{name}` for each parameter of the path."""
    what: str
    handle: Handle
    answer: Any
    role: Role = "viewer"
    parameters: Sequence[Parameter] = ()
    body: Any = None

    @property
    def pattern(self) -> str:
        """As the server matches it."""
        return self.path.replace("{subject}", ANY).replace("{account}", ANY)


PARAMETERS = {
    "status": Parameter("status", "One or more, with commas between.", {"type": "string", "enum": list(STATUSES)}),
    "account": Parameter("account", "One or more, with commas between."),
    "provider": Parameter("provider", "One or more, with commas between."),
    "reason": Parameter("reason", "Words that all stand in the reason."),
    "older": Parameter("older", "Waits for so long at least: 30s, 15m, 6h, 2d."),
    "differs": Parameter("differs", "1: amounts differ from the provider's.", {"type": "string", "enum": ["0", "1"]}),
    "on_hold": Parameter("on_hold", "1: the last request may still arrive.", {"type": "string", "enum": ["0", "1"]}),
    "q": Parameter("q", "The beginning of the reference, or of account/reference."),
    "sort": Parameter("sort", "A minus turns it around.", {"type": "string", "enum": list(SORTS)}),
    "cursor": Parameter("cursor", "`next` of the page before."),
    "limit": Parameter("limit", "Rows of a page.", {"type": "integer", "minimum": 1, "maximum": 500}),
    "wait": Parameter(
        "wait",
        "0: it is answered at once, and goes on; otherwise when it has ended.",
        {"type": "string", "enum": ["0", "1"], "default": "1"},
    ),
}


def routes_of(answers: Answers, session: Callable[[User], Session]) -> list[Route]:
    """All of `/api`."""
    api = _Api(answers, session)
    filters, wait = [PARAMETERS[name] for name in _FILTERS], PARAMETERS["wait"]
    listed = [*filters, *(PARAMETERS[name] for name in ("sort", "cursor", "limit"))]
    subject = Parameter("subject", "account/reference, percent-encoded, its slashes too or not", is_in="path")
    account = Parameter("account", "The account's name", is_in="path")
    place = [
        Parameter(name, what, {"type": "integer", "minimum": 0}, "path")
        for name, what in (("partition", "Of the dead-letter topic"), ("offset", "In that partition"))
    ]
    chosen = [Parameter("reason", "The kind of mistake."), Parameter("subject", "The order it was about.")]
    key = Parameter("key", "`key` of the action", is_in="path")
    personal = Parameter("show", "personal: nothing is hidden; operators only, and it is logged")
    return [
        Route("GET", "/api/session", "Who asks, and what for a change is needed", api.session, Session),
        Route("GET", "/api/index", "How far the console has read", api.index, IndexView),
        Route("GET", "/api/overview", "Everything at a glance", api.overview, Overview),
        Route("GET", "/api/orders", "Orders, filtered, sorted, by pages", api.orders, OrdersPage, parameters=listed),
        Route("GET", "/api/orders/{subject}", "One order", api.order, OrderPage, parameters=[subject]),
        *(
            _action(f"/api/orders/{{subject}}/{each.name}", each, api.acts(each), [subject])
            for each in commands("order")
        ),
        *(
            Route(
                "POST",
                f"/api/{each.name}",
                f"To all orders that match: {each.what.rstrip('.')}",
                api.acts_on_all(each),
                ActionView,
                "operator",
                [*filters, wait],
                ActionAsked,
            )
            for each in commands("order")
            if each.of_many
        ),
        *(
            _action(f"/api/accounts/{{account}}/{each.name}", each, api.acts(each), [account])
            for each in commands("account")
        ),
        Route(
            "GET",
            "/api/actions",
            "Actions, the newest first, without their lines: your own, and those of many for operators",
            api.actions,
            ActionsView,
        ),
        Route(
            "GET",
            "/api/actions/{key}",
            "How far an action is, or what came of it",
            api.action,
            ActionView,
            parameters=[key],
        ),
        Route(
            "POST",
            "/api/actions/{key}/stop",
            "What is under way is waited for, the rest is not tried; nothing that was done is undone",
            api.stop,
            ActionView,
            "operator",
            [key],
        ),
        Route(
            "GET",
            "/api/dead-letters",
            "Dead letters, the newest first",
            api.letters,
            LettersPage,
            parameters=[
                *chosen,
                PARAMETERS["cursor"],
                PARAMETERS["limit"],
            ],
        ),
        Route(
            "GET",
            "/api/dead-letters/{partition}/{offset}",
            "One dead letter, what may be personal hidden",
            api.letter,
            LetterView,
            parameters=[*place, personal],
        ),
        *(
            Route(
                "POST",
                f"/api/dead-letters/{{partition}}/{{offset}}/{each.name}",
                each.what.rstrip("."),
                api.mends(each) if each.name == "mend" else api.deals(each),
                ActionDone,
                "operator",
                place,
                MendAsked if each.name == "mend" else ActionAsked,
            )
            for each in DOINGS.values()
        ),
        *(
            Route(
                "POST",
                f"/api/dead-letters/{each.name}",
                f"To all that match and that nobody has dealt with, the oldest first: {each.what.rstrip('.')}",
                api.deals_with_all(each),
                ActionView,
                "operator",
                [*chosen, wait],
                ActionAsked,
            )
            for each in DOINGS.values()
            if each.of_many
        ),
        Route(
            "POST",
            "/api/try",
            "What events would lead to; nothing is sent. The body: one event, an array, or one a line",
            api.attempt,
            Tried,
            body=Any,
        ),
    ]


def _action(path: str, command: Command, handle: Handle, parameters: Sequence[Parameter]) -> Route:
    return Route("POST", path, command.what.rstrip("."), handle, ActionDone, "operator", parameters, ActionAsked)


class _Api:
    def __init__(self, answers: Answers, session: Callable[[User], Session]) -> None:
        self._answers = answers
        self._session = session

    async def session(self, _request: web.Request, user: User) -> Session:
        return self._session(user)

    async def index(self, _request: web.Request, _user: User) -> IndexView:
        return self._answers.index()

    async def overview(self, _request: web.Request, _user: User) -> Overview:
        return await self._answers.overview()

    async def orders(self, request: web.Request, _user: User) -> OrdersPage:
        query = asked.query_in(request)
        return await self._answers.orders(
            asked.filter_of(query), asked.sort_of(query), query.get("cursor") or None, asked.limit_of(query)
        )

    async def order(self, request: web.Request, _user: User) -> OrderPage:
        return await self._answers.order(between(request, "/api/orders/"))

    def acts(self, command: Command) -> Handle:
        async def handle(request: web.Request, user: User) -> ActionDone:
            subject = between(request, f"/api/{command.about}s/", f"/{command.name}")
            return await self._answers.act(command, subject, user, await _why(request))

        return handle

    def acts_on_all(self, command: Command) -> Handle:
        async def handle(request: web.Request, user: User) -> ActionView:
            wanted = asked.filter_of(asked.query_in(request))
            action = await self._answers.start_on_all(command, wanted, user, await _why(request))
            return await self._outcome(request, action)

        return handle

    async def _outcome(self, request: web.Request, action: Action) -> ActionView:
        if asked.query_in(request).get("wait", "1") != "0":
            await self._answers.actions.ended(action)
        return action.view()

    async def actions(self, _request: web.Request, user: User) -> ActionsView:
        return ActionsView(self._answers.actions.views(user))

    async def action(self, request: web.Request, user: User) -> ActionView:
        return self._answers.action(request.match_info["key"], user).view()

    async def stop(self, request: web.Request, user: User) -> ActionView:
        return self._answers.stop_action(request.match_info["key"], user).view()

    async def letters(self, request: web.Request, _user: User) -> LettersPage:
        query = asked.query_in(request)
        return await self._answers.letters(
            query.get("reason", ""), query.get("subject", ""), query.get("cursor") or None, asked.limit_of(query)
        )

    async def letter(self, request: web.Request, user: User) -> LetterView:
        view, _ = await self._answers.letter(
            *asked.place_in(request), reveal=asked.query_in(request).get("show") == "personal", user=user
        )
        return view

    def deals(self, doing: Doing) -> Handle:
        async def handle(request: web.Request, user: User) -> ActionDone:
            return await self._answers.deal(doing, [asked.place_in(request)], user, await _why(request))

        return handle

    def deals_with_all(self, doing: Doing) -> Handle:
        async def handle(request: web.Request, user: User) -> ActionView:
            query, why = asked.query_in(request), await _why(request)
            action = await self._answers.start_dealing(doing, query.get("reason"), query.get("subject"), user, why)
            return await self._outcome(request, action)

        return handle

    def mends(self, doing: Doing) -> Handle:
        async def handle(request: web.Request, user: User) -> ActionDone:
            body = msgspec.json.decode(await request.read(), type=MendAsked)
            event, why = bytes(body.event).decode(), asked.why_of(body.why)
            return await self._answers.mend(doing, asked.place_in(request), event, user, why)

        return handle

    async def attempt(self, request: web.Request, _user: User) -> Tried:
        return await self._answers.attempt((await request.read()).decode("utf-8", "replace"))


async def _why(request: web.Request) -> str:
    body = await request.read()
    return asked.why_of(msgspec.json.decode(body, type=ActionAsked).why) if body else ""


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    types = [each for route in routes for each in (route.answer, route.body) if each not in (None, Any)] + [Problem]
    unique = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(unique, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cartsync console",
            "version": __version__,
            "description": "The same that the pages show. A change needs the role operator, and `X-CSRF-Token` with "
            "the `csrf` of /api/session. Errors are problem details (RFC 9457).",
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(route: Route, schema_of: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.what,
        "operationId": f"{route.method.lower()}{route.path.removeprefix('/api').translate(_PLAIN)}",
        "responses": {
            "200": {
                "description": "The answer",
                "content": {"application/json": {"schema": schema_of[route.answer]}},
            },
            "default": {
                "description": "What is wrong, and what to do",
                "content": {"application/problem+json": {"schema": schema_of[Problem]}},
            },
        },
    }
    parameters = [
        {
            "name": each.name,
            "in": each.is_in,
            "required": each.is_in == "path",
            "description": each.what,
            "schema": dict(each.schema),
        }
        for each in route.parameters
    ]
    if route.method == "POST":
        parameters.append(
            {
                "name": "X-CSRF-Token",
                "in": "header",
                "required": True,
                "description": "`csrf` of /api/session",
                "schema": {"type": "string"},
            }
        )
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        schema = {} if route.body is Any else schema_of[route.body]
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation


_PLAIN = str.maketrans({"/": "_", "{": "", "}": "", "-": "_"})
