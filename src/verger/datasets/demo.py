"""Demonstration photographs: made-up fruit in the style of Fruits-360, when no data set is at hand.

A fruit is coloured points over deformed unit spheres (z up), made once per kind and seed. A frame
turns them as a turntable would, keeps the nearest to the camera in each pixel, and lights those.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from verger.progress import Progress

Array = NDArray[np.floating]
Pattern = Callable[[Array, np.random.Generator], Array]
"""From unit vectors (..., 3) to weights (...) in 0..1."""

SIDE = 100  # pixels, as in Fruits-360
JPEG_QUALITY = 90
SUPERSAMPLING = 2  # rendered at twice the size, then averaged, for smooth edges
FILL = 0.97  # how much of the picture the fruit may span
POINTS = 140_000  # on a whole sphere: about one to a supersampled pixel
WAVES = 10  # summed into a random texture
CAMERA_TILT = 14  # degrees above the horizon
LIGHT = np.array([-0.45, 0.6, 0.66])  # unit vector: right, up, towards the camera
HALFWAY = np.array([-0.25, 0.33, 0.91])  # between lamp and camera: what faces it shines


@dataclass(frozen=True)
class Part:
    """A deformed sphere and its place: leant, moved by `at`, then turned about z (degrees)."""

    skin: str
    layers: tuple[tuple[str, Pattern], ...] = ()  # colours painted over the skin, in order
    relief: tuple[tuple[float, Pattern], ...] = ()  # heights, as fractions of the radius
    radii: tuple[float, ...] = (1, 1, 1)  # from the top pole to the bottom one, by equal angles
    width: float = 1
    bend: float = 0
    gloss: float = 0.25
    size: float = 1
    lean: float = 0
    at: tuple[float, float, float] = (0, 0, 0)
    turn: float = 0
    on_foot: bool = False  # `at` is then the place of its bottom pole, not of its centre


def _ramp(values: Array, low: float, high: float) -> Array:
    """Go smoothly from 0 at `low` to 1 at `high`; `low` may be the larger."""
    t: Array = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _noise(points: Array, frequency: float, rng: np.random.Generator) -> Array:
    """Smooth random field of unit variance: waves of one length in random directions."""
    waves = rng.normal(size=(3, WAVES))
    waves *= frequency / np.linalg.norm(waves, axis=0)
    angles = points @ waves.astype(np.float32) + rng.uniform(0, 6.28, WAVES).astype(np.float32)
    return np.cos(angles) @ np.full(WAVES, np.sqrt(2 / WAVES), np.float32)


def _azimuth(points: Array) -> Array:
    return np.arctan2(points[..., 1], points[..., 0])


def mottle(frequency: float, low: float = -1.5, high: float = 1.5, stretch: float = 1) -> Pattern:
    """Random patches; a high `low` leaves only specks, `stretch` draws them out along z."""
    scale = np.array([1, 1, 1 / stretch], np.float32)
    return lambda points, rng: _ramp(_noise(points * scale, frequency, rng), low, high)


def stripes(count: int, low: float = -1, high: float = 1, wobble: float = 0) -> Pattern:
    """Bands from pole to pole, `count` around the fruit, wavering by `wobble` radians."""
    return lambda points, rng: _ramp(
        np.cos(count * _azimuth(points) + wobble * _noise(points, 8, rng)), low, high
    )


def diamonds(count: int, low: float = 0, high: float = 1) -> Pattern:
    """A lattice of bosses set slantwise, in two interleaved sets of `count` around the fruit."""
    return lambda points, _: _ramp(
        (np.cos(count * _azimuth(points)) + np.cos(count * np.arccos(points[..., 2]))) ** 2 / 4,
        low,
        high,
    )


def pole(low: float, high: float) -> Pattern:
    """The top (z = 1) or the bottom (z = -1) end of the fruit."""
    return lambda points, rng: _ramp(points[..., 2] + 0.02 * _noise(points, 9, rng), low, high)


def _ring(part: Part, count: int, start: float = 0) -> tuple[Part, ...]:
    return tuple(replace(part, turn=start + 360 * i / count) for i in range(count))


# fmt: off
UNEVEN = (0.05, mottle(2))
STEM = Part("#5b4526", width=0.09, bend=0.2, size=0.26, lean=10, on_foot=True, gloss=0.05)
STALK = Part("#6d7f2c", width=0.035, bend=-0.3, size=0.25, lean=10, on_foot=True, gloss=0.1)
SEPAL = Part("#4f7d2a", (("#86a84a", stripes(2)),), width=0.2, bend=0.3, lean=-80, on_foot=True)
LEAF = Part("#5f7d45", (("#a9b778", pole(0.3, -0.9)),), width=0.13, bend=0.3, on_foot=True, gloss=0)
CHERRY = Part("#8e0f1c", (("#4a0510", mottle(2)), ("#d2473f", mottle(30, 2.2, 2.8))),
              ((-0.06, stripes(1, 0.93, 1)),), (0.75, 0.95, 1.02, 1, 0.98, 0.95, 0.93), gloss=0.9)
GRAPE = Part("#3b2a58", (("#7f7aa6", mottle(3, 0.2, 2.2)),), size=0.3, gloss=0.45)

FRUITS: dict[str, tuple[Part, ...]] = {  # the first part's lean is that of the whole fruit
    "Apple Green": (
        Part("#8fae3a", (("#c3c65e", mottle(1.3, 0, 2)), ("#c9d48a", mottle(45, 1.6, 2.4)),
                         ("#6b5a2c", mottle(14, 2.4, 2.7)), ("#7a6b35", pole(0.9, 1))),
             (UNEVEN,), (0.52, 0.86, 1.03, 1.02, 0.95, 0.85, 0.6), lean=6),
        replace(STEM, at=(0, 0, 0.45))),
    "Apple Red": (
        Part("#a5161d", (("#d9a648", mottle(1.5, 0.6, 2)), ("#c23a32", stripes(44, 0, 1, 0.9)),
                         ("#e0a080", mottle(45, 1.7, 2.4)), ("#7d5a2c", pole(0.9, 1))),
             (UNEVEN, (0.03, stripes(5))), (0.55, 0.9, 1.04, 1, 0.95, 0.92, 0.68), lean=8),
        replace(STEM, at=(0, 0, 0.48))),
    "Banana": (
        Part("#e3b723", (("#f0cf4e", stripes(5)), ("#7a5418", mottle(18, 1.8, 2.3, 4)),
                         ("#a8a83a", pole(0.8, 1)), ("#3d2a14", pole(0.975, 0.99))),
             ((0.1, stripes(5)),), (1.3, 1.1, 1.1, 1, 1.1, 1.1, 1.1), 0.27, bend=0.5, lean=15),),
    "Cherry": (
        replace(CHERRY, size=0.5, at=(0, 0.5, -0.5), lean=3),
        replace(CHERRY, size=0.47, at=(0, -0.5, -0.4)),
        replace(STALK, size=0.62, at=(0, 0.5, -0.14), lean=24, turn=0),
        replace(STALK, size=0.57, at=(0, 0.5, -0.06), lean=26, turn=180)),
    "Dates": (
        Part("#5a2c14", (("#8f5424", mottle(4)), ("#2e140a", mottle(9, 0.3, 1.6, 3))),
             ((0.2, mottle(8, stretch=3)), (0.05, mottle(20))), width=0.5, gloss=0.5, lean=35),),
    "Grape Blue": (
        replace(GRAPE, at=(0.05, 0, -0.95), lean=5),
        *_ring(replace(GRAPE, at=(0.4, 0, 0.6)), 4), *_ring(replace(GRAPE, at=(0.55, 0, 0.2)), 6),
        *_ring(replace(GRAPE, at=(0.46, 0, -0.2)), 5), *_ring(replace(GRAPE, at=(0.3, 0, -0.6)), 3),
        replace(STALK, size=0.35, at=(0, 0, 0.5), width=0.06)),
    "Kiwi": (
        Part("#7d6134", (("#a58650", mottle(75, -0.5, 1.5, 3)), ("#5a4222", mottle(5, 0, 3)),
                         ("#3a2a18", pole(0.97, 0.99)), ("#3a2a18", pole(-0.98, -0.995))),
             (UNEVEN, (0.015, mottle(80))), width=0.8, gloss=0, lean=16),),
    "Lemon": (
        Part("#e8bd1c", (("#f3d548", mottle(4)), ("#a8b13a", pole(0.9, 1)),
                         ("#96762a", mottle(14, 2.3, 2.7))),
             (UNEVEN, (0.008, mottle(50))), (1.3, 1.04, 1, 0.97, 1, 1.04, 1.3), 0.8, lean=18),),
    "Orange": (
        Part("#e2760f", (("#f09a2c", mottle(3)), ("#c25a08", mottle(60, 1.1, 2)),
                         ("#7d8a3a", pole(0.985, 0.995)), ("#8a5a20", mottle(15, 2.3, 2.7))),
             (UNEVEN, (0.007, mottle(55))), (0.9, 0.97, 1, 1, 1, 0.97, 0.93), lean=8),),
    "Pear": (
        Part("#c2b548", (("#cf8a4a", mottle(1.5, 0.3, 2)), ("#7d6a2c", mottle(50, 1.3, 2.2)),
                         ("#8a5f2c", mottle(13, 1.9, 2.6)), ("#8a6a35", pole(-0.95, -1))),
             (UNEVEN,), (1.5, 1.13, 0.95, 0.97, 1.01, 0.97, 0.88), lean=8),
        replace(STEM, at=(0, 0, 1.4))),
    "Pineapple": (
        Part("#6b4a1c", (("#c98a2a", diamonds(16, 0.1, 0.5)), ("#8f9a45", mottle(2, 0, 3)),
                         ("#e0bd68", diamonds(16, 0.6, 0.9)), ("#4a3014", diamonds(16, 0.93, 1))),
             (UNEVEN, (0.12, diamonds(16, 0, 0.7))), (1, 1.06, 1.04, 1, 1.04, 1.06, 1), width=0.7),
        *_ring(replace(LEAF, size=0.3, at=(0, 0.1, 0.9), lean=-45), 9),
        *_ring(replace(LEAF, size=0.38, at=(0, 0.08, 0.92), lean=-25), 7, 20),
        *_ring(replace(LEAF, size=0.42, at=(0, 0.03, 0.95), lean=-8), 4, 40)),
    "Plum": (
        Part("#4a1d4c", (("#8a2440", mottle(1.5, 0.3, 1.8)), ("#9a8fb4", mottle(2.5, -0.2, 2.6))),
             (UNEVEN, (-0.07, stripes(1, 0.9, 1))), (0.86, 0.97, 1, 1, 1, 1, 0.98), 0.86, lean=12),
        replace(STEM, size=0.14, at=(0, 0, 0.8))),
    "Strawberry": (
        Part("#c4151c", (("#e04a34", mottle(3)), ("#e8b8a0", pole(0.86, 1)),
                         ("#8a0a12", diamonds(14, 0.6, 0.8)), ("#f0cf70", diamonds(14, 0.8, 0.9))),
             (UNEVEN, (-0.04, diamonds(14, 0.3, 0.9))), (0.7, 0.9, 1, 1, 0.95, 1, 1.2), lean=9),
        *_ring(replace(SEPAL, size=0.36, at=(0, 0.02, 0.78)), 9),
        replace(STALK, at=(0, 0, 0.65))),
    "Tomato": (
        Part("#cf1f12", (("#e8502a", mottle(2)), ("#d98a3a", pole(0.85, 1))),
             (UNEVEN, (0.025, stripes(6))), (0.66, 0.84, 0.98, 1.02, 0.98, 0.86, 0.74), gloss=0.8),
        *_ring(replace(SEPAL, size=0.26, at=(0, 0.02, 0.7)), 5),
        replace(STALK, size=0.2, at=(0, 0, 0.6))),
    "Watermelon": (
        Part("#9db77a", (("#6f9a5a", mottle(14)), ("#1f4a24", stripes(11, 0.1, 0.4, 0.8)),
                         ("#d8d48a", mottle(1.5, 1.4, 2.2))), (UNEVEN,), width=0.94, lean=10),
        replace(STEM, size=0.12, at=(0, 0, 0.97))),
}
# fmt: on
KINDS: tuple[str, ...] = tuple(FRUITS)


def _unit(vectors: Array) -> Array:
    lengths: Array = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / lengths


def _rotation(axis: int, degrees: float) -> Array:
    """Matrix (3, 3) turning column vectors about x (axis 0) or z (axis 2)."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = (k for k in range(3) if k != axis)
    matrix = np.eye(3, dtype=np.float32)
    matrix[[i, j, i, j], [i, j, j, i]] = cosine, cosine, -sine, sine
    return matrix


