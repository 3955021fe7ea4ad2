"""What verger is told on a cluster: the words of its own command line."""

from datetime import datetime

from verger.settings import RunSettings
from verger.store.location import Location

ON_A_CLUSTER = {
    "compact_files",
    "components",
    "fresh",
    "keep_pca",
    "label_from",
    "lang",
    "limit",
    "max_rejected",
    "prune",
    "rebase",
    "retain",
    "retry_rejected",
    "wave_size",
}
"""Settings of a run that are passed on."""


def job_command(run: RunSettings, deadline: datetime) -> tuple[str, ...]:
    """The words of `verger run` for a cluster, without its weights."""
    words = ["run", str(run.input), str(run.output), "--deadline", f"{deadline:%Y-%m-%dT%H:%M:%SZ}"]
    return (*words, *_options(run, ON_A_CLUSTER))


def notebook_command(
    run: RunSettings, notebook: str, run_id: str, deadline: datetime
) -> tuple[str, ...]:
    """The words of `verger cloud execute-notebook`, which is what a cluster does with one."""
    words = ["cloud", "execute-notebook", notebook, executed(run.output, run_id).uri]
    words += ["--input", str(run.input), "--output", str(run.output)]
    words += ["--deadline", f"{deadline:%Y-%m-%dT%H:%M:%SZ}"]
    return (*words, *_options(run, {"components", "limit"}))


def executed(output: Location, run_id: str) -> Location:
    """Where the executed copy of a notebook goes."""
    return output.child("executed", f"{run_id}.ipynb")


def _options(run: RunSettings, names: set[str]) -> list[str]:
    words: list[str] = []
    for name, value in run.model_dump(include=names, exclude_defaults=True).items():
        option = "--" + name.replace("_", "-")
        words += [option] if value is True else [option, str(value)]
    return words
