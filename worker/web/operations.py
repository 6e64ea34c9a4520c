"""The private port: probes, status and metrics for machines, orders and accounts for operators.

    GET  /livez, /readyz, /startupz      200 or 503, and why
    GET  /status                         StatusView
    GET  /metrics                        Prometheus
    GET  /orders/{subject}               OrderView; the subject percent-encoded, its slashes too or not
    POST /orders/{subject}/release       what was parked is tried again
    POST /orders/{subject}/resend        the newest revision is owed again, whatever was acknowledged
    POST /accounts/{name}/resume         ends an account's pause
    POST /input/{partition}/skip/{offset}  the position in the input is moved; a body says why, and who wants it

A POST is answered when it is committed. Errors are problem details (RFC 9457). Nobody is asked who they are:
bind the port to loopback or to a private network.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Protocol
from urllib.parse import unquote, urlsplit

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from schemas.views import OrderView, StatusView
from worker.errors import LogError, UsageError
from worker.metrics import CONTENT_TYPE

log = structlog.get_logger(__name__)

COMMIT_WITHIN_S = 45.0
"""How long a POST waits for its commit: longer than a broker that crashes stalls one (25 s)."""
BODY_MAX_BYTES = 4096
"""Only that of a skip is looked at."""
STOP_S = 1.0
"""How long answers under way may still take when the port closes."""

_ANY = r"{name:[\s\S]+}"
"""A reference may hold line feeds."""
_encode = msgspec.json.Encoder().encode


class Operated(Protocol):
    """What the port shows and does: the worker. A provider's outage makes none of the probes fail."""

    def livez(self) -> tuple[bool, str]:
        """Whether the process should go on, and why not."""
        ...

    def readyz(self) -> tuple[bool, str]:
        """Whether it does its work, and why not."""
        ...

    def startupz(self) -> tuple[bool, str]:
        """Whether its start is behind it, and what it waits for."""
        ...

    def status(self) -> StatusView:
        """Partitions and accounts as they stand."""
        ...

    def metrics_page(self) -> bytes:
        """The metrics, in the Prometheus text format."""
        ...

    def show(self, subject: str) -> OrderView | None:
        """An order as it stands; `None` when it is not known here."""
        ...

    async def release(self, subject: str) -> None:
        """Releases a parked order; returns when that is committed.

        Raises `UsageError` when the order is unknown or not one of ours, `LogError` when it is not committed.
        """
        ...

    async def resend(self, subject: str) -> None:
        """Makes the newest revision owed again; returns when that is committed. Raises as `release` does."""
        ...

    async def resume_account(self, name: str) -> None:
        """Ends an account's pause. Raises `UsageError` when there is no such account."""
        ...

    async def skip(self, partition: int, offset: int) -> int:
        """Moves the position of a partition; returns where it was, once that is committed.

        Raises `UsageError` when the partition is not served here or the offset cannot be, `LogError` as `release` does.
        """
        ...


class Problem(msgspec.Struct, omit_defaults=True):
    """A problem of RFC 9457. The type is `about:blank`: the status says what kind it is."""

    title: str
    status: int
    detail: str = ""


class Probe(msgspec.Struct):
    """The answer of a probe."""

    ok: bool
    detail: str


class Done(msgspec.Struct):
    """The answer of a POST: the order as it stands after it, or nothing more than that."""

    done: bool = True
    order: OrderView | None = None


class Reason(msgspec.Struct, forbid_unknown_fields=True):
    """What an operator says of a change that is nobody's but his."""

    why: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    who: Annotated[str, msgspec.Meta(max_length=100)] = ""


class Moved(msgspec.Struct):
    """The answer of a skip."""

    partition: int
    before: int
    """The next offset, as it was."""
    offset: int
    """As it is now."""
    done: bool = True


