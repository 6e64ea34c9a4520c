"""A worker of a few lines, to put behind the private port."""

from schemas.views import AccountView, OrderView, PartitionView, StatusView
from worker.core.commands import Command
from worker.errors import UsageError
from worker.metrics import Metrics
from worker.ports import CommandOutcome

SUBJECTS = ("acme/1", "acme/A14/12345", "acme/a%2Fb", "acme/ü ?#&+", "acme/release", 'acme/"\n', "acme/x/../y")
"""A client may resolve the dots of the last one when its slashes are plain."""


class Worker:
    """`WorkerControl`: holds some orders, one of them not releasable, and notes what was asked of it."""

    def __init__(self) -> None:
        self.orders = {subject: OrderView(subject, "parked", "422: no") for subject in (*SUBJECTS, "acme/busy")}
        self.done: list[tuple[str, str]] = []
        self.fails: Exception | None = None
        self.state = (True, "")
        self.figures = Metrics()
        self.paused: str | None = "401"
        self.asked = ("", "")
        self.everywhere = False
        self.counted = 0

    def livez(self) -> tuple[bool, str]:
        return self.state

    def readyz(self) -> tuple[bool, str]:
        return self.state

    def startupz(self) -> tuple[bool, str]:
        return self.state

    async def count_waiting(self) -> None:
        self.counted += 1

    def status(self) -> StatusView:
        partition = PartitionView(0, "serving", "", 10, 0, 8, 1, 0, 1, 2.0, 19.0)
        account = AccountView("acme", "sequra", "D", self.paused, 0.0, 1, 0)
        return StatusView("0.1.0", True, [partition], [account], event_partitions=12)

    def metrics_page(self) -> bytes:
        return self.figures.render()

    def show(self, subject: str) -> OrderView | None:
        return self.orders.get(subject)

    async def operate(self, command: Command, target: str, by: str, why: str) -> CommandOutcome:
        self.asked = (by, why)
        if command.about == "account":
            return CommandOutcome(self._account(command, target), everywhere=self.everywhere)
        return CommandOutcome(self._do(command.name, target, self.show(target) if command.of_parked else None))

    async def operate_parked(self, command: Command, account: str, reason_contains: str, by: str, why: str) -> int:
        self.asked = (by, why)
        if account != "acme":
            raise UsageError(f"no account {account}")
        self.done.append((f"{command.name}_all", reason_contains))
        parked = [each for each, view in self.orders.items() if view.status == "parked"]
        chosen = [each for each in parked if each != "acme/busy" and reason_contains in self.orders[each].reason]
        return sum([self._do(command.name, each, self.orders[each]) for each in chosen])

    def _do(self, action: str, subject: str, released: OrderView | None) -> bool:
        if self.fails is not None:
            raise self.fails
        if subject == "acme/busy":
            raise UsageError("partition 3 is being restored")
        if subject not in self.orders:
            raise UsageError(f"no order {subject}")
        self.done.append((action, subject))
        if released is not None and not released.reason:
            return False
        is_ready = self.orders[subject].status not in ("unconfirmed", "on_hold")
        self.orders[subject] = OrderView(subject, "owed" if is_ready else self.orders[subject].status, "")
        return True

    async def skip(self, partition: int, offset: int) -> int:
        if self.fails is not None:
            raise self.fails
        if partition != 0:
            raise UsageError(f"partition {partition} is not served by this worker")
        if offset > 100:
            raise UsageError("the input holds offsets 10 to 100")
        self.done.append(("skip", f"{partition} {offset}"))
        return 10

    async def report(self, account: str) -> int:
        if account != "acme":
            raise UsageError(f"no account {account}")
        self.done.append(("report", account))
        return 2

    async def decide_page(self, account: str, page_id: str, *, is_taken: bool) -> bool:
        if account != "acme":
            raise UsageError(f"no account {account}")
        self.done.append((f"decide {page_id}", str(is_taken)))
        return not is_taken

    def _account(self, command: Command, name: str) -> bool:
        if name != "acme":
            raise UsageError(f"no account {name}")
        self.done.append((command.name, name))
        was, self.paused = self.paused, None
        return was is not None
