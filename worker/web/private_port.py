"""The private port: probes, status and metrics for machines, orders and accounts for operators.

    GET  /livez, /readyz, /startupz      200 or 503, and why
    GET  /status                         StatusView
    GET  /metrics                        Prometheus
    GET  /orders/{subject}               OrderView; the subject percent-encoded, its slashes too or not
    POST /orders/{subject}/COMMAND       does that to an order (`core.commands`)
    POST /accounts/{name}/COMMAND        does that to an account, or, what is done to parked orders (release), to all
                                         of an account in this worker's partitions; with ?reason_contains=TEXT only to
                                         those whose reason contains it
    POST /accounts/{name}/report         makes its jobs due now in this worker's partitions; with ?page=ID and
                                         &taken=true or =false an operator decides on a page that is stuck
    POST /input/{partition}/skip/{offset}  moves the position in the input; the body says why, and who asked for it

A POST responds when its effect is committed, and says whether there was anything to do. Errors are problem details
(RFC 9457).

Authorization: on loopback, everybody on this machine may use it. Bound to any other address, orders and commands need
the bearer token of `[http] token_file`, and are refused if there is none; probes, status and metrics stay open. `Host`
must be an IP address, localhost or one of `[http] allowed_hosts`: otherwise another site could rebind its name to us
(DNS rebinding) and send requests from an operator's browser. Probes and metrics are exempt.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Collection
from math import inf
from typing import Annotated, Any, Protocol, TypeVar, runtime_checkable

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from schemas.operator_events import BY_MAX, WHY_MAX
from schemas.views import OrderView, StatusView
from worker import is_cross_site, is_loopback
from worker.core.commands import COMMANDS, About, Command
from worker.errors import LogError, UsageError
from worker.metrics import CONTENT_TYPE
from worker.ports import CommandOutcome
from worker.web.connections import Connection, Connections
from worker.web.names import between, is_our_name
from worker.web.problems import problem_response, title_of

log = structlog.get_logger(__name__)

RELEASE_ALL_WITHIN_S = 600.0
"""How long the release of many orders may take, in many transactions; what was committed by then stays committed."""
COMMIT_WITHIN_S = 45.0
"""How long a POST waits for its commit: longer than a crashed broker delays one (25 s)."""
BODY_MAX_BYTES = 4096
"""It says who asks, and why."""
BACKLOG = 128
"""The kernel's queue of connections that were not accepted yet."""
STOP_S = 1.0
"""How long responses in progress may still take when the port closes."""

REST = 10
"""Status and metrics are cached for this multiple of the time that they took to render: with a million orders they cost
a third of a second, and anybody may request them.
"""
REST_MAX_S = 5.0
"""What is counted in slices takes long where much else is done: pages must not be old then."""
HEADER_WITHIN_S = 5.0
"""From the connection, or the end of a response, to the complete header of the next request."""
CONNECTIONS_MAX = 64
_OPEN = frozenset({"/livez", "/readyz", "/startupz", "/metrics"})
"""Reveals nothing about orders, and is requested by programs that know neither our host name nor a token."""
_UNGUARDED = _OPEN | {"/status"}
_ANY = r"{name:[\s\S]+}"
"""A reference may contain newlines."""
_encode = msgspec.json.Encoder().encode


class Probed(Protocol):
    """What every private port serves."""

    def livez(self) -> tuple[bool, str]:
        """Whether the process is alive, and if not, why."""
        ...

    def readyz(self) -> tuple[bool, str]:
        """Whether it is ready, and if not, why."""
        ...

    def startupz(self) -> tuple[bool, str]:
        """Whether it has started, and if not, what it is waiting for."""
        ...

    def metrics_page(self) -> bytes:
        """The metrics, in the Prometheus text format."""
        ...


