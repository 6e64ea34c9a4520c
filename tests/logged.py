"""What is logged meanwhile, as tests look at it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from worker import logs


class _Parsed(list[dict[str, Any]]):
    """Lines as they come."""

    def append(self, line: Any) -> None:
        super().append(json.loads(line))


@contextmanager
def logged(level: str = "debug") -> Iterator[list[dict[str, Any]]]:
    """The lines from this level on; the list grows with them."""
    found = _Parsed()
    with logs.capture(cast("list[str]", found), level):
        yield found
