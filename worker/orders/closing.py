"""Orders that are to be closed: looked for a few at a time, by the rules of `core.retention`."""

from math import inf

from worker.core.outbox import Outbox
from worker.core.retention import DueOrder, Hand, find_due, look_every_s
from worker.model.order import account_of
from worker.orders.context import OrderContext
from worker.ports import OrderTable


class Closing:
    """Of one partition."""

    def __init__(self, chance: float, now: float) -> None:
        """`chance`: in [0, 1), where it begins."""
        self.look_at = now
        """When to look next (*now*)."""
        self.due: list[DueOrder] = []
        """Found since the last transaction."""
        self._hand = Hand(chance)

    def look(self, orders: OrderTable, outbox: Outbox, context: OrderContext) -> None:
        """The next few orders. Of accounts that nobody has configured none is closed, and none in shadow mode."""
        now = context.clock.now()
        if now < self.look_at:
            return
        if not context.sending:
            self.look_at = inf
            return
        self.look_at = now + look_every_s(len(orders))
        at_rest = [
            subject
            for subject in self._hand.next(orders.subjects)
            if subject not in outbox and account_of(subject) in context.destinations
        ]
        self.due += find_due(at_rest, orders.get, context.clock.wall_ms(), context.keep_settled_ms)

    def take(self) -> list[DueOrder]:
        """Those that go into the transaction that is made now."""
        due, self.due = self.due, []
        return due