def _directions(count: int) -> Array:
    """Unit vectors (3, count, 3): an even spiral over the sphere, nudged east, nudged north."""
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.arange(count) * np.pi * (3 - np.sqrt(5))  # by the golden angle, none lines up
    east = np.stack([-np.sin(angle), np.cos(angle), 0 * z], axis=1)
    ring = np.sqrt(1 - z * z)
    centre = np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=1)
    nudges = np.stack([0 * east, east, np.cross(centre, east)])
    return _unit(centre + 0.004 * nudges).astype(np.float32)


def _surface(part: Part, lean: float, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Positions (n, 3), unit normals (n, 3) and colours with gloss (n, 4) of a part in place."""
    directions = _directions(int(POINTS * part.size**2 * min(1, 1.5 * part.width)))
    nodes = np.cos(np.linspace(0, np.pi, len(part.radii)))
    profile = np.polynomial.Chebyshev.fit(nodes, part.radii, len(nodes) - 1)  # smooth at the poles
    radius = profile(directions[..., 2])
    for height, pattern in part.relief:
        radius = radius * (1 + height * pattern(directions, rng))
    points = directions * radius[..., None] * np.array([part.width, part.width, 1], np.float32)
    points[..., 1] += part.bend * (points[..., 2] ** 2 - 1)
    points[..., 2] += part.on_foot
    points = (part.size * points @ _rotation(0, lean).T + part.at) @ _rotation(2, part.turn).T
    normals = _unit(np.cross(points[1] - points[0], points[2] - points[0]))
    colours = np.full((len(normals), 4), (*ImageColor.getrgb(part.skin), part.gloss), np.float32)
    for paint, pattern in part.layers:
        weight = pattern(directions[0], rng)[:, None]
        colours[:, :3] += weight * (ImageColor.getrgb(paint) - colours[:, :3])
    return points[0].astype(np.float32), normals.astype(np.float32), colours


@lru_cache(maxsize=2)
def _cloud(kind: str, seed: int) -> tuple[Array, Array, Array]:
    """All parts of a fruit together, leant and scaled to stay within -1..1 as it turns."""
    first, *others = FRUITS[kind]
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    lean, tint = _rotation(0, first.lean + rng.uniform(-4, 4)), rng.uniform(0.94, 1.06, 3)
    surfaces = [_surface(first, 0, rng), *(_surface(part, part.lean, rng) for part in others)]
    positions, normals, colours = (np.concatenate(arrays) for arrays in zip(*surfaces, strict=True))
    positions = positions @ lean.T
    positions -= (positions.max(axis=0) + positions.min(axis=0)) / 2
    positions *= rng.uniform(0.93, 1) / np.linalg.norm(positions, axis=1).max()
    colours[:, :3] *= tint
    return positions, normals @ lean.T, colours


def render(kind: str, frame: int, frames: int, seed: int = 0) -> Image.Image:
    """Photograph a fruit of `KINDS` at step `frame` of a full turn in `frames` steps, at least 1.

    Returns:
        100 x 100 pixels, RGB.
    """
    positions, normals, colours = _cloud(kind, seed)
    turn = _rotation(0, CAMERA_TILT - 90) @ _rotation(2, 360 * frame / frames)
    normals = normals @ turn.T
    front = np.flatnonzero(normals[:, 2] > 0)
    right, up, near = (positions[front] @ turn.T).T
    side = SIDE * SUPERSAMPLING
    pixel_row, pixel_column = (((1 + FILL * v) * side / 2).astype(np.intp) for v in (-up, right))
    nearest_last = np.argsort((near * 10_000).astype(np.int16), kind="stable")
    seen = np.full((side, side), -1)
    seen[pixel_row[nearest_last], pixel_column[nearest_last]] = front[nearest_last]
    gap = np.minimum(np.roll(seen, 1, axis=1), np.roll(seen, -1, axis=1))
    seen = np.where(seen < 0, gap, seen)  # a pixel missed between two points takes one of them
    hit = seen >= 0
    canvas = np.full((side, side, 3), 255, np.uint8)
    canvas[hit] = _lit(colours[seen[hit]], normals[seen[hit]]).clip(0, 255)
    return Image.fromarray(canvas).reduce(SUPERSAMPLING)


def _lit(colours: Array, normals: Array) -> Array:
    """Colours (n, 3) under the lamp: soft diffuse light, darker rims and a highlight."""
    diffuse: Array = 0.4 + 0.75 * np.clip((normals @ LIGHT + 0.25) / 1.25, 0, 1)
    rim: Array = 0.55 + 0.45 * np.sqrt(normals[:, 2])
    highlight: Array = 230 * colours[:, 3] * np.clip(normals @ HALFWAY, 0, 1) ** 40
    return colours[:, :3] * (diffuse * rim)[:, None] + highlight[:, None]


def number_of_demo_images(wanted: int) -> int:
    """How many `write_demo_images` writes: one of each kind at least."""
    return max(wanted, len(KINDS))


def write_demo_images(
    folder: Path, *, images: int, seed: int = 0, progress: Progress | None = None
) -> None:
    """Write `images` JPEG files, evenly over KINDS, as folder/<kind>/r_<frame>_100.jpg.

    Each kind makes one full turn; where the number is no multiple of that of the kinds, the last
    ones lack a frame; see `number_of_demo_images`.
    """
    shown = progress or Progress()
    total = number_of_demo_images(images)
    frames = -(-total // len(KINDS))
    # What is drawn of a kind serves all its frames.
    wanted = sorted((number % len(KINDS), number // len(KINDS)) for number in range(total))
    shown.start("demo", total)
    for done, (kind, frame) in enumerate(wanted, start=1):
        path = folder / KINDS[kind] / f"r_{frame}_{SIDE}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        render(KINDS[kind], frame, frames, seed).save(path, quality=JPEG_QUALITY)
        shown.update(done)
    shown.finish()
