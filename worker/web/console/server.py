"""The console's port: who may ask, what they get, and that no page of another site acts in their name.

Every answer carries a policy under which a browser runs and loads nothing but our own files. `Host` has to be ours, as
at the private port; whoever asks is known by `auth`; a change needs the role operator, comes from a page of ours, and
carries the user's token.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from schemas.console import ActionDone, Session
from worker import is_cross_site
from worker.core.letters import DOINGS
from worker.errors import LogError, UsageError
from worker.metrics import ConsoleView
from worker.web.connections import Connection, Connections
from worker.web.console import asked
from worker.web.console.actions import Action
from worker.web.console.answers import TRY_MAX_BYTES, Answers, NotAllowedError, UnknownError
from worker.web.console.auth import MAY_ONLY_LOOK, Auth, Denied, Tokens, User
from worker.web.console.follower import INDEX_FAILED
from worker.web.console.openapi import ANY, Route, describe, routes_of
from worker.web.console.operator import command_named
from worker.web.console.pages import Pages, order_path
from worker.web.names import is_our_name
from worker.web.problems import problem_response, title_of

log = structlog.get_logger(__name__)

HEADER_WITHIN_S = 10.0
BODY_WITHIN_S = 10.0
WRITE_WITHIN_S = 30.0
"""How long a client may leave unread what a stream sends; then it is hung up on."""
BACKLOG = 128
STOP_S = 1.0
_LIVE_MAX = 100
"""Pages that are told of changes at once; others can be reloaded."""
_LIVE_EVERY_S = 1.0
_ALIVE_EVERY_S = 15.0
"""A comment, so that nothing on the way closes what seems idle."""
_SHORT_S = 1.0
"""An action of many that takes no longer is over when its page is shown."""
_STATIC = Path(__file__).parent / "static"
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Server": "cartsync",
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with none at all, a browser would send our own forms with `Origin: null`
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "interest-cohort=()",
}
_OPEN = frozenset({"/livez", "/readyz"})
_VIEWS: Mapping[str, ConsoleView] = {
    "/": "overview",
    "/orders": "orders",
    "/search": "orders",
    "/orders/{name}": "order",
    "/orders.csv": "export",
    "/dead-letters": "dead_letters",
    "/dead-letters/{partition}/{offset}": "dead_letter",
    "/dead-letters/{partition}/{offset}/mend": "dead_letter",
    "/confirm": "actions",
    "/act": "actions",
    "/dead-letters/confirm": "actions",
    "/dead-letters/act": "actions",
    "/done/{key}": "actions",
    "/done/{key}/stop": "actions",
    "/try": "try",
    "/api": "api",
}
"""By the pattern of a route, what is counted; all below `/api/` is one."""
_USER = web.RequestKey("user", User)


class Console:
    """The server, from `start` to `stop`."""

    def __init__(
        self,
        answers: Answers,
        auth: Auth,
        *,
        allowed_hosts: Collection[str] = (),
        asks_for_password: bool = False,
        connections: int = 200,
    ) -> None:
        """`asks_for_password`: a browser is told to ask for one."""
        self._answers = answers
        self._auth = auth
        self._metrics = answers.site.metrics
        self._stopping = asyncio.Event()
        self._live = 0
        """Pages that listen for changes."""
        self._tokens = Tokens(os.urandom(32))
        self._allowed_hosts = allowed_hosts
        self._asks_for_password = asks_for_password
        self._pages = Pages(answers)
        self._connections = Connections(
            count_max=connections,
            header_within_s=lambda: HEADER_WITHIN_S,
            error_body=title_of,
            evicts=True,
            linger_s=STOP_S,
        )
        self.routes: list[Route] = routes_of(answers, self.session)

    async def start(self, host: str, port: int) -> str:
        """Begins to serve; returns the base URL. Port 0 takes any that is free. Raises `OSError`."""
        runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=STOP_S)
        return await self._connections.start(runner, host, port, BACKLOG)

    async def stop(self) -> None:
        """Stops serving, within `STOP_S`, and ends actions where they are."""
        self._stopping.set()
        await self._answers.actions.close()
        await self._connections.stop()

    def session(self, user: User) -> Session:
        """Who asks."""
        why_not = self._answers.site.operator.why_not()
        if not why_not and user.role != "operator":
            why_not = MAY_ONLY_LOOK
        return Session(user.name, user.role, self._tokens.of(user), not why_not, why_not)

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guarded], client_max_size=TRY_MAX_BYTES + 4096)
        get, post = app.router.add_get, app.router.add_post
        get("/livez", self._livez)
        get("/readyz", self._readyz)
        get("/static/{file}", self._static)
        get("/events", self._events)
        get("/", self._page(self._pages.overview))
        get("/orders", self._page(self._pages.orders))
        get("/orders.csv", self._csv)
        get(f"/orders/{ANY}", self._page(self._pages.order))
        get("/search", self._search)
        get("/dead-letters", self._page(self._pages.letters))
        get("/dead-letters/{partition}/{offset}", self._letter)
        get("/confirm", self._page(self._pages.confirm))
        post("/act", self._act)
        get("/dead-letters/confirm", self._page(self._pages.confirm_letters))
        post("/dead-letters/act", self._act_on_letters)
        get("/dead-letters/{partition}/{offset}/mend", self._mending)
        post("/dead-letters/{partition}/{offset}/mend", self._mend)
        get("/done/{key}", self._shown_done)
        post("/done/{key}/stop", self._stop_action)
        get("/try", self._page(self._pages.attempt))
        post("/try", self._attempt)
        get("/api", self._page(self._pages.api(self.routes)))
        get("/api/openapi.json", self._openapi)
        for route in self.routes:
            app.router.add_route(route.method, route.pattern, self._json(route))
        return app

    # --- who may ask ---

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = request.protocol
        if isinstance(connection, Connection):
            connection.header_came()
        began = time.perf_counter()
        try:
            response = await self._answer(request, handler)
            if (view := _view_of(request)) is not None:
                self._metrics.console_answered(view, time.perf_counter() - began)
        finally:
            if isinstance(connection, Connection):
                connection.await_header()
        if not response.prepared:
            response.headers.update(_HEADERS)
            if not request.path.startswith("/static/"):
                response.headers.setdefault("Cache-Control", "no-store")
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            refusal = await self._refusal(request)
            return refusal or await handler(request)
        except web.HTTPRedirection as error:
            return web.Response(status=error.status, headers={"Location": error.headers["Location"]})
        except web.HTTPException as error:
            detail = "" if error.text is None or error.text.startswith(f"{error.status}:") else error.text
            response = self._problem(request, error.status, detail)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
            return response
        except UnknownError as error:
            return self._problem(request, 404, str(error))
        except NotAllowedError as error:
            return self._problem(request, 403, str(error))
        except (UsageError, msgspec.MsgspecError) as error:
            return self._problem(request, 400, str(error))
        except (LogError, TimeoutError) as error:
            return self._problem(request, 503, str(error) or "Kafka does not answer in time")
        except Exception:
            log.exception("console_failed", method=request.method, what=request.path.split("/")[1])
            return self._problem(request, 500, "a defect of the console; its log has more")

    async def _refusal(self, request: web.Request) -> web.StreamResponse | None:
        """The answer to who may not ask this; `None`: it is answered."""
        if request.path in _OPEN:
            return None
        if not is_our_name(request.headers.get("Host", ""), self._allowed_hosts):
            return self._problem(
                request, 421, "the host name in the address is not one of ours; see [console] allowed_hosts"
            )
        user = await self._auth.who(request)
        if isinstance(user, Denied):
            self._metrics.sign_in_failed(user.reason)
            response = self._problem(request, user.status, user.detail)
            if user.status == 401 and self._asks_for_password:
                response.headers["WWW-Authenticate"] = 'Basic realm="cartsync console", charset="UTF-8"'
            return response
        request[_USER] = user
        connection = request.protocol
        if isinstance(connection, Connection):
            connection.was_right()
        if request.method in ("GET", "HEAD"):
            return None
        if is_cross_site(request.headers):
            return self._problem(request, 403, "a page of another site may not do this")
        try:
            async with asyncio.timeout(BODY_WITHIN_S):
                await request.read()  # kept by the request
        except TimeoutError:
            return self._problem(request, 408, f"the body did not arrive within {BODY_WITHIN_S:g} s; send it again")
        return None

    async def _require_token(self, request: web.Request, user: User, token: str) -> web.StreamResponse | None:
        """Of a change; `None`: it is there."""
        if self._tokens.fits(user, token):
            return None
        said = (
            "this form is not from this console: it was started again, or several run behind one address without sticky"
            " sessions; go back, reload, and do it once more"
        )
        return self._problem(request, 403, said)

    def _problem(self, request: web.Request, status: int, detail: str) -> web.Response:
        if request.path.startswith("/api/") or "text/html" not in request.headers.get("Accept", ""):
            return problem_response(status, detail)
        user = request.get(_USER)
        session = None if user is None else self.session(user)
        text = self._pages.problem(status, title_of(status), detail, session)
        return _html(text, status)

    # --- answers ---

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.json_response({"ok": True, "detail": ""})

    async def _readyz(self, _request: web.Request) -> web.Response:
        # Fixed texts: whoever reaches the port may ask.
        detail = {"following": "", "building": "the index is being built", "away": _away(self._answers)}[
            self._answers.index().state
        ]
        return web.json_response({"ok": not detail, "detail": detail}, status=503 if detail else 200)

    async def _static(self, request: web.Request) -> web.StreamResponse:
        file = _STATIC / Path(request.match_info["file"]).name
        if file.suffix not in _KINDS or not file.is_file():
            raise web.HTTPNotFound
        headers = {"Cache-Control": "no-cache", "Content-Type": f"{_KINDS[file.suffix]}; charset=utf-8"}
        return web.FileResponse(file, headers=headers)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: that something has changed, at most once a second."""
        if self._live >= _LIVE_MAX:
            return self._problem(request, 503, "too many pages listen for changes; reload this one by hand")
        headers = _HEADERS | {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        self._live += 1
        try:
            version, silent_s = (-1, -1), 0.0
            while not self._stopping.is_set():
                view, actions = self._answers.index(), self._answers.actions.version
                if (view.version, actions) != version or view.state != "following":
                    version, silent_s = (view.version, actions), 0.0
                    event = b"event: change\ndata: " + msgspec.json.encode(view) + b"\n\n"
                    await _write(request, response, event)
                elif silent_s >= _ALIVE_EVERY_S:
                    silent_s = 0.0
                    await _write(request, response, b": still here\n\n")
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _LIVE_EVERY_S)
                silent_s += _LIVE_EVERY_S
        except ConnectionError:
            pass  # the page was left
        finally:
            self._live -= 1
        return response

    def _page(self, page: Callable[[web.Request, Session], Awaitable[str]]) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            return _html(await page(request, self.session(request[_USER])))

        return handle

    def _json(self, route: Route) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            user = request[_USER]
            if route.method == "POST":
                token = request.headers.get("X-CSRF-Token", "")
                if not self._tokens.fits(user, token):
                    return self._problem(request, 403, "X-CSRF-Token has to be the csrf of /api/session")
            answer = await route.handle(request, user)
            return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

        return handle

    async def _openapi(self, _request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(describe(self.routes)), content_type="application/json")

    async def _csv(self, request: web.Request) -> web.StreamResponse:
        query = asked.query_in(request)
        wanted, sort = asked.filter_of(query), asked.sort_of(query)
        headers = _HEADERS | {
            "Content-Type": "text/csv; charset=utf-8; header=present",
            "Content-Disposition": 'attachment; filename="orders.csv"',
            "Cache-Control": "no-store",
        }
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        with suppress(ConnectionError):  # whoever asked has left
            async with aclosing(self._answers.export(wanted, sort)) as pieces:
                async for piece in pieces:
                    await _write(request, response, piece)
            await response.write_eof()
        return response

    async def _search(self, request: web.Request) -> web.Response:
        """To the order that is meant, or to those whose reference begins so."""
        text = asked.query_in(request).get("q", "").strip()
        found = await self._answers.find(text) if text else []
        where = order_path(found[0]) if len(found) == 1 else f"/orders?{urlencode({'q': text})}"
        return _see(where)

    async def _letter(self, request: web.Request) -> web.Response:
        user = request[_USER]
        reveal = asked.query_in(request).get("show") == "personal"
        return _html(await self._pages.letter(request, self.session(user), user, reveal=reveal))

    # --- changes ---

    async def _form(self, request: web.Request) -> asked.Query:
        if request.content_type != "application/x-www-form-urlencoded":
            raise web.HTTPUnsupportedMediaType(text="a form is expected")
        return asked.Query((await request.read()).decode("utf-8", "replace"))

    async def _act(self, request: web.Request) -> web.StreamResponse:
        user, form = request[_USER], await self._form(request)
        if (refusal := await self._require_token(request, user, form.get("csrf", ""))) is not None:
            return refusal
        command, why = command_named(form.get("command", "")), asked.why_of(form.get("why", ""))
        if not (subject := form.get("subject", "")):
            wanted = asked.filter_of(asked.Query(form.get("filter", "")))
            return await self._see_action(await self._answers.start_on_all(command, wanted, user, why))
        done = await self._answers.act(command, subject, user, why)
        if command.about == "account":
            return self._see_done(done, user)
        return _see(f"{order_path(subject)}?done={self._answers.actions.keep(done, user).key}")

    def _see_done(self, done: ActionDone, user: User) -> web.Response:
        return _see(f"/done/{self._answers.actions.keep(done, user).key}")

    async def _see_action(self, action: Action) -> web.Response:
        """To its page, which is that of one that has ended if it takes but a moment."""
        await self._answers.actions.ended(action, _SHORT_S)
        return _see(f"/done/{action.key}")

    async def _act_on_letters(self, request: web.Request) -> web.StreamResponse:
        user, form = request[_USER], await self._form(request)
        if (refusal := await self._require_token(request, user, form.get("csrf"))) is not None:
            return refusal
        doing, why = asked.doing_of(form.get("command")), asked.why_of(form.get("why"))
        if letter := form.get("letter"):
            return self._see_done(await self._answers.deal(doing, [asked.place_of(letter)], user, why), user)
        asked.check_of_many(doing)
        reason, subject = form.get("reason"), form.get("subject")
        return await self._see_action(await self._answers.start_dealing(doing, reason, subject, user, why))

    async def _mending(self, request: web.Request) -> web.Response:
        user = request[_USER]
        reveal = asked.query_in(request).get("show") == "personal"
        return _html(await self._pages.mending(request, self.session(user), user, reveal=reveal))

    async def _mend(self, request: web.Request) -> web.StreamResponse:
        """First what would be written is shown; it is written when that was confirmed."""
        user, form = request[_USER], await self._form(request)
        if (refusal := await self._require_token(request, user, form.get("csrf"))) is not None:
            return refusal
        doing, place = DOINGS["mend"], asked.place_in(request)
        event, why = form.get("event"), asked.why_of(form.get("why"))
        problem = await self._answers.check_mended(doing, place, event, user)
        if not problem and form.get("sure") == "1":
            return self._see_done(await self._answers.mend(doing, place, event, user, why), user)
        page = await self._pages.mended(place, event, why, problem, self.session(user))
        return _html(page, 400 if problem else 200)

    async def _shown_done(self, request: web.Request) -> web.Response:
        user = request[_USER]
        action = self._answers.action(request.match_info["key"], user)
        return _html(await self._pages.done(action.view(), self.session(user)))

    async def _stop_action(self, request: web.Request) -> web.StreamResponse:
        user, form = request[_USER], await self._form(request)
        if (refusal := await self._require_token(request, user, form.get("csrf"))) is not None:
            return refusal
        return await self._see_action(self._answers.stop_action(request.match_info["key"], user))

    async def _attempt(self, request: web.Request) -> web.StreamResponse:
        user, form = request[_USER], await self._form(request)
        if (refusal := await self._require_token(request, user, form.get("csrf", ""))) is not None:
            return refusal
        text = form.get("events", "")
        if form.get("as") == "scenario":
            return self._pages.scenario(text)
        return _html(await self._pages.attempted(text, self.session(user)))


def _view_of(request: web.Request) -> ConsoleView | None:
    """What somebody who was let in has asked for; `None`: it is not counted."""
    resource = request.match_info.route.resource
    if _USER not in request or resource is None:
        return None
    return "api" if resource.canonical.startswith("/api/") else _VIEWS.get(resource.canonical)


def _away(answers: Answers) -> str:
    is_index = answers.index().detail.startswith(INDEX_FAILED)
    return INDEX_FAILED if is_index else "Kafka cannot be read now"


async def _write(request: web.Request, response: web.StreamResponse, piece: bytes) -> None:
    """Raises `ConnectionError` when the client has left, or does not read."""
    try:
        async with asyncio.timeout(WRITE_WITHIN_S):
            await response.write(piece)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionAbortedError from None


def _html(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8")


def _see(where: str) -> web.Response:
    return web.Response(status=303, headers={"Location": where})
