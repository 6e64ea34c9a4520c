"""`ports.OrderTable` in memory."""

from collections.abc import Iterator

from schemas import state
from schemas.state import OrderHeader


class MemoryOrders(dict[str, bytes]):
    """A dict: its own methods are the port's, for each event reads one record and replaces it."""

    put = dict.__setitem__

    def delete(self, subject: str) -> None:
        self.pop(subject, None)

    def subjects(self) -> Iterator[str]:
        return iter(list(self))

    def items(self) -> Iterator[tuple[str, bytes]]:  # type: ignore[override]
        return iter(super().items())

    def headers(self) -> Iterator[tuple[str, OrderHeader]]:
        return ((subject, state.decode_header(value)) for subject, value in list(super().items()))