@runtime_checkable
class WorkerControl(Probed, Protocol):
    """What a worker's private port serves. A provider's outage fails none of the probes."""

    async def count_waiting(self) -> None:
        """Counts the orders that wait, in slices, for `status` and `metrics_page`, which then hold nobody up."""
        ...

    def status(self) -> StatusView:
        """The current state of partitions and accounts."""
        ...

    def show(self, subject: str) -> OrderView | None:
        """The current state of an order; `None` if this worker does not have it."""
        ...

    async def operate(self, command: Command, target: str, by: str, why: str) -> CommandOutcome:
        """Does to an order or an account what an operator asks; returns once that is committed.

        Raises `UsageError` if the target is unknown or not in our partitions, `LogError` if it was not committed.
        """
        ...

    async def operate_parked(self, command: Command, account: str, reason_contains: str, by: str, why: str) -> int:
        """Does it to the parked orders of an account, or only those whose reason contains a text; returns to how many
        once that is committed. Raises `UsageError` if the account is unknown, `LogError`.
        """
        ...

    async def report(self, account: str) -> int:
        """Makes the jobs of an account due now; returns how many once that is committed. Raises `UsageError` if the
        account is unknown or has no jobs, `LogError`.
        """
        ...

    async def decide_page(self, account: str, page_id: str, *, is_taken: bool) -> bool:
        """Applies an operator's decision on a stuck page of an account's reports, and returns once it is committed;
        false: no page with this id is stuck. Raises like `report`.
        """
        ...

    async def skip(self, partition: int, offset: int) -> int:
        """Moves the position of a partition; returns the previous one once that is committed.

        Raises `UsageError` if the partition is not served here or the offset is invalid, `LogError` like `operate`.
        """
        ...


class Probe(msgspec.Struct):
    """The response of a probe."""

    ok: bool
    detail: str


class Done(msgspec.Struct):
    """The response of a POST: whether there was anything to do, the result in words, and the order's new state."""

    done: bool = True
    order: OrderView | None = None
    detail: str = ""
    released: int | None = None
    """The number of orders that were released, for all parked ones of an account."""
    everywhere: bool = False
    """It was asked of all workers; otherwise of this one alone."""


class Access(msgspec.Struct, frozen=True):
    """Who may use the port from other machines."""

    token: str = ""
    """Required for orders and commands if the port is not bound to loopback; empty: they are refused."""
    allowed_hosts: Collection[str] = ()
    """Allowed host names in requests, in lower case."""


Who = Annotated[str, msgspec.Meta(max_length=BY_MAX)]


class Reason(msgspec.Struct, forbid_unknown_fields=True):
    """An operator's reason for a change that the system cannot justify by itself."""

    why: Annotated[str, msgspec.Meta(min_length=1, max_length=WHY_MAX)]
    who: Who = ""


class Asking(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a command; none says nothing."""

    why: Annotated[str, msgspec.Meta(max_length=WHY_MAX)] = ""
    who: Who = ""


class Moved(msgspec.Struct):
    """The response of a skip."""

    partition: int
    before: int
    """The previous next offset."""
    offset: int
    """The new next offset."""
    done: bool = True


class PrivatePort:
    """The server of the private port, from `start` to `stop`."""

    def __init__(
        self, control: Probed, access: Access | None = None, now: Callable[[], float] = time.perf_counter
    ) -> None:
        """`control`: only a `WorkerControl` has orders, a status and commands. `now`: seconds of a clock that also
        advances within one turn of the loop.
        """
        self.access = access or Access()
        self._now = now
        self._control = control
        self._is_local = False
        self._connections = Connections(
            count_max=CONNECTIONS_MAX,
            header_within_s=lambda: HEADER_WITHIN_S,
            error_body=title_of,
            linger_s=STOP_S,
        )

    async def start(self, host: str, port: int) -> str:
        """Starts serving; returns the base URL. Port 0: any free port.

        Raises `OSError` if the port is unavailable.
        """
        self._is_local = is_loopback(host)
        app = _create_app(self._control, self._guarded, self._now)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S)
        return await self._connections.start(runner, host, port, BACKLOG)

    async def stop(self) -> None:
        """Stops serving, within `STOP_S`."""
        await self._connections.stop()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Checks authorization, turns errors into problem details, and applies the limits of the connection."""
        connection = request.protocol
        if isinstance(connection, Connection):
            connection.header_came()
        try:
            return self._refusal(request) or await handler(request)
        except web.HTTPException as error:
            detail = "" if error.text is None or error.text.startswith(f"{error.status}:") else error.text
            response = problem_response(error.status, detail)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
            return response
        except (LogError, TimeoutError):
            return problem_response(503, "commit not confirmed; check the order and try again")
        except Exception:
            log.exception("operation_failed", method=request.method, what=request.path.split("/")[1])
            return problem_response(500, "internal error; see the worker's log")
        finally:
            if isinstance(connection, Connection):
                connection.await_header()

    def _refusal(self, request: web.Request) -> web.Response | None:
        """The response to an unauthorized request; `None`: it is authorized."""
        path = request.raw_path.partition("?")[0]
        if path not in _OPEN and not is_our_name(request.headers.get("Host", ""), self.access.allowed_hosts):
            return problem_response(421, "unknown host name; see [http] allowed_hosts")
        if request.method == "POST" and is_cross_site(request.headers):
            return problem_response(403, "cross-site requests are not allowed")
        if self._is_local or path in _UNGUARDED:
            return None
        if not self.access.token:
            return problem_response(
                403, "orders and commands are available on loopback only, unless [http] token_file is set"
            )
        given = request.headers.get("Authorization", "")
        # As bytes, because `compare_digest` accepts only ASCII strings.
        if hmac.compare_digest(given.encode("utf-8", "replace"), f"Bearer {self.access.token}".encode()):
            return None
        needed = "this needs the token from [http] token_file: Authorization: Bearer …"
        refused = "the token was refused: it is not the one in [http] token_file"
        response = problem_response(401, refused if given else needed)
        response.headers["WWW-Authenticate"] = "Bearer"
        return response


def _create_app(control: Probed, guarded: Any, now: Callable[[], float]) -> web.Application:
    app = web.Application(middlewares=[guarded], client_max_size=BODY_MAX_BYTES)
    for path, probe in (
        ("/livez", control.livez),
        ("/readyz", control.readyz),
        ("/startupz", control.startupz),
    ):
        app.router.add_get(path, _probe(probe))
    page = _Kept(control.metrics_page, now, control.count_waiting if isinstance(control, WorkerControl) else None)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=await page.get(), headers={"Content-Type": CONTENT_TYPE})

    app.router.add_get("/metrics", metrics)
    if isinstance(control, WorkerControl):
        _add_worker(app, control, now)
    return app


