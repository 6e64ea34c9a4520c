"""An operator's commands to a running worker, over its private port: `order show`, those of `core.commands`, `account
report`, `input skip`.

If no worker responds, or another one serves the order, `order show` reads the state topic; without a configured Kafka
it reads the last demo's orders (`.cartsync/demo.json`).
"""

import getpass
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

import msgspec

from schemas.views import ItemView, OrderView, StatusView
from worker.core.amounts import amount_text, number_text
from worker.core.commands import Command
from worker.errors import CartsyncError, InvariantError, LogError, UsageError

DEMO_FILE = Path(".cartsync/demo.json")
ANSWER_WITHIN_S = 60.0
"""Longer than the port waits for a commit."""
RELEASE_ALL_WITHIN_S = 660.0
"""Longer than the port takes to release many orders."""

# The private port is called directly, whatever proxy the environment names.
_open = build_opener(ProxyHandler({})).open


class Port(str):
    """The URL of a worker's private port, with its token."""

    __slots__ = ("token",)
    token: str

    def __new__(cls, url: str, token: str = "") -> "Port":
        """`token`: empty where none is needed."""
        port = super().__new__(cls, url)
        port.token = token
        return port


class NoAnswerError(LogError):
    """There is no response from the worker's private port."""


class UnknownOrderError(UsageError):
    """There is no such order or account."""


class _Problem(msgspec.Struct):
    """RFC 9457."""

    title: str = ""
    detail: str = ""


class _Done(msgspec.Struct):
    """The response to a POST."""

    detail: str = ""


class _Moved(msgspec.Struct):
    before: int
    offset: int


class _Demo(msgspec.Struct):
    orders: dict[str, OrderView]


def show_order(
    ref: str, url: str, *, as_json: bool, topic: Callable[[str], list[OrderView]] | None, demo_file: Path = DEMO_FILE
) -> int:
    """Prints an order; 0. `ref`: `account/reference`, or a reference that only one account has. `topic`: reads matching
    orders from the state topic; `None`: there is none.

    Raises `UsageError` if there is no such order, or several, `NoAnswerError` if there is nowhere to read it.
    """
    try:
        _, view = _find(ref, url)
    except (NoAnswerError, UnknownOrderError) as error:
        view = _shown_elsewhere(ref, error, topic, demo_file)
    print(msgspec.json.format(msgspec.json.encode(view)).decode() if as_json else "\n".join(_lines(view)))
    return 0


def _shown_elsewhere(
    ref: str, error: CartsyncError, topic: Callable[[str], list[OrderView]] | None, demo_file: Path
) -> OrderView:
    """The order, if the worker does not have it. Raises `error` if there is no other place."""
    if topic is not None:
        source = "the state topic"
    elif not isinstance(error, NoAnswerError):
        raise error
    elif demo_file.is_file():
        source = f"{demo_file}, from the last demo"
    else:
        where = "in ./cartsync.toml, or the file that --config or CARTSYNC_CONFIG names"
        raise NoAnswerError(
            f"{error}; give the worker's private port with --url, or configure [kafka] {where}"
        ) from None
    sys.stderr.write(f"{error}; reading {source}\n")
    orders = _read_demo(demo_file) if topic is None else {view.subject: view for view in topic(ref)}
    _, view = _pick(ref, orders.get, {subject.partition("/")[0] for subject in orders}, source)
    return view


def operate(command: Command, target: str, url: str, *, who: str, why: str, as_json: bool) -> int:
    """Does to an order (`account/reference`, or a reference that only one account has) or an account what an operator
    asks, at one worker; 0 once that is committed, or if nothing is to do. Raises like `show_order`.
    """
    is_account = command.about == "account"
    named = target if is_account else _find(target, url)[0]
    asking = msgspec.json.encode({"why": why, "who": who})
    body = ask(url, "POST", f"/{command.about}s/{quote(named, safe='')}/{command.name}", asking)
    print(body.decode() if as_json else f"{'account ' if is_account else ''}{printable(named)}: {_detail(body)}")
    return 0


