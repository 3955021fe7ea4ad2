"""Colours that tell classes apart, on white and on black."""

import colorsys

PALETTE = (
    "#d1495b", "#2e86ab", "#e0a030", "#3a9d5d", "#8a5fbf",
    "#e07a5f", "#1b9aaa", "#a7754d", "#c75ba1", "#7a9e3f",
)  # fmt: skip
"""Colours that are told apart on white and on black, for up to ten classes."""


GOLDEN_ANGLE = 0.618_034
"""A share of the circle: hues in steps of it never come close soon."""


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
