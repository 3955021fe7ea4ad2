"""What a run says at its end, in English or French."""

from rich.table import Table
from rich.text import Text

from verger.cli.console import stdout
from verger.output.layout import MATRIX_ROWS, Output
from verger.output.manifest import Manifest
from verger.report.texts import (
    number_formats,
    reason_names,
    special_names,
    stage_names,
    summary_texts,
)

SHOWN_SECONDS = 0.1
"""Stages shorter than this are left out."""


def show_summary(manifest: Manifest, output: Output, language: str = "en") -> None:
    """Print what a run made and where it is."""
    words, formats, stages = (
        summary_texts(language),
        number_formats(language),
        stage_names(language),
    )
    counts, timings = manifest.counts, manifest.timings
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row(words["images"], _describe_counts(manifest, language))
    if manifest.read_specially:
        names, count = special_names(language), formats["count"]
        special = (
            f"{count(number)} {names.get(name, name)}"
            for name, number in manifest.read_specially.items()
        )
        table.add_row(words["special"], "; ".join(special))
    matrix = words["matrix_is"].format(
        rows=formats["count"](counts.rows),
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
        speed = formats["count"](manifest.images_per_second)
        table.add_row(words["speed"], words["speed_is"].format(speed=speed))
    if fidelity := manifest.fidelity:
        found = words["fidelity_is"].format(
            images=formats["count"](fidelity.images),
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
    stdout.print(table)


def _describe_counts(manifest: Manifest, language: str) -> str:
    words, count = summary_texts(language), number_formats(language)["count"]
    counts, names = manifest.counts, reason_names(language)
    parts = [words["featurized"].format(count=count(counts.featurized))]
    if counts.reused:
        parts.append(words["reused"].format(count=count(counts.reused)))
    parts.append(words["rejected"].format(count=count(counts.rejected)))
    text = words["listed"].format(count=count(counts.listed)) + ", ".join(parts)
    if manifest.rejected_by_reason:
        reasons = (
            f"{count(number)} {names.get(reason, reason)}"
            for reason, number in manifest.rejected_by_reason.items()
        )
        text += f" ({', '.join(reasons)})"
    if counts.kept:
        text += words["kept"].format(count=count(counts.kept))
    return text
