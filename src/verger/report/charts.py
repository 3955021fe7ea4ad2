"""Small charts as SVG, without any library: they show in notebooks, in browsers and on slides."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10

from verger.store import storage
from verger.store.location import Location

WIDTH, HEIGHT = 960, 480
LEFT, RIGHT, TOP, BOTTOM = 80, 70, 30, 70
"""Margins in pixels, for the axes and their titles."""
WIDE, HIGH = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
"""What they leave."""
INK, FAINT, LEAF, FRUIT = "#26312a", "#d9ded8", "#3f7d4e", "#c8553d"
LEAST_TICKS = 4
"""On an axis: as many as are read at a glance."""
NAMED = 25
"""Labels that are written on a map at most."""
LINE = 16
"""What a line of text takes, in pixels."""
PALETTE = (
    "#d1495b", "#2e86ab", "#e0a030", "#3a9d5d", "#8a5fbf",
    "#e07a5f", "#1b9aaa", "#a7754d", "#c75ba1", "#7a9e3f",
)  # fmt: skip
"""Colours that are told apart on white and on black, for up to ten classes."""
GOLDEN_ANGLE = 0.618_034
"""A share of the circle: hues in steps of it never come close soon."""


@dataclass(frozen=True, repr=False)
class Drawing:
    """A chart, which notebooks show.

    Attributes:
        svg: the whole picture.
    """

    svg: str

    def __repr__(self) -> str:
        return f"<Drawing of {len(self.svg):,} characters; save() it>"

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, file: str) -> "Drawing":
        """Write it to a file (`.svg`) or to an object, and return it.

        Raises:
            OSError: it cannot be written.
        """
        storage.write_bytes(Location.parse(file), self.svg.encode())
        return self


def scree(
    ratios: Sequence[float],
    *,
    x_title: str = "component",
    y_title: str = "share of the variance",
    sum_title: str = "together",
    decimal_mark: str = ".",
) -> Drawing:
    """Bars of what each component explains, and a line of what those up to it explain together.

    Args:
        ratios: shares of the total variance, by falling size.
        x_title: below the horizontal axis.
        y_title: beside the bars' axis, on the left.
        sum_title: beside the line's axis, on the right.
        decimal_mark: in what is written beside the axes.
    """
    step, most = WIDE / len(ratios), max(ratios)
    bars, points, total = [], [], 0.0
    for index, ratio in enumerate(ratios):
        total += ratio
        x, height = LEFT + index * step, HIGH * ratio / most
        bars.append(rectangle(x + step * 0.1, TOP + HIGH - height, step * 0.8, height, LEAF))
        points.append(f"{x + step / 2:.1f},{_y(total):.1f}")
    line = f'<polyline points="{" ".join(points)}" fill="none" stroke="{FRUIT}" stroke-width="3"/>'
    axes = []
    for value in _ticks(most):
        written = f"{100 * value:g} %".replace(".", decimal_mark)
        axes.append(label(LEFT - 10, _y(value / most) + 5, written, "end"))
    for quarter in (0.0, 0.25, 0.5, 0.75, 1.0):
        axes += [
            f'<path d="M{LEFT} {_y(quarter):.1f}h{WIDE}" stroke="{FAINT}"/>',
            label(WIDTH - RIGHT + 10, _y(quarter) + 5, f"{100 * quarter:g} %", "start", FRUIT),
        ]
    for number in sorted({1, *range(10, len(ratios) + 1, 10), len(ratios)}):
        x = LEFT + (number - 0.5) * step
        axes.append(label(x, HEIGHT - BOTTOM + 24, f"{number}", "middle"))
    titles = [
        label(LEFT + WIDE / 2, HEIGHT - 12, x_title, "middle"),
        label(LEFT, TOP - 12, y_title, "start", LEAF),
        label(WIDTH - RIGHT, TOP - 12, sum_title, "end", FRUIT),
    ]
    return drawing([*axes, *bars, line, *titles])


def scatter(points: Sequence[tuple[float, float, str]]) -> Drawing:
    """Points in the colours of their labels; the most frequent labels are written at their middle.

    Args:
        points: scores on two components, and label; at least one point.
    """
    xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
    left, wide = min(xs), (max(xs) - min(xs)) or 1
    low, high = min(ys), (max(ys) - min(ys)) or 1
    groups: dict[str, list[tuple[float, float]]] = {}
    for x, y, name in points:
        place = LEFT + (x - left) / wide * WIDE, _y((y - low) / high)
        groups.setdefault(name, []).append(place)
    marks: list[str] = []
    middles: list[tuple[float, float, str]] = []
    for colour, name in zip(class_colours(len(groups)), sorted(groups), strict=True):
        marks += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}" fill-opacity="0.7"/>'
            for x, y in groups[name]
        ]
    for name in sorted(groups, key=lambda name: (-len(groups[name]), name))[:NAMED]:
        across, down = (sum(values) / len(values) for values in zip(*groups[name], strict=True))
        # A name that would lie on another is left out.
        if all(
            abs(across - x) > 4.5 * (len(name) + len(other)) or abs(down - y) > LINE
            for x, y, other in middles
        ):
            middles.append((across, down, name))
    names = [label(x, y, name, "middle", halo=True) for x, y, name in middles]
    frame = (
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDE}" height="{HIGH}" fill="none" stroke="{FAINT}"/>'
    )
    titles = [
        label(LEFT + WIDE / 2, HEIGHT - 30, "pc_1", "middle"),
        label(LEFT - 12, _y(0.5), "pc_2", "end"),
    ]
    return drawing([frame, *marks, *names, *titles])


def class_colours(count: int) -> list[str]:
    """A colour for each of so many classes; more than ten differ in hue and lightness."""
    if count <= len(PALETTE):
        return list(PALETTE[:count])
    colours = []
    for index in range(count):
        lightness = (0.42, 0.52, 0.62)[index % 3]
        rgb = colorsys.hls_to_rgb((index * GOLDEN_ANGLE) % 1, lightness, 0.62)
        colours.append("#" + "".join(f"{round(255 * part):02x}" for part in rgb))
    return colours


def _y(share: float) -> float:
    return TOP + HIGH * (1 - share)


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 up to `most`, `LEAST_TICKS` at least."""
    step = 10 ** floor(log10(most))
    while most / step < LEAST_TICKS:
        step /= 2
    return [index * step for index in range(int(most / step) + 1)]


def rectangle(x: float, y: float, width: float, height: float, colour: str) -> str:
    """A bar."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" '
        f'fill="{colour}"/>'
    )


def label(
    x: float,
    y: float,
    text: str,
    anchor: str,
    colour: str = INK,
    *,
    size: int = 15,
    halo: bool = False,
) -> str:
    """A line of text that starts, ends or has its middle at a place."""
    around = ' stroke="#fff" stroke-width="4" paint-order="stroke"' if halo else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" '
        f'font-size="{size}"{around}>{escape(text)}</text>'
    )


def drawing(shapes: Sequence[str], height: float = HEIGHT) -> Drawing:
    """All shapes, on white."""
    return Drawing(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
        f'width="{WIDTH}" height="{height:g}" font-family="DejaVu Sans, Arial, sans-serif">\n'
        f'<rect width="{WIDTH}" height="{height:g}" fill="#fff"/>\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )
