"""Problem details (RFC 9457): what is wrong with a request, for programs."""

import msgspec
from aiohttp import web

TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    421: "Misdirected Request",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Problem(msgspec.Struct, omit_defaults=True):
    """A problem of RFC 9457. The type is `about:blank`: the status says what kind it is."""

    title: str
    status: int
    detail: str = ""


def title_of(status: int) -> str:
    """The title of a status."""
    return TITLES.get(status, "Error")


def problem_response(status: int, detail: str) -> web.Response:
    """The answer that tells of it."""
    body = msgspec.json.encode(Problem(title_of(status), status, detail))
    return web.Response(body=body, status=status, headers=_HEADERS)


_HEADERS = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
