"""What a drill is, and all of them by alert."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.drills.scene import Scene

Play = Callable[[Scene], Awaitable[None]]


class Drill(NamedTuple):
    """A drill of one alert."""

    alert: str
    play: Play
    provoked: str
    """How, in the words of the table."""
    mended: str
    """What the drill has changed in the section, or in the product, when it was first done; empty: nothing."""
    factor: float
    """By how much the rule's times are shorter."""
    partitions: int
    scrape_s: float
    nodes: int
    """Brokers of a Kafka of its own, which the drill may harm; 0: the one that all share."""


DRILLS: dict[str, Drill] = {}


def drill(
    alert: str,
    provoked: str,
    *,
    mended: str = "",
    factor: float = 30,
    partitions: int = 1,
    scrape_s: float = 0.5,
    nodes: int = 0,
) -> Callable[[Play], Play]:
    """Makes a function the drill of an alert."""

    def add(play: Play) -> Play:
        assert alert not in DRILLS, f"{alert} has a drill already"
        DRILLS[alert] = Drill(alert, play, provoked, mended, factor, partitions, scrape_s, nodes)
        return play

    return add
