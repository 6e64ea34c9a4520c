"""What is logged meanwhile, as tests look at it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from worker import logs


@contextmanager
def logged(level: str = "debug") -> Iterator[list[dict[str, Any]]]:
    """The lines from this level on, in a list that is full at the end of the block."""
    lines: list[str] = []
    found: list[dict[str, Any]] = []
    with logs.capture(lines, level):
        yield found
    found.extend(json.loads(line) for line in lines)
