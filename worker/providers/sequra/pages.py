"""Pages of the delivery report: which orders stand in one, its bytes, and what becomes of it. Pure.

A page is written down before it is sent: each order's record keeps its entries (`memory.UnderWay`), the page keeps who
stands in it, and the same bytes are made of them as often as it is sent. seQura answers for a page as a whole, and adds
what it says; so what may have been taken is never said in other words.

| page | what happened | becomes | its orders |
|---|---|---|---|
| any | 2xx | gone | told |
| any | surely not taken (429, 503, no connection) | the same, after a backoff | |
| any | nobody knows (timeout, 502, a torn answer) | **in doubt**, the same after the hold | |
| any | 500, 501, 505 | **in doubt**, the same after a backoff | |
| any | 401, 403 | the same, when the account goes on | |
| clean | refused for what is in it (400, 409, 413, 422), several orders | two halves, at once | |
| clean | the same, one order | gone | broken: alone in a page the next time |
| clean | the same, for the 64th time since it was written | gone, the report ends | free: in the next report |
| clean | refused otherwise (404, a redirect) | gone, the report ends | free |
| in doubt | refused, whatever for | rests until the next report; from the fourth time on it is stuck | |
| clean | its worker ended without leaving in order | **in doubt**, the same after the hold | |
| in doubt | an operator says that it was taken, or was not | gone | told, or free |

A half behind the first one was never sent: when the first one rests, those in it are free.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, msgpack
from msgspec.structs import replace

from worker.model.exchange import HttpRequest, Outcome, OutcomeKind
from worker.model.jobs import Became, Composed, Fate, Kept, Move, Page
from worker.providers.sequra import memory, wire
from worker.providers.sequra.calls import headers, url_of
from worker.providers.sequra.memory import Reported, kept
from worker.providers.sequra.options import SequraAccount
from worker.providers.sequra.report import Entries, under_way

PAGE_MAX_BYTES = 4 * 2**20
"""Of entries, unless one order alone has more."""
NAMES_MAX_BYTES = 256 * 2**10
"""Of references: the page's own record has to fit into the state topic."""
REFUSALS_MAX = 64
"""Refused attempts of one page and its halves: three bad orders among 5,000 are found, and what is wrong with all of
them ends the report instead of being asked 10,000 times."""

_encoder = msgspec.json.Encoder()


# --- writing one ---------------------------------------------------------------------------------------------------


class Candidate(Struct, frozen=True):
    """An order with entries that are due."""

    reference: str
    told: Reported
    entries: Entries
    revision: int
    digest: bytes
    """Of its update."""


def while_under_way(candidate: Candidate) -> bytes:
    """What the order's record keeps while its page is under way."""
    there = under_way(candidate.entries, candidate.revision, candidate.digest)
    return kept(replace(candidate.told, under_way=there))


class Composing:
    """A page in the making: as many orders as one page takes.

    Orders that were refused before stand in pages of their own, and so do those of each store: a report has one.
    """

    def __init__(self, account: SequraAccount) -> None:
        self._account = account
        self._kind: tuple[str | None, bool] | None = None
        self._remotes: dict[str, bytes] = {}
        self._count = self._size = self._names = 0

    def add(self, candidate: Candidate) -> Literal["taken", "other", "full"]:
        """Takes one more, if it belongs here and there is room for it."""
        kind = (candidate.entries.store_ref, bool(candidate.told.refused_ms))
        if self._kind is not None and kind != self._kind:
            return "other"
        there = under_way(candidate.entries, candidate.revision, candidate.digest)
        count, size = self._count + there.count, self._size + len(there.entries)
        names = self._names + len(candidate.reference.encode())
        most = self._account.report_orders_max
        if self._remotes and (count > most or size > PAGE_MAX_BYTES or names > NAMES_MAX_BYTES):
            return "full"
        self._kind, self._count, self._size, self._names = kind, count, size, names
        self._remotes[candidate.reference] = kept(replace(candidate.told, under_way=there))
        return "taken"

    def composed(self) -> Composed | None:
        """The page; `None`: nothing was taken."""
        if self._kind is None:
            return None
        merchant, platform = _head(self._account, self._kind[0])
        return Composed(Page([list(self._remotes)], merchant, platform), self._remotes)


def compose(candidates: Iterable[Candidate], account: SequraAccount) -> Composed | None:
    """As many of the candidates as one page takes, in their order; `None`: there are none."""
    composing = Composing(account)
    for each in candidates:
        if composing.add(each) == "full":
            break
    return composing.composed()


def part_of(remote: bytes) -> bytes:
    """The entries of one of its orders, as the order's record keeps them."""
    return _under_way(remote).entries


def request_of(page: Page, parts: Sequence[bytes], account: SequraAccount) -> HttpRequest:
    """What is sent of it now, made of the entries of its orders."""
    return _post(wire.DeliveryReport(Raw(page.merchant), [Raw(part) for part in parts], Raw(page.platform)), account)


