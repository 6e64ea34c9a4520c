"""Figures and their limits: rounds that take turns, medians, and what is shown of them."""

from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from msgspec import Struct, field

Tell = Callable[[str], None]
"""Shows how far it is."""


class Row(Struct, frozen=True):
    """One figure of the table."""

    name: str
    """For `--only`."""
    what: str
    unit: str
    limit: str
    """What the figure stands beside, measured in the same run."""
    target: float
    """Of figure / limit."""
    is_cost: bool = False
    """Less is better: the target is the most that may be."""
    decimals: int = 0


class Figure(Struct):
    """What was measured of one row: a pair in each round."""

    row: Row
    values: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    cpu_ratios: list[float] = field(default_factory=list)
    """The same ratios by CPU time instead of by the clock: what other programs take away does not show in them."""

    def add(self, value: float, limit: float, cpu_ratio: float | None = None) -> None:
        """One round."""
        self.values.append(value)
        self.limits.append(limit)
        if cpu_ratio is not None:
            self.cpu_ratios.append(cpu_ratio)

    @property
    def ratios(self) -> list[float]:
        """Figure / limit of each round: both halves of a round saw about the same noise."""
        return [value / limit for value, limit in zip(self.values, self.limits, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of `ratios`."""
        return median(self.ratios)

    @property
    def is_met(self) -> bool:
        """Whether the target is reached."""
        return self.ratio <= self.row.target if self.row.is_cost else self.ratio >= self.row.target

    @property
    def target(self) -> str:
        """The target in words."""
        return f"<= {self.row.target:g}" if self.row.is_cost else f">= {self.row.target:g}"

    def as_json(self) -> dict[str, Any]:
        """For `BENCH_JSON`."""
        return {
            "what": self.row.what,
            "unit": self.row.unit,
            "value": median(self.values),
            "limit": median(self.limits),
            "ratio": round(self.ratio, 4),
            "by_cpu": round(median(self.cpu_ratios), 4) if self.cpu_ratios else None,
            "target": self.target,
            "ok": self.is_met,
        }

    def as_texts(self) -> list[str]:
        """For the table."""
        number = f"{{:,.{self.row.decimals}f}}".format
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}"
        cpu = f"{median(self.cpu_ratios):.2f}" if self.cpu_ratios else ""
        return [
            self.row.name,
            self.row.what,
            f"{number(median(self.values))} {self.row.unit}",
            f"{number(median(self.limits))}: {self.row.limit}",
            f"{self.ratio:.2f}",
            spread,
            cpu,
            self.target,
            "yes" if self.is_met else "NO",
        ]


Half = Callable[[int], Awaitable[Any]]
"""Measures one side, in the round with this number."""


async def take_turns(rounds: int, ours: Half, bare: Half, tell: Tell) -> list[tuple[Any, Any]]:
    """Ours and the limit by turns, so that a noisy minute spoils a round and not a side."""
    found: list[tuple[Any, Any]] = []
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}: cartsync")
        value = await ours(number)
        tell(f"round {number + 1} of {rounds}: the limit")
        found.append((value, await bare(number)))
    return found
