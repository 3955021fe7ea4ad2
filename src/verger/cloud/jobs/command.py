"""What verger is told on a cluster: the words of its own command line."""

from datetime import datetime

from verger.settings import RunSettings, options_for
from verger.store.location import Location


def job_command(run: RunSettings, deadline: datetime) -> tuple[str, ...]:
    """The words of `verger run` for a cluster, without its weights."""
    words = ["run", str(run.input), str(run.output), "--deadline", f"{deadline:%Y-%m-%dT%H:%M:%SZ}"]
    return (*words, *_options(run, options_for("cluster")))


def notebook_command(
    run: RunSettings, notebook: str, run_id: str, deadline: datetime
) -> tuple[str, ...]:
    """The words of `verger cloud execute-notebook`, which is what a cluster does with one."""
    words = ["cloud", "execute-notebook", notebook, executed(run.output, run_id).uri]
    words += ["--input", str(run.input), "--output", str(run.output)]
    words += ["--deadline", f"{deadline:%Y-%m-%dT%H:%M:%SZ}"]
    return (*words, *_options(run, options_for("notebook")))


def executed(output: Location, run_id: str) -> Location:
    """Where the executed copy of a notebook goes."""
    return output.child("executed", f"{run_id}.ipynb")


def _options(run: RunSettings, names: tuple[str, ...]) -> list[str]:
    words: list[str] = []
    for name, value in run.model_dump(include={*names}, exclude_defaults=True).items():
        option = "--" + name.replace("_", "-")
        words += [option] if value is True else [option, str(value)]
    return words