def _add_worker(app: web.Application, control: WorkerControl, now: Callable[[], float]) -> None:
    routes = _Routes(control, now)
    app.router.add_get("/status", routes.status)
    app.router.add_get(f"/orders/{_ANY}", routes.order)
    for command in COMMANDS.values():
        app.router.add_post(f"/{command.about}s/{_ANY}/{command.name}", routes.change(command))
        if command.of_parked:
            app.router.add_post(f"/accounts/{_ANY}/{command.name}", routes.change_parked(command))
    app.router.add_post(f"/accounts/{_ANY}/report", routes.report)
    app.router.add_post(r"/input/{partition:\d{1,6}}/skip/{offset:\d{1,18}}", routes.skip)


class _Kept:
    """Caches an expensive page, so that rendering it takes a small share of the loop's time at any request rate."""

    def __init__(
        self, make: Callable[[], bytes], now: Callable[[], float], prepare: Callable[[], Awaitable[None]] | None
    ) -> None:
        """`prepare`: comes first, and lets others have the loop."""
        self._make = make
        self._now = now
        self._prepare = prepare
        self._turn = asyncio.Lock()
        self._made = b""
        self._until = -inf

    async def get(self) -> bytes:
        """The cached page, rendered again if it has expired."""
        async with self._turn:
            began = self._now()
            if began >= self._until:
                if self._prepare is not None:
                    await self._prepare()
                self._made = self._make()
                made = self._now()
                self._until = made + min(REST * (made - began), REST_MAX_S)
            return self._made


