"""What is known of orders: the input that is explored, what follows from a record, and what would be wrong."""

from tests.model.rules import Rules, Setup
from tests.model.states import Record, State

STALE = "stale: nothing is left to happen, and the provider or the state topic is older than the newest event"
BACKWARDS = "backwards: the provider has taken a payload older than the one it had, or had acknowledged"
LOST = "lost: the state topic is older than its next offset says, so an event will never be taken"
FORGOTTEN = "I8: an order is owed, and nothing will ever be done about it"
HARMS = (STALE, BACKWARDS, LOST)
"""What a shop would see. Whatever else a search reports is a broken invariant: not harm yet."""


class Orders:
    """The input partition, and the rules that concern one order alone."""

    def __init__(self, rules: Rules, setup: Setup) -> None:
        self.rules = rules
        self.names = setup.orders
        self.input: list[tuple[int, int]] = []
        """Order and number of each event, in the order of their offsets."""
        self.payloads: dict[tuple[int, int], int] = {(order, 0): 0 for order in range(len(self.names))}
        """By order and event: the number of the first event with this payload."""
        for text in setup.events.split():
            name, _, same_as = text.partition("=")
            order, number = self.names.index(name[0]), int(name[1:])
            self.input.append((order, number))
            self.payloads.setdefault((order, number), int(same_as or number))
        self.folds = [self._fold(end) for end in range(len(self.input) + 1)]
        """By next offset: the newest event of each order below it."""

    def _fold(self, end: int) -> tuple[int, ...]:
        taken = self.input[:end]
        return tuple(max([0, *(n for o, n in taken if o == order)]) for order in range(len(self.names)))

    def older(self, order: int, event: int) -> list[tuple[int, int]]:
        """The older events of an order, each with its revision."""
        return [(n, offset + 1) for offset, (o, n) in enumerate(self.input) if o == order and n < event]

    # --- what follows from a record ---

    def is_parked(self, record: Record) -> bool:
        """Whether the newest revision is known to be parked."""
        return record.refused >= 0 and (record.parked == record.revision or not self.rules.park_by_revision)

    def is_same(self, order: int, record: Record) -> bool:
        """Whether the provider holds just this, as far as we know: there is nothing to send."""
        in_doubt = (record.remote_unknown or record.may_land_late) and self.rules.suppress_without_doubt
        return self.payloads[order, record.event] == record.told and not in_doubt

    def is_due(self, order: int, record: Record) -> bool:
        """Whether an order is owed and its payload may go out; holds, attempts and the lease apart."""
        if record.revision <= record.acked or self.is_parked(record) or self.is_same(order, record):
            return False
        return self.payloads[order, record.event] != record.refused

    # --- what would be wrong ---

    def harm(self, state: State) -> str:
        """What is wrong with a state at any time (I4: the state is the fold of the input below the next offset)."""
        log = state.log
        for record, event, expired in zip(log.records, self.folds[log.next], log.expired, strict=True):
            if record.event < event and not (record.event == 0 and expired == event):
                return LOST
        return ""

    def quiet_harm(self, state: State) -> str:
        """What is wrong with a state in which nothing is left to happen. What was refused for good is not."""
        log = state.log
        for order, (record, newest) in enumerate(zip(log.records, self.folds[-1], strict=True)):
            is_gone = record.event == 0 and log.expired[order] == newest
            if record.event != newest and not is_gone:
                return STALE
            wanted, held = self.payloads[order, newest], self.payloads[order, state.provider[order][1]]
            is_refused = self.is_parked(record) and record.refused == wanted
            if held != wanted and not is_refused:
                return STALE
            if record.acked < record.revision and not is_refused:
                return FORGOTTEN
        return ""
