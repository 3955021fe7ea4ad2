"""What a run says at its end, in English or French."""

from collections.abc import Callable, Iterator

from rich.text import Text

from verger.cli import console
from verger.output.layout import MATRIX_ROWS, Output
from verger.output.manifest import Manifest
from verger.report.texts import number_formats, texts

SHOWN_SECONDS = 0.1
"""Stages shorter than this are left out."""


def show_summary(manifest: Manifest, output: Output, language: str) -> None:
    """Print what a run made and where it is."""
    words, formats = texts(language, "summary"), number_formats(language)
    stages = texts(language, "stages")
    counts, count, timings = manifest.counts, formats["count"], manifest.timings
    table = console.table()
    table.add_row(words["images"], _describe_counts(manifest, language))
    if manifest.read_specially:
        special = _named(manifest.read_specially, texts(language, "special"), count)
        table.add_row(words["special"], "; ".join(special))
    matrix = words["matrix_is"].format(
        rows=count(counts.rows),
        components=manifest.components,
        share=formats["exact_share"](manifest.explained_variance_ratio or 0.0),
    )
    table.add_row(words["matrix"], matrix)
    longest = ", ".join(
        f"{stages.get(name, name)} {formats['seconds'](seconds)}"
        for name, seconds in timings.items()
        if seconds >= SHOWN_SECONDS
    )
    together = formats["seconds"](sum(timings.values()))
    table.add_row(words["time"], f"{together} ({longest})" if longest else together)
    if manifest.images_per_second:
        speed = count(manifest.images_per_second)
        table.add_row(words["speed"], words["speed_is"].format(speed=speed))
    if fidelity := manifest.fidelity:
        found = texts(language)["fidelity_is"].format(
            images=count(fidelity.images),
            mean=formats["cosine"](fidelity.mean_cosine),
            least=formats["cosine"](fidelity.least_cosine),
            same=formats["exact_share"](fidelity.same_neighbour),
        )
        table.add_row("bfloat16", found)
    has_matrix = counts.rows <= MATRIX_ROWS
    table.add_row("CSV", Text(str(output.matrix_csv if has_matrix else output.pca.child("csv"))))
    table.add_row("Parquet", Text(str(output.pca.child("parquet"))))
    table.add_row(words["model"], Text(str(output.model)))
    table.add_row(words["report"], Text(str(output.report)))
    console.stdout.print(table)


def _describe_counts(manifest: Manifest, language: str) -> str:
    words, count = texts(language, "summary"), number_formats(language)["count"]
    counts = manifest.counts
    parts = [words["featurized"].format(count=count(counts.featurized))]
    if counts.reused:
        parts.append(words["reused"].format(count=count(counts.reused)))
    parts.append(words["rejected"].format(count=count(counts.rejected)))
    text = words["listed"].format(count=count(counts.listed)) + ", ".join(parts)
    if manifest.rejected_by_reason:
        reasons = _named(manifest.rejected_by_reason, texts(language, "reasons"), count)
        text += f" ({', '.join(reasons)})"
    if counts.kept:
        text += words["kept"].format(count=count(counts.kept))
    return text


def _named(
    numbers: dict[str, int], names: dict[str, str], count: Callable[[float], str]
) -> Iterator[str]:
    return (f"{count(number)} {names.get(name, name)}" for name, number in numbers.items())
