"""By which names a port is called, and what stands in the path of an address."""

import re
from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import unquote

from aiohttp import web

from worker import is_loopback

_HOST = re.compile(r"(?:\[(?P<address>[^\]]+)\]|(?P<name>[^:\[\]]*))(?::\d{0,5})?")


def is_our_name(host: str, allowed: Collection[str]) -> bool:
    """Whether a `Host` header is an address, a name of this machine, or one of those that are allowed (in lower case).

    Otherwise a page of another site, whose name was made to point here, could ask with an operator's browser.
    """
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = (match["address"] or match["name"]).lower()
    return _is_address(name) or is_loopback(name) or name in allowed


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def between(request: web.Request, before: str, after: str = "") -> str:
    """The part of the path between two others, decoded once.

    Taken from the raw path: the router's own decoding leaves some escapes as they are. Raises `HTTPNotFound`,
    `HTTPBadRequest`.
    """
    path = request.raw_path.partition("?")[0]
    if not (path.startswith(before) and path.endswith(after)):
        raise web.HTTPNotFound(text="expected a path, got an absolute URL")
    try:
        return unquote(path[len(before) : len(path) - len(after)], errors="strict")
    except UnicodeDecodeError:
        raise web.HTTPBadRequest(text="the path is not percent-encoded UTF-8") from None
