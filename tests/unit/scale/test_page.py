"""The page of `make scale` and its pictures, from figures that were recorded: nothing is measured here."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from tests.scale import page
from tests.scale.axes import AXES
from tests.scale.measuring import Axis, Figures, Found, Point, Taken, medians
from tests.scale.metering import percentile
from tests.scale.plots import Panel, picture, short

DEPLOY = Path(__file__).parents[3] / "deploy"
TAKEN = Taken("2026-12-01", "a processor <of ours>", 2, "CPython 3.11.7", "Kafka 4.3.1", load=0.1, niceness=0)
SVG = "{http://www.w3.org/2000/svg}"


def line_of(series: str = "", *, places: tuple[float, ...] = (1.0, 10.0, 100.0)) -> list[Point]:
    """Points that all grow."""
    return [
        Point(x, series, rate=9_000 / x, cpu_us=90 + x, settle_s=x / 10, memory_mb=10 + x, lag_ms=1.5, own=2 * x)
        for x in places
    ]


def figures_of(*axes: Axis, taken: Taken = TAKEN) -> Figures:
    """Figures of these axes, the last one with two series."""
    points = {axis.name: line_of() for axis in axes}
    points[axes[-1].name] = line_of("32 slots") + line_of("256 slots")
    return {name: Found(taken, line) for name, line in points.items()}


@pytest.fixture(name="folder")
def written(tmp_path: Path) -> Path:
    """The page of all axes."""
    page.write(tmp_path, AXES, figures_of(*AXES))
    return tmp_path


def test_each_axis_has_its_sentence_picture_and_table(folder: Path) -> None:
    """A reader finds for each axis how it grows, what bends first, and all points."""
    text = (folder / page.PAGE).read_text()
    for axis in AXES:
        section = text.partition(f"## {axis.title}\n")[2].partition("\n## ")[0]
        assert axis.bends in section
        assert "when it grows 100 ×" in section
        assert f"](scale/{axis.name}.svg)" in section
        assert len(re.findall(r"^\| [\d,]+[ ,]", section, re.MULTILINE)) == (6 if axis is AXES[-1] else 3)
    assert "a processor <of ours>, CPython 3.11.7, Kafka 4.3.1." in text


def test_page_is_drawn_again_from_its_figures(folder: Path, tmp_path: Path) -> None:
    """Nothing has to be measured again to write the page anew."""
    again = tmp_path / "again"
    again.mkdir()
    page.write(again, AXES, page.read(folder))
    for file in ("SCALE.md", "scale/figures.json", *(f"scale/{axis.name}.svg" for axis in AXES)):
        assert (again / file).read_bytes() == (folder / file).read_bytes()


def test_page_of_the_project_is_what_its_figures_say(tmp_path: Path) -> None:
    """Whoever changes the page, an axis or a picture draws all of it again (`make scale ARGS=--redraw`)."""
    figures = page.read(DEPLOY)
    assert list(figures) == [axis.name for axis in AXES]
    page.write(tmp_path, AXES, figures)
    made = [file.relative_to(tmp_path) for file in sorted(tmp_path.rglob("*")) if file.is_file()]
    assert made == sorted([Path(page.PAGE), *(f.relative_to(DEPLOY) for f in (DEPLOY / page.PICTURES).iterdir())])
    for file in made:
        assert (DEPLOY / file).read_bytes() == (tmp_path / file).read_bytes(), file


def test_figures_of_a_part_leave_the_others(folder: Path) -> None:
    """An axis that was not measured has no section, and no picture is looked for."""
    page.write(folder, AXES, figures_of(AXES[0]))
    assert (folder / page.PAGE).read_text().count("\n## ") == 1
    assert page.read(folder / "nothing") == {}


@pytest.mark.parametrize(
    ("load", "niceness", "said"),
    [(0.3, 19, "4.3.1."), (2.0, 0, "(load 2.0): go by CPU."), (2.0, 19, "(load 2.0) and niced by 19: go by CPU.")],
)
def test_busy_machine_is_named(load: float, niceness: int, said: str) -> None:
    """A figure by the clock that was taken beside other work is no figure."""
    taken = msgspec.structs.replace(TAKEN, load=load, niceness=niceness)
    assert said in page.text(AXES[:1], figures_of(AXES[0], taken=taken))


def test_medians_are_by_place_and_series() -> None:
    """Of three rounds the middle one counts, for each member by itself."""
    rounds = [Point(1, "a", rate, 1, 1, 1, 1) for rate in (5, 1, 3)] + [Point(2, "a", 9, 1, 1, 1, 1)]
    assert [(each.x, each.rate) for each in medians([*rounds, Point(1, "b", 7, 1, 1, 1, 1)])] == [
        (1, 3),
        (2, 9),
        (1, 7),
    ]


def test_lag_counts_timers_that_a_held_loop_has_missed() -> None:
    """One second held among a thousand ticks of 2 ms is a third of the time, not the thousandth part."""
    assert percentile([0.0] * 1_000 + [1.0], 99) == pytest.approx(0.97, abs=0.01)
    assert percentile([0.001] * 1_000, 99) == 0.001


# --- pictures ---


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.name)
def test_titles_of_panels_have_room(axis: Axis) -> None:
    """A panel is 320 pixels wide; a bold letter of its title has about seven."""
    assert len(axis.own) <= 36


def drawn(panel: Panel) -> ET.Element:
    """As a reader's program understands it."""
    return ET.fromstring(picture("A & B", [panel]))


def test_picture_has_axes_with_words_and_every_point() -> None:
    """Labels with units, the kind of the scales, a dot with its figures for each point, the names of two lines."""
    panel = Panel("CPU of each, µs", "accounts", {"old": [(1, 2), (1000, 3)], "new": [(1, 20_000), (1000, 4)]})
    root = drawn(panel)
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert {"A & B", "CPU of each, µs", "accounts (both log)", "old", "new", "1", "1k", "10k"} <= set(texts)
    dots = [dot.findtext(f"{SVG}title") for dot in root.iter(f"{SVG}circle") if len(dot)]
    assert dots == ["1: 2", "1k: 3", "1: 20k", "1k: 4"]
    assert "prefers-color-scheme: dark" in root.findtext(f"{SVG}style", "")


@pytest.mark.parametrize(
    ("places", "kind"),
    [
        ([(1.0, 1.0), (9.0, 9.0)], "linear"),
        ([(1.0, 1.0), (10.0, 9.0)], "log across"),
        ([(1.0, 1.0), (9.0, 10.0)], "log upwards"),
        ([(1.0, 0.0), (2.0, 0.0)], "linear"),
        ([(3.0, 5.0)], "linear"),
        ([(1.0, 0.0), (2.0, 1e6)], "linear"),
    ],
)
def test_scales_are_logarithmic_over_decades_only(places: list[tuple[float, float]], kind: str) -> None:
    """Zero has no place on a logarithmic scale, and one point spans nothing; all of it stays within the panel."""
    root = drawn(Panel("t", "x", {"": places}))
    assert f"x ({kind})" in [each.text for each in root.iter(f"{SVG}text")]
    for dot in root.iter(f"{SVG}circle"):
        assert 58 <= float(dot.attrib["cx"]) <= 304
        assert 34 <= float(dot.attrib["cy"]) <= 186


@pytest.mark.parametrize(
    ("value", "said"), [(0, "0"), (0.125, "0.125"), (999, "999"), (999.9, "1k"), (2_500_000, "2.5M")]
)
def test_numbers_are_short(value: float, said: str) -> None:
    """Three digits are what an axis has room for."""
    assert short(value) == said