def other_requests(
    broken: Sequence[Raw], statistics: Sequence[wire.StatisticsEntry], account: SequraAccount, *, is_always: bool
) -> list[HttpRequest]:
    """What a report has beside deliveries: they tell of none, so they are made anew whenever they are sent, and in
    requests of their own. `is_always`: one request, though there is nothing to say: seQura wants a report every day
    (docs.sequra.com, Delivery Report, 2026-10).
    """
    most = account.report_orders_max
    merchant, platform = _head(account, None)
    pages = max(-(-len(broken) // most), -(-len(statistics) // most), int(is_always))
    found = []
    for begin in range(0, pages * most, most):
        some, numbers = list(broken[begin : begin + most]), list(statistics[begin : begin + most])
        report = wire.DeliveryReport(
            Raw(merchant), [], Raw(platform), some or UNSET, wire.Statistics(numbers) if numbers else UNSET
        )
        found.append(_post(report, account))
    return found


def _head(account: SequraAccount, store_ref: str | None) -> tuple[bytes, bytes]:
    """Who reports. Written down with the page: a new release or another setting must not change its bytes."""
    store = store_ref or account.store_ref
    merchant = wire.Merchant(account.merchant_id, UNSET if store is None else store)
    platform = wire.PLATFORM if account.platform is None else wire.PLATFORM | account.platform
    return _encoder.encode(merchant), _encoder.encode(platform)


def _post(report: wire.DeliveryReport, account: SequraAccount) -> HttpRequest:
    body = b'{"delivery_report":' + _encoder.encode(report) + b"}"
    sent = headers(account) | {"Idempotency-Key": f"report:{blake2b(body, digest_size=16).hexdigest()}"}
    return HttpRequest("POST", url_of(account, account.report_path), sent, body, account.name)


def _under_way(remote: bytes) -> memory.UnderWay:
    told = memory.read(remote)
    assert told is not None  # we have written it
    assert told.under_way is not None  # nobody takes it away while the page is there
    return told.under_way


# --- what becomes of it --------------------------------------------------------------------------------------------


_NOT_TAKEN = frozenset({OutcomeKind.REJECTED, OutcomeKind.NOT_SENT})
_CREDENTIALS = frozenset({OutcomeKind.CREDENTIALS, OutcomeKind.FORBIDDEN})
_FOR_ITS_CONTENT = frozenset({400, 409, 413, 422})


def after(page: Page, outcome: Outcome, run_ms: int) -> Move:
    """What follows from an attempt. `run_ms`: the run of the report that it was made in."""
    kind, status = outcome.kind, outcome.status or 0
    if kind is OutcomeKind.APPLIED:
        rest = page.lists[1:]
        left = replace(page, lists=rest, in_doubt=False, refusals=0, retries=0) if rest else None
        return Move(left, told=page.lists[0])
    if kind in _CREDENTIALS:
        return Move(page, then="account")
    if kind in _NOT_TAKEN:
        again = replace(page, in_doubt=page.in_doubt or status in {500, 501, 505}, retries=page.retries + 1)
        return Move(again, then="backoff")
    if kind is OutcomeKind.UNKNOWN:
        return Move(replace(page, in_doubt=True, retries=page.retries + 1), then="hold")
    return _refused(page, status, run_ms)


def _refused(page: Page, status: int, run_ms: int) -> Move:
    names, *rest = page.lists
    if page.in_doubt:
        resting = replace(page, lists=[names], refusals=page.refusals + 1, retries=0, refused_in_ms=run_ms)
        return Move(resting, free=[each for some in rest for each in some], then="next_report", is_refused=True)
    spent = page.spent + 1
    if status not in _FOR_ITS_CONTENT or spent >= REFUSALS_MAX:
        return Move(None, free=[each for some in page.lists for each in some], then="next_report", is_refused=True)
    if len(names) == 1:
        return Move(replace(page, lists=rest, spent=spent, retries=0) if rest else None, broken=names)
    middle = len(names) // 2
    return Move(replace(page, lists=[names[:middle], names[middle:], *rest], spent=spent, retries=0))


def inherited(page: Page) -> Page:
    """As the next owner has to take it when the last one did not leave in order."""
    return replace(page, in_doubt=True)


def decided(page: Page, *, is_taken: bool) -> Move:
    """What an operator says of a page that is stuck."""
    names, *rest = page.lists
    free = [each for some in rest for each in some]
    return Move(None, told=names, free=free) if is_taken else Move(None, free=names + free)


def fate_of(remote: bytes, became: Became, outcome: Outcome, now_ms: int) -> Fate:
    """Of an order of a page. `remote`: what its record keeps. `outcome`: of the page."""
    told, now = memory.read(remote), _under_way(remote)
    assert told is not None  # or there would be no page
    if became == "told":
        done = Outcome(OutcomeKind.APPLIED, "", outcome.status, remote=kept(memory.taken(told)))
    elif became == "broken":
        refused = kept(memory.refused(told, outcome.status, now_ms))
        done = Outcome(OutcomeKind.PENDING, f"its report was refused: {outcome.reason}", outcome.status, remote=refused)
    else:
        done = Outcome(OutcomeKind.PENDING, "waits for its report", remote=kept(replace(told, under_way=None)))
    return Fate(now.revision, now.digest, done)


# --- what the job keeps --------------------------------------------------------------------------------------------


_kept_decoder = msgpack.Decoder(Kept)


def read_kept(value: bytes) -> Kept:
    """Of what `msgspec.msgpack` made of it; nothing: there is no page. Raises `msgspec.MsgspecError`."""
    return _kept_decoder.decode(value) if value else Kept()
