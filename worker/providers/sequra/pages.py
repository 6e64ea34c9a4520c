"""Pages of the delivery report: their orders, their bytes, and their outcome. Pure.

A page is committed before it is sent: each order's record has its entries (`memory.UnderWay`), the page lists the
orders, and every attempt sends the same bytes. seQura responds to a page as a whole, and adds up what it accepts; so a
page that may have been accepted is never sent with a different content.

| page | what happened | the page is then | its orders |
|---|---|---|---|
| any | 2xx | gone | reported |
| any | certainly not accepted (429, 503, no connection) | the same, after a backoff | |
| any | unknown (timeout, 502, a broken response) | **in doubt**, the same after the hold | |
| any | 500, 501, 505 | **in doubt**, the same after a backoff | |
| any | 401, 403 | the same, when the account resumes | |
| clean | rejected for its content (400, 409, 413, 422), several orders | two halves, at once | |
| clean | the same, one order | gone | broken: alone in a page the next time |
| clean | the same, for the 64th time since it was written | gone, the report ends | free: in the next report |
| clean | rejected otherwise (404, a redirect) | gone, the report ends | free |
| in doubt | rejected for any reason | waits for the next report; from the fourth time on it is stuck | |
| clean | its worker crashed | **in doubt**, the same after the hold | |
| in doubt | an operator says that it was accepted, or was not | gone | reported, or free |

A half after the first one was never sent: when the first one has to wait, the orders of the others are free.
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

PAGE_MAX_BYTES = 2**20
"""Size of a page's entries, unless a single order has more: some 500 orders, whose commit holds up the loop for 6 ms.
With 4 MiB it is 25 ms, and 100,000 orders take as much CPU time (22 s)."""
NAMES_MAX_BYTES = 256 * 2**10
"""Size of a page's references: its own record has to fit into the state topic."""
REFUSALS_MAX = 64
"""Rejected attempts of one page and its halves: enough to find three bad orders among 5,000; if all of them are bad,
the report ends instead of sending 10,000 requests."""

_encoder = msgspec.json.Encoder()


# --- writing one ---------------------------------------------------------------------------------------------------


class Candidate(Struct, frozen=True):
    """An order with entries that are due."""

    reference: str
    reported: Reported
    entries: Entries
    revision: int
    digest: bytes
    """The digest of its update."""


def while_under_way(candidate: Candidate) -> bytes:
    """The order's memory while its page is in flight."""
    there = under_way(candidate.entries, candidate.revision, candidate.digest)
    return kept(replace(candidate.reported, under_way=there))


class Composing:
    """A page being composed, up to its limits.

    Orders that were rejected before have pages of their own, and so do the orders of each store: a report is for one.
    """

    def __init__(self, account: SequraAccount) -> None:
        self._account = account
        self._kind: tuple[str | None, bool] | None = None
        self._remotes: dict[str, bytes] = {}
        self._count = self._size = self._names = 0

    def add(self, candidate: Candidate) -> Literal["taken", "other", "full"]:
        """Adds an order if it belongs to this page and there is room for it."""
        kind = (candidate.entries.store_ref, bool(candidate.reported.refused_ms))
        if self._kind is not None and kind != self._kind:
            return "other"
        there = under_way(candidate.entries, candidate.revision, candidate.digest)
        count, size = self._count + there.count, self._size + len(there.entries)
        names = self._names + len(candidate.reference.encode())
        most = self._account.report_orders_max
        if self._remotes and (count > most or size > PAGE_MAX_BYTES or names > NAMES_MAX_BYTES):
            return "full"
        self._kind, self._count, self._size, self._names = kind, count, size, names
        self._remotes[candidate.reference] = kept(replace(candidate.reported, under_way=there))
        return "taken"

    def composed(self) -> Composed | None:
        """The page; `None`: it has no orders."""
        if self._kind is None:
            return None
        merchant, platform = _head(self._account, self._kind[0])
        return Composed(Page([list(self._remotes)], merchant, platform), self._remotes)


def compose(candidates: Iterable[Candidate], account: SequraAccount) -> Composed | None:
    """As many of the candidates as fit into one page, in order; `None`: there are none."""
    composing = Composing(account)
    for each in candidates:
        if composing.add(each) == "full":
            break
    return composing.composed()


def part_of(remote: bytes) -> bytes:
    """The entries of one of its orders, from the order's record."""
    return _under_way(remote).entries


def request_of(page: Page, parts: Sequence[bytes], account: SequraAccount) -> HttpRequest:
    """The request for its first list, from the entries of its orders."""
    return _post(wire.DeliveryReport(Raw(page.merchant), [Raw(part) for part in parts], Raw(page.platform)), account)