class _Routes:
    """The handlers, except for the probes."""

    def __init__(self, control: WorkerControl, now: Callable[[], float]) -> None:
        self._control = control
        self._status = _Kept(lambda: _encode(control.status()), now, control.count_waiting)

    async def status(self, _request: web.Request) -> web.Response:
        return web.Response(body=await self._status.get(), headers=_JSON)

    async def order(self, request: web.Request) -> web.Response:
        subject = between(request, "/orders/", "")
        view = self._control.show(subject)
        if view is None:
            return problem_response(404, f"no order {subject!r} in the partitions of this worker")
        return _json(view)

    def change(self, command: Command) -> Handler:
        """The handler for a POST that changes an order or an account."""

        async def act(target: str, _reason_contains: str, asking: Asking) -> Done:
            came = await _in_time(self._control.operate(command, target, asking.who, asking.why))
            view = self._control.show(target) if command.about == "order" else None
            words = came.words or command.words(came.done, None if view is None else view.status)
            return Done(came.done, view, words, everywhere=came.everywhere)

        return self._handler(command, command.about, command.name, act)

    def change_parked(self, command: Command) -> Handler:
        """The handler for a POST that changes the parked orders of an account."""

        async def act(target: str, reason_contains: str, asking: Asking) -> Done:
            acting = self._control.operate_parked(command, target, reason_contains, asking.who, asking.why)
            changed = await _in_time(acting, RELEASE_ALL_WITHIN_S)
            words = command.words_of_parked(changed, is_filtered=bool(reason_contains))
            return Done(changed > 0, detail=words, released=changed)

        return self._handler(command, "account", f"{command.name}_all", act)

    def _handler(
        self, command: Command, about: About, action: str, act: Callable[[str, str, Asking], Awaitable[Done]]
    ) -> Handler:
        """`act`: does it to an order or an account, or, of an account, to what contains a text."""

        async def handle(request: web.Request) -> web.Response:
            target = between(request, f"/{about}s/", f"/{command.name}")
            if isinstance(asking := await _asking(request, command), web.Response):
                return asking
            try:
                done = await act(target, request.query.get("reason_contains", ""), asking)
            except UsageError as error:
                return self._refused(about, target, error)
            count = {"done": done.done} if done.released is None else {"released": done.released}
            fields = {about: target, **count, "who": asking.who, "peer": request.remote}
            log.info("operator_command", action=action, **fields)
            return _json(done)

        return handle

    async def report(self, request: web.Request) -> web.Response:
        name, page_id = between(request, "/accounts/", "/report"), request.query.get("page", "")
        taken = request.query.get("taken", "")
        if taken not in ("true", "false") if page_id else taken:
            return problem_response(
                400, "page needs the id of a page and taken=true or taken=false; without page no taken"
            )
        word = "taken" if taken == "true" else "not taken"
        try:
            if page_id:
                count = int(await _in_time(self._control.decide_page(name, page_id, is_taken=taken == "true")))
                words = f"page {word}" if count else "no page with this id waits for an operator"
            else:
                count = await _in_time(self._control.report(name))
                words = f"{count} jobs are due now" if count else "none of its jobs is in this worker's partitions"
        except UsageError as error:
            return self._refused("account", name, error)
        action = f"page_{word.replace(' ', '_')}" if page_id else "report"
        log.info("operator_command", action=action, account=name, done=count > 0, peer=request.remote)
        return _json(Done(count > 0, detail=words))

    def _refused(self, about: About, name: str, error: UsageError) -> web.Response:
        if about == "order":
            known = self._control.show(name) is not None
        else:
            known = any(view.name == name for view in self._control.status().accounts)
        return problem_response(409 if known else 404, str(error))

    async def skip(self, request: web.Request) -> web.Response:
        partition, offset = int(request.match_info["partition"]), int(request.match_info["offset"])
        try:
            reason = msgspec.json.decode(await request.read(), type=Reason)
        except msgspec.MsgspecError:
            return problem_response(400, 'the body must give a reason: {"why": "…", "who": "…"}')
        before = offset

        async def act() -> None:
            nonlocal before
            before = await self._control.skip(partition, offset)

        try:
            await _in_time(act())
        except UsageError as error:
            served = any(view.partition == partition for view in self._control.status().partitions)
            return problem_response(409 if served else 404, str(error))
        fields = {"partition": partition, "before": before, "offset": offset}
        log.warning("operator_command", action="skip", why=reason.why, who=reason.who, peer=request.remote, **fields)
        return _json(Moved(partition, before, offset))


async def _asking(request: web.Request, command: Command) -> Asking | web.Response:
    """Who asks, and why; or what is wrong with that."""
    body = await request.read()
    try:
        asking = msgspec.json.decode(body, type=Asking) if body else Asking()
    except msgspec.MsgspecError:
        return problem_response(400, 'the body may say who asks, and why: {"why": "…", "who": "…"}')
    if command.needs_why and not asking.why:
        return problem_response(400, f'{command.name} needs a reason in the body: {{"why": "…", "who": "…"}}')
    return asking


_Done = TypeVar("_Done")


async def _in_time(act: Awaitable[_Done], within_s: float = COMMIT_WITHIN_S) -> _Done:
    async with asyncio.timeout(within_s):
        return await act


def _probe(ask: Callable[[], tuple[bool, str]]) -> Handler:
    async def handle(_request: web.Request) -> web.Response:
        ok, detail = ask()
        return _json(Probe(ok, detail), 200 if ok else 503)

    return handle


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=_encode(body), status=status, headers=_JSON)


_JSON = {"Content-Type": "application/json", "Cache-Control": "no-store"}
