"""What all steps are made of: a transaction, a loss, a step that costs a fault."""

from tests.model.orders import Orders
from tests.model.rules import Rules, Setup
from tests.model.states import (
    ANSWERED,
    FAULT,
    FREE,
    GIVEN_UP,
    IN_GAP,
    NOBODY,
    OUT,
    RUNNING,
    Log,
    Record,
    Request,
    State,
    Step,
    Worker,
    given_up,
    put,
)


class Machine:
    """Collects the steps out of a state."""

    def __init__(self, rules: Rules, setup: Setup) -> None:
        self.rules = rules
        self.setup = setup
        self.orders = Orders(rules, setup)
        self.collected: list[Step] = []

    def add(
        self, kind: int, text: str, slot: int, state: State, order: int = 0, event: int = 0, harm: str = ""
    ) -> None:
        """Adds a step; a fault only while there may be one more."""
        if kind == FAULT:
            if not state.faults:
                return
            state = state._replace(faults=state.faults - 1)
        self.collected.append(Step(kind, text, slot, order, event, state, harm))

    def commit(
        self,
        state: State,
        slot: int,
        order: int,
        record: Record,
        text: str,
        event: int = 0,
        *,
        kind: int = FREE,
        harm: str = "",
        following: int | None = None,
    ) -> None:
        """Adds one transaction: the record of an order, and the next input offset (the one before, unless given)."""
        if kind == FAULT and not state.faults:
            return
        worker, log = state.workers[slot], state.log
        if not harm and record.event and record.revision < log.records[order].revision:
            harm = "I9: the revision decreases"
        lease = RUNNING if worker.epoch == log.epoch else worker.lease
        following = worker.next if following is None else following
        after = worker._replace(next=following, records=put(worker.records, order, record), lease=lease)
        before = None if self.rules.read_to_barrier else (log.next, log.clean, log.records)
        log = log._replace(next=following, clean=False, records=put(log.records, order, record), before=before)
        if self.setup.warm:
            state = written(state, (order,))
        self.add(kind, text, slot, exchange(state, slot, after, log), order, event, harm)
        if self.setup.warm and kind == FREE:
            # Visible, but the actor is told otherwise: it has to close, and its memory is as before.
            lost = self.lose(state, slot)._replace(log=log)
            self.add(FAULT, f"{text}, but the commit raises: {{w}} closes", slot, lost, order, event, harm)

    def lose(self, state: State, slot: int, *, dies: bool = False) -> State:
        """The worker owns nothing any more: its requests are given up; what was not written yet never is."""
        worker = state.workers[slot]
        after = NOBODY
        if self.setup.warm and not dies and worker.records:
            after = Worker(OUT, records=worker.records, unread=worker.unread)
        if not self.rules.one_incarnation and not dies:
            after = after._replace(survivor=True)
        over = (IN_GAP, ANSWERED)
        requests = tuple(r for r in state.requests if r.epoch != worker.epoch or r.stage not in over)
        return exchange(state, slot, after)._replace(requests=given_up(requests, worker.epoch))

    def attempts(self, state: State, slot: int, order: int | None = None) -> list[Request]:
        """What the worker has in flight, as far as it knows: of one order, or of all."""
        epoch = state.workers[slot].epoch
        mine = [r for r in state.requests if r.epoch == epoch and r.stage != GIVEN_UP]
        return mine if order is None else [r for r in mine if r.order == order]


def exchange(state: State, slot: int, worker: Worker, log: Log | None = None) -> State:
    """The state with another worker in a place and, if given, another log."""
    workers = (worker, state.workers[1]) if slot == 0 else (state.workers[0], worker)
    return state._replace(workers=workers, log=log or state.log)


def written(state: State, orders: tuple[int, ...]) -> State:
    """The state when these orders have been written since anybody who remembers them has read them."""
    workers = [
        w._replace(unread=tuple(old or order in orders for order, old in enumerate(w.unread))) for w in state.workers
    ]
    return state._replace(workers=tuple(workers))
