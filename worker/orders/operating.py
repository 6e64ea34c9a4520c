"""What operators' events come to in one transaction, and operators' commands that come without an event."""

from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from schemas import state
from schemas.events import OrderEvent
from schemas.facts import Stamp
from schemas.history import KEPT
from schemas.state import AccountRecord, Operated, OrderRecord
from schemas.views import Status
from worker.core import effects
from worker.core.commands import Command
from worker.core.effects import EFFECTS, OPERATOR_KINDS, Asked
from worker.core.intake import shown_id
from worker.model.order import account_of
from worker.orders.context import OrderContext
from worker.orders.encoding import Encoded, encoded, is_too_large, too_large
from worker.orders.happened import Happened
from worker.orders.history import History
from worker.orders.telling import Telling
from worker.ownership.workload import Sizes
from worker.ports import InputRecord


class Deed(Struct, frozen=True):
    """What an operator's event comes to."""

    told: list[bytes | None]
    """Results; `None`: there is nothing to tell."""
    changed: Encoded | None = None
    """The order's record; `None`: it stays as it is, or it is about an account."""


class Operating:
    """Of one transaction: what operators do to orders and accounts."""

    def __init__(
        self,
        partition: int,
        context: OrderContext,
        sizes: Sizes,
        now_ms: int,
        *,
        telling: Telling,
        history: History,
        happened: Happened,
        accounts: Mapping[str, bytes],
    ) -> None:
        """`accounts`: the committed records of accounts, by key."""
        self.accounts: dict[str, bytes] = {}
        """The changed records of accounts, by key."""
        self.operated: list[tuple[str, Operated]] = []
        """What operators did, by subject."""
        self.bytes = 0
        """Of the records of accounts; one that changes twice counts twice."""
        self.now_ms = now_ms
        """When what operators do is done."""
        self._partition = partition
        self._context = context
        self._value_max_bytes = sizes.value
        self._telling = telling
        self._history = history
        self._happened = happened
        self._accounts = accounts

    def event(self, record: InputRecord, event: OrderEvent, value_of: Callable[[str], bytes | None]) -> Deed | None:
        """Takes an operator's event; `None`: it was taken before. `value_of`: the record of an order as it stands.

        Raises `MalformedEventError`.
        """
        if OPERATOR_KINDS[type(event.data)].about == "account":
            return self._of_account(event, record.offset)
        return self._of_order(record, event, value_of(event.subject))

    def _of_order(self, record: InputRecord, event: OrderEvent, value: bytes | None) -> Deed | None:
        context, subject = self._context, event.subject
        if context.placing is not None:
            context.placing.check(record.key or b"", subject, self._partition, context.topic_partitions)
        if value is None:
            deed = effects.operated(event, self.now_ms, None, done=False)
            words = f"no order {subject} is known in partition {self._partition}"
            return Deed([self._done(event, record.offset, replace(deed, words=words))])
        before = state.decode_order(value)
        if effects.is_repeat(before, event):
            return None
        after, done = effects.operate(before, event, self._asked(subject, (-1, event.time_us, record.offset)))
        found = self._telling.find(subject, after)
        deed = effects.operated(event, self.now_ms, found.status, done=done)
        after.operated = effects.newest(after.operated, deed)
        # Both change the record; what else becomes of them has to wait until it is certain that it is not too large.
        told = self._telling.of(subject, after, found)
        entries = self._history.of_operator(subject, deed, after, shown_id(event.id, event.uid), record.offset)
        acted = self._happened.line_of(
            "order_changed_by_operator", subject, after, command=deed.command, by=deed.by, done=done
        )
        changed = encoded(after)
        if size := is_too_large(subject, changed[1], self._value_max_bytes):
            raise too_large(size, self._value_max_bytes)
        self._happened.notes.append(acted)
        if deed.command == "forget":
            self._history.erase(subject, KEPT)
        self._history.keep(entries)
        return Deed([self._done(event, record.offset, deed, after, found.status), told], changed)

    def _of_account(self, event: OrderEvent, offset: int) -> Deed | None:
        account = event.subject
        key = state.ACCOUNT_PREFIX + account
        value = self.accounts.get(key) or self._accounts.get(key)
        before = AccountRecord(state.SCHEMA) if value is None else state.decode_account(value)
        if effects.is_repeat(before, event):
            return None
        is_paused = self._context.dispatcher.pauses(account)
        after, deed = effects.operate_account(before, event, self.now_ms, is_paused=is_paused)
        self.accounts[key] = state.encode(after)
        self.bytes += len(self.accounts[key])
        fields = {"account": account, "command": deed.command, "by": deed.by, "done": deed.done}
        self._happened.notes.append(("account_changed_by_operator", fields))
        return Deed([self._done(event, offset, deed)])

    def _done(
        self,
        event: OrderEvent,
        offset: int,
        deed: Operated,
        record: OrderRecord | None = None,
        status: Status | None = None,
    ) -> bytes | None:
        """Notes what an operator did, for who waits for it; what others are told."""
        self.operated.append((event.subject, deed))
        position = self._context.topic_epoch << state.TOPIC_EPOCH_BITS | (offset + 1)
        return self._telling.of_operated(
            event, deed, partition=self._partition, position=position, record=record, status=status
        )

    def command(self, subject: str, command: Command, before: OrderRecord) -> OrderRecord | None:
        """Does to an order what somebody asks of this worker alone; the record after it, `None`: there was nothing to
        do.
        """
        after = EFFECTS[command.name](before, self._asked(subject))
        if after is before:
            return None
        self._happened.note_of("order_changed_by_operator", subject, after, command=command.name)
        self._history.of_command(subject, command.name, after)
        return after

    def _asked(self, subject: str, stamp: Stamp = (-1, 0, 0)) -> Asked:
        return Asked(subject, self.now_ms, self._context.destinations.get(account_of(subject)), stamp)
