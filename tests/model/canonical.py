"""One state for all that behave alike: what keeps the search small."""

from tests.model.orders import Orders
from tests.model.states import (
    ANSWERED,
    GIVEN_UP,
    GONE,
    HOLD_G,
    HOLD_H,
    NO_HOLD,
    NOBODY,
    OUT,
    RUNNING,
    SERVING,
    Request,
    State,
    Worker,
)


def canonical(state: State, orders: Orders, *, trims: bool) -> tuple[State, bool]:
    """The representative of a state, and whether the workers have changed places in it.

    Holds that may end have ended. Epochs are ranks: only which is older counts. Workers and requests are sorted.
    `trims`: of a fenced owner only what it may still send is left, for it can do nothing else.
    """
    log, requests, workers = state.log, state.requests, list(state.workers)
    if trims:
        workers = [_trimmed(w, requests, orders) if w.phase == SERVING and w.epoch < log.epoch else w for w in workers]
        requests = tuple(r for r in requests if r.stage != ANSWERED)
    workers = [_unheld(w, workers, requests, orders) if any(w.holds) else w for w in workers]
    alive = sorted({log.epoch, *(w.epoch for w in workers if w.phase != OUT)})
    ranks = {epoch: 2 * rank + 1 for rank, epoch in enumerate(alive)}
    if requests:
        for request in requests:  # of an owner that is gone: between those that are not
            ranks.setdefault(request.epoch, 2 * sum(epoch < request.epoch for epoch in alive))
        requests = tuple(sorted(r._replace(epoch=ranks[r.epoch]) for r in requests))
    workers = [w if w.phase == OUT else w._replace(epoch=ranks[w.epoch]) for w in workers]
    swapped = workers[1] < workers[0]
    if swapped:
        workers.reverse()
    log = log._replace(epoch=ranks[log.epoch])
    return State(log, tuple(workers), requests, state.provider, state.faults), swapped


def _trimmed(worker: Worker, requests: tuple[Request, ...], orders: Orders) -> Worker:
    mine = [r for r in requests if r.epoch == worker.epoch]
    answered = {r.order for r in mine if r.stage == ANSWERED}
    due = [order not in answered and orders.is_due(order, record) for order, record in enumerate(worker.records)]
    if not any(due) and len(mine) == len(answered):
        return NOBODY._replace(survivor=not orders.rules.one_incarnation)
    records = tuple(
        record._replace(acked=0, told=-1, may_land_late=False, remote_unknown=True, parked=0, refused=-1)
        if is_due
        else GONE
        for record, is_due in zip(worker.records, due, strict=True)
    )
    holds = tuple(hold if is_due else NO_HOLD for hold, is_due in zip(worker.holds, due, strict=True))
    return worker._replace(records=records, holds=holds, next=0, staged=False, decided=())


def _unheld(worker: Worker, workers: list[Worker], requests: tuple[Request, ...], orders: Orders) -> Worker:
    """G: until none of its own requests for the order that it gave up is under way. H: until all older leases have
    ended, and no request that they covered is under way.
    """
    holds = list(worker.holds)
    for order, hold in enumerate(holds):
        if hold == HOLD_G:
            if not any(r.order == order and r.epoch == worker.epoch and r.stage == GIVEN_UP for r in requests):
                holds[order] = NO_HOLD
        elif hold == HOLD_H and not any(r.epoch < worker.epoch and r.covered for r in requests):
            older = (w for w in workers if w.phase != OUT and w.epoch < worker.epoch)
            if not orders.rules.hold_covers_lease or not any(w.lease == RUNNING for w in older):
                holds[order] = NO_HOLD
    return worker._replace(holds=tuple(holds))
