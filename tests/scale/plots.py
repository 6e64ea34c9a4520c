"""Small line plots as SVG, in one picture: written by hand, for they need nothing but lines, points and words.

The pictures have a background of their own and two sets of colors, of which the reader's system chooses.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape

from msgspec import Struct

_WIDTH, _HEIGHT = 320, 230
"""Of a panel."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 34, 44
"""Between a panel's border and its axes."""
_HEAD = 56
"""Above the panels: title and legend."""
_COLUMNS = 3
_LOG_FROM = 10.0
"""An axis is logarithmic when its greatest value is so many times the least."""
_LABEL_PX = 7.0
"""About the width of a character."""

_STYLE = """\
.back { fill: #ffffff } .frame, .grid { stroke: #d1d9e0; fill: none } .grid { stroke-dasharray: 2 3 }
text { font: 11px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #424a53 }
.title { font-size: 16px; font-weight: 600; fill: #1f2328 } .panel { font-size: 12px; font-weight: 600; fill: #1f2328 }
.line { fill: none; stroke-width: 2 } .dot { stroke: #ffffff; stroke-width: 1.5 }
.line0 { stroke: #0969da } .dot0 { fill: #0969da } .line1 { stroke: #bc4c00; stroke-dasharray: 6 3 } .dot1 { fill: #bc4c00 }
@media (prefers-color-scheme: dark) {
.back { fill: #0d1117 } .frame, .grid { stroke: #3d444d } text { fill: #9198a1 } .title, .panel { fill: #f0f6fc }
.dot { stroke: #0d1117 } .line0 { stroke: #4493f8 } .dot0 { fill: #4493f8 } .line1 { stroke: #f0883e } .dot1 { fill: #f0883e }
}"""


class Panel(Struct, frozen=True):
    """One plot: the lines by name, each of places (x, y)."""

    title: str
    x_label: str
    lines: dict[str, list[tuple[float, float]]]


class _Scale(Struct, frozen=True):
    """Values to pixels."""

    low: float
    high: float
    from_px: float
    to_px: float
    is_log: bool = False
    step: float = 0.0
    """Between two ticks of a linear scale."""

    def at(self, value: float) -> float:
        """Where a value is drawn."""
        low, high, here = self.low, self.high, value
        if self.is_log:
            low, high, here = math.log10(low), math.log10(high), math.log10(max(value, low))
        return self.from_px + (self.to_px - self.from_px) * (here - low) / (high - low)


def picture(title: str, panels: Sequence[Panel]) -> str:
    """All panels in rows of three, under the title and the names of the lines."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines if name))
    rows = math.ceil(len(panels) / _COLUMNS)
    width, height = _COLUMNS * _WIDTH, _HEAD + rows * _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        f'<rect class="back" width="{width}" height="{height}"/>',
        _text(16, 26, title, "title"),
        *_legend(names),
    ]
    for number, panel in enumerate(panels):
        x, y = number % _COLUMNS * _WIDTH, _HEAD + number // _COLUMNS * _HEIGHT
        parts += [f'<g transform="translate({x} {y})">', *_panel(panel, names), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _legend(names: Sequence[str]) -> Iterable[str]:
    x = 18.0
    for number, name in enumerate(names):
        yield f'<path class="line line{number}" d="M{x:g} 44h24"/>'
        yield f'<circle class="dot dot{number}" cx="{x + 12:g}" cy="44" r="4"/>'
        yield _text(x + 30, 48, name)
        x += 56 + _LABEL_PX * len(name)


def _panel(panel: Panel, names: Sequence[str]) -> Iterable[str]:
    places = [place for line in panel.lines.values() for place in line]
    across = _scale([x for x, _ in places], _LEFT, _WIDTH - _RIGHT)
    up = _scale([y for _, y in places], _HEIGHT - _BOTTOM, _TOP, is_upright=True)
    yield _text(_LEFT, 22, panel.title, "panel")
    for value in _ticks(up):
        y = up.at(value)
        yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
        yield _text(_LEFT - 6, y + 4, short(value), anchor="end")
    free_px = -math.inf
    for value in sorted({x for x, _ in places}):
        x, label = across.at(value), short(value)
        yield f'<path class="frame" d="M{x:.1f} {_HEIGHT - _BOTTOM}v4"/>'
        half_px = _LABEL_PX * len(label) / 2
        if x - half_px >= free_px:
            yield _text(x, _HEIGHT - _BOTTOM + 17, label, anchor="middle")
            free_px = x + half_px + 3
    yield f'<path class="frame" d="M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}"/>'
    scales = " and ".join([name for name, scale in (("across", across), ("upwards", up)) if scale.is_log] or ["linear"])
    kind = "both log" if scales == "across and upwards" else "linear" if scales == "linear" else f"log {scales}"
    yield _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, f"{panel.x_label} ({kind})", anchor="middle")
    for name, line in panel.lines.items():
        number = names.index(name) if name else 0
        pixels = [(across.at(x), up.at(y)) for x, y in line]
        yield f'<path class="line line{number}" d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in pixels)}"/>'
        for (px, py), (x, y) in zip(pixels, line, strict=True):
            shown = escape(f"{short(x)}: {short(y)}")
            yield f'<circle class="dot dot{number}" cx="{px:.1f}" cy="{py:.1f}" r="4"><title>{shown}</title></circle>'


def _scale(values: list[float], from_px: float, to_px: float, *, is_upright: bool = False) -> _Scale:
    low, high = min(values), max(values)
    if low > 0 and high / low >= _LOG_FROM:
        if is_upright:
            low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
        return _Scale(low, high, from_px, to_px, is_log=True)
    if is_upright:
        step = _step(high)
        return _Scale(0.0, step * max(1, math.ceil(high / step)), from_px, to_px, step=step)
    return _Scale(low, high if high > low else low + 1, from_px, to_px)


def _ticks(scale: _Scale) -> list[float]:
    if scale.is_log:
        first, last = round(math.log10(scale.low)), round(math.log10(scale.high))
        every = max(1, (last - first) // 4)
        decades = [10.0**power for power in range(first, last + 1, every)]
        if last - first > 1:
            return decades
        return [value for decade in decades for value in (decade, 2 * decade, 5 * decade) if value <= scale.high]
    return [scale.step * count for count in range(round(scale.high / scale.step) + 1)]


def _step(high: float) -> float:
    """A round number of which some four make the height."""
    if high <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(high / 4))
    return next(power * times for times in (1, 2, 2.5, 5, 10) if power * times * 4.5 >= high)


def short(value: float) -> str:
    """A number for an axis: three digits at most, and k or M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    where = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:g}" y="{y:.6g}"{style}{where}>{escape(text)}</text>'