def operate_parked(
    command: Command, account: str, reason_contains: str, url: str, *, who: str, why: str, as_json: bool
) -> int:
    """Does it to the parked orders of an account in the partitions of one worker; 0 once that is committed.

    Raises `UsageError` if there is no such account, `NoAnswerError`, `LogError` if only a part may be committed.
    """
    query = f"?reason_contains={quote(reason_contains, safe='')}" if reason_contains else ""
    path = f"/accounts/{quote(account, safe='')}/{command.name}{query}"
    body = ask(url, "POST", path, msgspec.json.encode({"why": why, "who": who}), within_s=RELEASE_ALL_WITHIN_S)
    where = f"in the partitions of the worker at {url}"
    print(body.decode() if as_json else f"account {printable(account)}: {_detail(body)} {where}")
    return 0


def _detail(body: bytes) -> str:
    return printable(msgspec.json.decode(body, type=_Done).detail)


def report_now(name: str, url: str, *, page_id: str = "", is_taken: bool = False, as_json: bool) -> int:
    """Makes an account's jobs due now in the partitions of one worker, or decides whether one of its stuck pages was
    accepted; 0 once that is committed. Raises `UsageError` for an unknown account, or one without jobs, and
    `NoAnswerError`.
    """
    query = f"?page={quote(page_id, safe='')}&taken={str(is_taken).lower()}" if page_id else ""
    body = ask(url, "POST", f"/accounts/{quote(name, safe='')}/report{query}")
    where = f"in the partitions of the worker at {url}"
    print(body.decode() if as_json else f"account {printable(name)}: {_detail(body)} {where}")
    return 0


def skip_input(
    partition: int,
    offset: int,
    why: str,
    urls: Sequence[str],
    *,
    who: str,
    as_json: bool,
    owner: Callable[[], str | None],
) -> int:
    """Moves the position of a partition, at the worker of `urls` that serves it; 0 once that is committed. `owner`:
    returns the partition's last owner.

    Raises `UsageError` if none of them serves it or the position cannot be moved there, `NoAnswerError`.
    """
    for url in urls:
        status = read_status(url)
        if any(view.partition == partition for view in status.partitions):
            break
        if 0 < status.event_partitions <= partition:
            count = status.event_partitions
            raise UsageError(f"there is no partition {partition}: the event topic has {count}, the first is 0")
    else:
        last = owner()
        hint = f"its last owner is worker {last}: pass its private port with --url" if last else "try again shortly"
        raise UsageError(f"partition {partition} is not served at {' or '.join(urls)}; {hint}")
    body = ask(url, "POST", f"/input/{partition}/skip/{offset}", msgspec.json.encode({"why": why, "who": who}))
    if as_json:
        print(body.decode())
    else:
        moved = msgspec.json.decode(body, type=_Moved)
        print(f"partition {partition}: moved from offset {moved.before} to {moved.offset}")
    return 0


def _find(ref: str, url: str) -> tuple[str, OrderView]:
    def get(subject: str) -> OrderView | None:
        try:
            return msgspec.json.decode(ask(url, "GET", f"/orders/{quote(subject, safe='')}"), type=OrderView)
        except UnknownOrderError:  # not every refusal: a missing token is no unknown order
            return None

    accounts = [account.name for account in read_status(url).accounts]
    return _pick(ref, get, accounts, f"the worker at {url} (another one may serve it)")


def read_status(url: str, *, within_s: float = ANSWER_WITHIN_S) -> StatusView:
    """What a worker says of itself. Raises `NoAnswerError`, `LogError`, `UsageError`."""
    _check(url)
    try:
        return msgspec.json.decode(ask(url, "GET", "/status", within_s=within_s), type=StatusView)
    except (msgspec.MsgspecError, UsageError, InvariantError):
        raise NoAnswerError(f"{url} is not a cartsync worker of this version") from None


