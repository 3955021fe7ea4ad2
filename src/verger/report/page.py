"""`report.html`: one file that shows an output, and asks nothing of any host."""

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from math import floor, log10
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from verger.datasets.fruits360 import credit_by_name
from verger.images.shrinking import SIDE
from verger.images.thumbnails import data_uri, find_images, make_thumbnails
from verger.output.layout import ListedImage, Output
from verger.output.manifest import Manifest
from verger.progress import Progress
from verger.report import plots
from verger.report.charts import class_colours
from verger.report.data import Contents, read_output
from verger.report.scores import MAP_ROWS, stratify
from verger.report.texts import number_formats, texts
from verger.store import storage
from verger.store.location import Location
from verger.version import VERSION

Sources = dict[str, str | None]
"""Pictures as data URIs, by path; None for those that cannot be read."""

PICTURE_SIDE = 128
"""Pixels of the longer side of the pictures beside the map, whose thumbnails have `SIDE`."""
MAP_COMPONENTS = 12
"""Components that the map's axes can show."""
MAP_DIGITS = 4
"""Of the map's largest score; all others have as many decimal places."""
THUMBNAIL_SECONDS = 120.0
"""What the pictures may take of a run; the rest stay without."""
PLOTLY = "plotly-basic.min.js"
"""npm's plotly.js-basic-dist-min 4.1.1 (MIT): the bundle of the Python package has maps and 3-D
too, is four times larger, and takes a browser 1.5 s more to load."""
MANY_CLASSES = 30
"""With more classes, the page shows the largest and the smallest, and the rest on demand."""

SHOWN_SCORES = 10
"""Classes that are recognised least, and pairs of classes confused most, that are listed."""
SHOWN_MISTAKES = 8
"""Photographs taken for another class that are seen at once; the rest is shown on demand."""


def write_report(
    output: Output, language: str, progress: Progress, manifest: Manifest | None = None
) -> None:
    """Write `report.html` into an output.

    Args:
        output: which, in whatever state it is.
        language: `en` or `fr`.
        progress: is told the stages "scores", "compare" and "pictures".
        manifest: of a run that has not written it yet.

    Raises:
        InputError: it is not an output.
        OSError: the page cannot be written.
    """
    contents = read_output(output, progress, manifest)
    manifest, measured, words = contents.manifest, contents.evaluation, texts(language)
    pictures = _pictures_of(contents, _exhibited(contents), PICTURE_SIDE, progress)
    photographs: Sources = {}
    if measured and measured.mistakes:
        taken = [mistake.image for mistake in measured.mistakes]
        photographs = _read_pictures(measured.input, taken, PICTURE_SIDE, progress, {})
    points, thumbnails = _map(contents, progress)
    chart = None
    if contents.spectrum:
        chart = plots.scree_figure(contents.spectrum, contents.kept, words)
    scripts = [_asset(PLOTLY), _asset("page.js")] if points or chart else []
    page = _template(language).render(
        contents=contents,
        manifest=manifest,
        classes=contents.classes,
        labelled=contents.classes.names not in ([], [""]),
        pictures=pictures,
        pictures_gone=[*pictures.values(), *thumbnails.values()].count(None),
        photographs=photographs,
        photographs_gone=[*photographs.values()].count(None),
        points=points,
        map_figure=plots.map_figure() if points else None,
        scree_figure=chart,
        many_classes=MANY_CLASSES,
        shown_scores=SHOWN_SCORES,
        shown_mistakes=SHOWN_MISTAKES,
        credit=manifest.settings.get("credit") or credit_by_name(manifest.input),
        t=words,
        stages=texts(language, "stages"),
        reasons=texts(language, "reasons"),
        special=texts(language, "special"),
        language=language,
        version=VERSION,
        policy=_policy(scripts),
        # Ours and Plotly's, as they are; nothing of an output is in them.
        style=Markup(_asset("page.css")),  # noqa: S704
        scripts=[Markup(script) for script in scripts],  # noqa: S704
    )
    storage.write_bytes(output.report, page.encode(errors="backslashreplace"))


@cache
def _template(language: str) -> jinja2.Template:
    """The page, which is compiled once in a process."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters.update(number_formats(language))
    return environment.from_string(_asset("page.html.j2"))


def _pictures_of(
    contents: Contents, paths: Iterable[str], side: int, progress: Progress
) -> Sources:
    """Those of images of the input; none where nobody knows where that is."""
    wanted = list(dict.fromkeys(paths))
    if not wanted or contents.manifest.input == "?":
        return {}
    listed, kept = find_images(contents.output, set(wanted), thumbnails=side == SIDE)
    images = [listed[path] for path in wanted]
    return _read_pictures(contents.manifest.input, images, side, progress, kept)


def _read_pictures(
    folder: str,
    images: list[ListedImage],
    side: int,
    progress: Progress,
    kept: dict[str, bytes],
) -> Sources:
    progress.start("pictures", len(images))
    place = Location.parse(folder)
    made = make_thumbnails(place, images, side, progress, seconds=THUMBNAIL_SECONDS, kept=kept)
    sources = {path: data_uri(webp) if webp else None for path, webp in made}
    progress.finish()
    return sources


def _exhibited(contents: Contents) -> list[str]:
    """The paths of all images of the input that the page shows beside the map."""
    mistakes = contents.evaluation.mistakes if contents.evaluation else []
    nearest = [mistake.nearest for mistake in mistakes if mistake.nearest is not None]
    if contents.summary is None or contents.findings is None:
        return nearest
    findings, paths = contents.findings, contents.summary.sample.paths
    ends = (end for both in contents.summary.ends for end in (*both.low, *both.high))
    asked = [*findings.queries, *findings.strangers]
    rows = [
        *asked,
        *(near for row in asked for near in findings.neighbours.indices[row].tolist()),
        *(row for pair in findings.pairs for row in (pair.left, pair.right)),
        *(row for row, _ in findings.outliers),
        *(row for pair in findings.class_pairs for row in (pair.left_row, pair.right_row)),
    ]
    return [*nearest, *(path for path, _, _ in ends), *(paths[row] for row in rows)]


def _map(contents: Contents, progress: Progress) -> tuple[dict[str, Any] | None, Sources]:
    """What the map's script takes, columns of images and of classes; and its pictures."""
    if contents.summary is None:
        return None, {}
    sample = stratify(contents.summary.sample, MAP_ROWS, contents.classes)
    names = contents.classes.names
    used, codes = np.unique(contents.classes.codes(sample.labels), return_inverse=True)
    sources = _pictures_of(contents, sample.paths, SIDE, progress)
    scores = sample.scores[:, :MAP_COMPONENTS].astype(float)
    # Those of several views are a hundredth of those of one.
    places = MAP_DIGITS - 1 - floor(log10(np.abs(scores).max() or 1.0))
    colours = class_colours(len(names))
    points = {
        "paths": sample.paths.tolist(),
        "classes": [names[code] for code in used],
        "colours": [colours[code] for code in used],
        "codes": codes.tolist(),
        "scores": scores.round(places).T.tolist(),
        "pictures": [sources.get(path) for path in sample.paths],
    }
    return points, sources


def _asset(name: str) -> str:
    return (files("verger.report") / name).read_text(encoding="utf-8")


def _policy(scripts: list[str]) -> str:
    """Only these scripts may run, and nothing may be fetched."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()) for script in scripts]
    allowed = " ".join(f"'sha256-{digest.decode()}'" for digest in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