def other_requests(
    broken: Sequence[Raw], statistics: Sequence[wire.StatisticsEntry], account: SequraAccount, *, is_always: bool
) -> list[HttpRequest]:
    """The requests of a report without deliveries: broken orders and statistics, made afresh whenever they are sent.
    `is_always`: one request even if there is nothing to report: seQura expects a report every day (docs.sequra.com,
    Delivery Report, 2026-10).
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
    """Merchant and platform. Stored with the page: a new release or setting must not change its bytes."""
    store = store_ref or account.store_ref
    merchant = wire.Merchant(account.merchant_id, UNSET if store is None else store)
    platform = wire.PLATFORM if account.platform is None else wire.PLATFORM | account.platform
    return _encoder.encode(merchant), _encoder.encode(platform)


def _post(report: wire.DeliveryReport, account: SequraAccount) -> HttpRequest:
    body = b'{"delivery_report":' + _encoder.encode(report) + b"}"
    sent = headers(account) | {"Idempotency-Key": f"report:{blake2b(body, digest_size=16).hexdigest()}"}
    return HttpRequest("POST", url_of(account, account.report_path), sent, body, account.name)


def _under_way(remote: bytes) -> memory.UnderWay:
    reported = memory.read(remote)
    assert reported is not None  # we have written it
    assert reported.under_way is not None  # it stays while the page exists
    return reported.under_way


# --- outcomes --------------------------------------------------------------------------------------------


_NOT_TAKEN = frozenset({OutcomeKind.REJECTED, OutcomeKind.NOT_SENT})
_CREDENTIALS = frozenset({OutcomeKind.CREDENTIALS, OutcomeKind.FORBIDDEN})


def after(page: Page, outcome: Outcome, run_ms: int) -> Move:
    """The move after an attempt. `run_ms`: the run of the report that the attempt belongs to."""
    kind = outcome.kind
    if kind is OutcomeKind.APPLIED:
        rest = page.lists[1:]
        left = replace(page, lists=rest, in_doubt=False, refusals=0, retries=0) if rest else None
        return Move(left, reported=page.lists[0])
    if kind in _CREDENTIALS:
        return Move(page, then="account")
    if kind in _NOT_TAKEN:
        # Who asks us to slow down has looked at nothing.
        in_doubt = outcome.may_have_applied and not outcome.throttles_account
        again = replace(page, in_doubt=page.in_doubt or in_doubt, retries=page.retries + 1)
        return Move(again, then="backoff")
    if kind is OutcomeKind.UNKNOWN:
        return Move(replace(page, in_doubt=True, retries=page.retries + 1), then="hold")
    return _refused(page, outcome, run_ms)


def _refused(page: Page, outcome: Outcome, run_ms: int) -> Move:
    names, *rest = page.lists
    if page.in_doubt:
        resting = replace(page, lists=[names], refusals=page.refusals + 1, retries=0, refused_in_ms=run_ms)
        return Move(resting, free=[each for some in rest for each in some], then="next_report", is_refused=True)
    spent = page.spent + 1
    if outcome.refusal is None or spent >= REFUSALS_MAX:
        return Move(None, free=[each for some in page.lists for each in some], then="next_report", is_refused=True)
    if len(names) == 1:
        return Move(replace(page, lists=rest, spent=spent, retries=0) if rest else None, broken=names)
    middle = len(names) // 2
    return Move(replace(page, lists=[names[:middle], names[middle:], *rest], spent=spent, retries=0))


def inherited(page: Page) -> Page:
    """The page for the next owner if the last one crashed."""
    return replace(page, in_doubt=True)


def decided(page: Page, *, is_taken: bool) -> Move:
    """The move after an operator's decision about a stuck page."""
    names, *rest = page.lists
    free = [each for some in rest for each in some]
    return Move(None, reported=names, free=free) if is_taken else Move(None, free=names + free)


def fate_of(remote: bytes, became: Became, outcome: Outcome, now_ms: int) -> Fate:
    """The outcome for one order of a page. `remote`: the order's memory. `outcome`: the page's."""
    reported, now = memory.read(remote), _under_way(remote)
    assert reported is not None  # otherwise there would be no page
    if became == "reported":
        done = Outcome(OutcomeKind.APPLIED, "", outcome.status, remote=kept(memory.accepted(reported)))
    elif became == "broken":
        refused = kept(memory.refused(reported, outcome.status, now_ms))
        done = Outcome(
            OutcomeKind.PENDING, f"its report was rejected: {outcome.reason}", outcome.status, remote=refused
        )
    else:
        done = Outcome(OutcomeKind.PENDING, "waits for its report", remote=kept(replace(reported, under_way=None)))
    return Fate(now.revision, now.digest, done)


# --- the job's memory --------------------------------------------------------------------------------------------


_kept_decoder = msgpack.Decoder(Kept)


def read_kept(value: bytes) -> Kept:
    """Decodes the job's record; empty: there are no pages. Raises `msgspec.MsgspecError`."""
    return _kept_decoder.decode(value) if value else Kept()