def who() -> str:
    """Who does something here: `user@host`."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def means(ref: str) -> Callable[[str], bool]:
    """Whether a person who says this may mean the order: `account/reference`, or a reference of any account."""
    return lambda subject: ref in (subject, subject.partition("/")[2])


def ambiguous(ref: str, subjects: Iterable[str]) -> UsageError:
    """Several orders may be meant."""
    return UsageError(f"{printable(ref)} is ambiguous: use {' or '.join(map(printable, subjects))}")


def _pick(
    ref: str, get: Callable[[str], OrderView | None], accounts: Collection[str], where: str
) -> tuple[str, OrderView]:
    """A reference may contain slashes, so `ref` may be a reference without an account."""
    if "/" in ref and (view := get(ref)) is not None:
        return ref, view
    subjects = [f"{account}/{ref}" for account in sorted(accounts)]
    found = [(subject, view) for subject in subjects if (view := get(subject)) is not None]
    if len(found) > 1:
        raise ambiguous(ref, [subject for subject, _ in found])
    if not found:
        raise UnknownOrderError(f"no order {ref} in {where}")
    return found[0]


def _read_demo(file: Path) -> dict[str, OrderView]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Demo).orders
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from None


def ask(url: str, method: str, path: str, body: bytes = b"", *, within_s: float = ANSWER_WITHIN_S) -> bytes:
    """The response's body. Raises `UsageError` for 4xx, `LogError` for 503, `NoAnswerError`, `InvariantError`."""
    _check(url)
    request = Request(url.rstrip("/") + path, method=method, data=body if method == "POST" else None)  # noqa: S310
    if isinstance(url, Port) and url.token:
        request.add_unredirected_header("Authorization", f"Bearer {url.token}")
    try:
        try:
            with _open(request, timeout=within_s) as response:
                content: bytes = response.read()
                return content
        except HTTPError as error:
            with error:
                refused = error.code, error.read()  # which the worker may not live to send
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise NoAnswerError(f"no worker responds at {url}: {reason}") from None
    raise _refusal(*refused)


def _check(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url}: expected the worker's private port as http://host:port")


def _refusal(status: int, body: bytes) -> Exception:
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except msgspec.DecodeError:
        problem = _Problem()
    text = problem.detail or problem.title or f"status {status}"
    if status < 500:
        return UnknownOrderError(text) if status == 404 else UsageError(text)
    return LogError(text) if status == 503 else InvariantError(text)


# --- output ---


def _lines(view: OrderView) -> Iterator[str]:
    yield f"{printable(view.subject)}: {view.status}"
    if view.reason:
        yield f"  why        {printable(view.reason)}"
    for title, total, items in (
        ("shipped", view.shipped_minor, view.shipped),
        ("unshipped", view.unshipped_minor, view.unshipped),
    ):
        if total is not None:
            yield f"  {title:<10} {amount_text(total, view.currency or '')}".rstrip()
        for item in items or ():
            yield f"  {'':<10} {_item(item, view.currency or '')}"
    yield from _apart(view)
    for note in view.notes:
        yield f"  note       {printable(note)}"
    yield f"  revision   {view.revision}, acknowledged {view.acked or 'none'}"
    if view.in_flight:
        yield "  next       an attempt is under way"
    elif view.next_attempt_s is not None:
        yield f"  next       in {view.next_attempt_s:.1f} s"
    if view.partition >= 0:
        yield f"  partition  {view.partition}"


def _apart(view: OrderView) -> Iterator[str]:
    """Where the provider has other money than the carts come to, as of the last look: at Qliro that may stay so."""
    known = None if view.provider is None else view.provider.known
    for cart, minor in (known or {}).get("differs_minor", {}).items():
        if minor:
            more = "more" if minor > 0 else "less"
            amount = amount_text(abs(minor), view.currency or "").rstrip()
            yield f"  differs    the provider has {amount} {more} {cart} than the carts"


def _item(item: ItemView, currency: str) -> str:
    what = printable(item.reference or item.type)
    count = f"{item.quantity} × " if item.quantity else ""
    name = f" ({printable(item.name)})" if item.name else ""
    return f"{number_text(item.total_minor, currency):>10}  {count}{what}{name}"


def printable(text: str) -> str:
    """Without terminal control sequences; a space that must not break, as in amounts, is a space."""
    spaced = text.replace("\u00a0", " ")
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in spaced)
