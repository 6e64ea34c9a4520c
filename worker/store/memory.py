"""`ports.OrderTable` in memory."""

from collections.abc import Callable, Iterator, Sequence

from schemas import state
from schemas.state import OrderHeader
from worker.model.order import account_of


class MemoryOrders(dict[str, bytes]):
    """A dict: its own methods are the port's, for each event reads one record and replaces it."""

    put = dict.__setitem__

    def delete(self, subject: str) -> None:
        self.pop(subject, None)

    def subjects(self, skipping: float = 0.0) -> Iterator[str]:
        known = list(self)
        del known[: int(skipping * len(known))]
        return iter(known)

    def items(self) -> Iterator[tuple[str, bytes]]:  # type: ignore[override]
        return iter(super().items())

    def headers(self) -> Iterator[tuple[str, OrderHeader]]:
        return ((subject, state.decode_header(value)) for subject, value in list(super().items()))

    def accounts(self) -> Iterator[tuple[str, int]]:
        return ((account_of(subject), 1) for subject in self.subjects())

    def unsettled(self, larger_than: int) -> Iterator[tuple[str, bytes]]:  # noqa: ARG002 - all of them
        return self.items()

    async def fetch(self, subjects: Sequence[str]) -> None:
        """All is here."""

    def note(self, key: bytes, value: bytes | None) -> None:
        """It is not kept beyond the process, which remembers it elsewhere."""

    def checkpoint(self, position: int) -> None:
        """Nor is this."""

    async def keep_up(self) -> None:
        """Nothing waits."""

    def watch(self, on_failure: Callable[[Exception], None]) -> None:
        """It does not fail."""

    def is_usable(self) -> bool:
        return True

    def distrust(self, why: str) -> Exception | None:  # noqa: ARG002 - nobody else filled it
        return None

    async def close(self) -> None:
        """There is nothing to close."""