class Operations:
    """The server of the private port, from `start` to `stop`."""

    def __init__(self, operated: Operated) -> None:
        self._operated = operated
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> str:
        """Begins to serve; returns the base URL. Port 0 takes any that is free.

        Raises `OSError` when the port cannot be had.
        """
        runner = web.AppRunner(create_app(self._operated), access_log=None, shutdown_timeout=STOP_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        bound = runner.addresses[0][1]
        return f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"

    async def stop(self) -> None:
        """Stops serving, within `STOP_S`."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()


def create_app(operated: Operated) -> web.Application:
    """The application of the private port."""
    routes = _Routes(operated)
    app = web.Application(middlewares=[_guarded], client_max_size=BODY_MAX_BYTES)
    for path, probe in (
        ("/livez", operated.livez),
        ("/readyz", operated.readyz),
        ("/startupz", operated.startupz),
    ):
        app.router.add_get(path, _probe(probe))
    app.router.add_get("/status", routes.status)
    app.router.add_get("/metrics", routes.metrics)
    app.router.add_get(f"/orders/{_ANY}", routes.order)
    for action, act in (("release", operated.release), ("resend", operated.resend)):
        app.router.add_post(f"/orders/{_ANY}/{action}", routes.change(action, act))
    app.router.add_post(f"/accounts/{_ANY}/resume", routes.resume)
    app.router.add_post(r"/input/{partition:\d{1,6}}/skip/{offset:\d{1,18}}", routes.skip)
    return app


class _Routes:
    """What answers, probes apart."""

    def __init__(self, operated: Operated) -> None:
        self._operated = operated

    async def status(self, _request: web.Request) -> web.Response:
        return _json(self._operated.status())

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._operated.metrics_page(), headers={"Content-Type": CONTENT_TYPE})

    async def order(self, request: web.Request) -> web.Response:
        subject = _between(request, "/orders/", "")
        view = self._operated.show(subject)
        if view is None:
            return _problem(404, f"no order {subject!r} in the partitions of this worker")
        return _json(view)

    def change(self, action: str, act: Callable[[str], Awaitable[None]]) -> Handler:
        """The handler of a POST that changes an order."""

        async def handle(request: web.Request) -> web.Response:
            subject = _between(request, "/orders/", f"/{action}")
            try:
                await _in_time(act(subject))
            except UsageError as error:
                return _problem(404 if self._operated.show(subject) is None else 409, str(error))
            log.info("operator_acted", action=action, order=subject)
            return _json(Done(order=self._operated.show(subject)))

        return handle

    async def resume(self, request: web.Request) -> web.Response:
        name = _between(request, "/accounts/", "/resume")
        try:
            await _in_time(self._operated.resume_account(name))
        except UsageError as error:
            known = any(account.name == name for account in self._operated.status().accounts)
            return _problem(409 if known else 404, str(error))
        log.info("operator_acted", action="resume", account=name)
        return _json(Done())

    async def skip(self, request: web.Request) -> web.Response:
        partition, offset = int(request.match_info["partition"]), int(request.match_info["offset"])
        try:
            reason = msgspec.json.decode(await request.read(), type=Reason)
        except msgspec.MsgspecError:
            return _problem(400, 'say why, as {"why": "…", "who": "…"}')
        before = offset

        async def act() -> None:
            nonlocal before
            before = await self._operated.skip(partition, offset)

        try:
            await _in_time(act())
        except UsageError as error:
            served = any(view.partition == partition for view in self._operated.status().partitions)
            return _problem(409 if served else 404, str(error))
        fields = {"partition": partition, "before": before, "offset": offset}
        log.warning("operator_acted", action="skip", why=reason.why, who=reason.who, **fields)
        return _json(Moved(partition, before, offset))


async def _in_time(act: Awaitable[None]) -> None:
    async with asyncio.timeout(COMMIT_WITHIN_S):
        await act


def _probe(ask: Callable[[], tuple[bool, str]]) -> Handler:
    async def handle(_request: web.Request) -> web.Response:
        ok, detail = ask()
        return _json(Probe(ok, detail), 200 if ok else 503)

    return handle


def _between(request: web.Request, before: str, after: str) -> str:
    """The part of the path between two others, decoded once.

    Taken from the raw path: the router's own decoding leaves some escapes as they are.
    """
    path = request.raw_path.partition("?")[0]
    if not (path.startswith(before) and path.endswith(after)):
        raise web.HTTPNotFound(text="the path has to be that of the URL, not the URL itself")
    try:
        return unquote(path[len(before) : len(path) - len(after)], errors="strict")
    except UnicodeDecodeError:
        raise web.HTTPBadRequest(text="the path is not UTF-8, percent-encoded") from None


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns what goes wrong into problem details, and lets no page of another site act for an operator."""
    try:
        if request.method == "POST" and _is_foreign(request):
            return _problem(403, "a page of another site may not do this")
        return await handler(request)
    except web.HTTPException as error:
        detail = "" if error.text is None or error.text.startswith(f"{error.status}:") else error.text
        response = _problem(error.status, detail)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except (LogError, TimeoutError):
        return _problem(503, "not committed, or not known to be; look at it and try again")
    except Exception:
        log.exception("operation_failed", method=request.method, path=request.path)
        return _problem(500, "a defect of the worker; its log has more")


def _is_foreign(request: web.Request) -> bool:
    """Whether a browser sends this on behalf of a page that is not ours (a form needs no leave to post)."""
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return True
    origin = request.headers.get("Origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("Host")


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=_encode(body), status=status, headers=_JSON)


def _problem(status: int, detail: str) -> web.Response:
    problem = Problem(_TITLES.get(status, "Error"), status, detail)
    return web.Response(body=_encode(problem), status=status, headers=_PROBLEM)


_JSON = {"Content-Type": "application/json", "Cache-Control": "no-store"}
_PROBLEM = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
_TITLES = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
