"""What verger is told on a cluster, and how it is given to Spark: in the same words on any YARN."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from verger.settings import RunSettings, options_for
from verger.store.location import Location

PYTHONPATH = "code:environment"
"""Where Spark unpacks verger's code and its packages, beside each process."""

PYTHON = "python3.11"
"""The interpreter on a cluster's machines."""


def spark_properties(*, region: str, environment: str, code: str, backbone: str) -> dict[str, str]:
    """Spark's settings that bring packages, code, backbone and region to every process.

    Args:
        region: where the buckets are. Nothing on a cluster's machines tells it to Python.
        environment: URI of the archive of packages, see `bundle.pack_environment`.
        code: URI of verger's code, see `bundle.pack_code`.
        backbone: URI of the backbone, see `backbone.graph.save_backbone`.
    """
    properties = {
        "spark.archives": f"{environment}#environment,{code}#code",
        "spark.files": backbone,
        "spark.pyspark.python": PYTHON,
        "spark.hadoop.fs.s3a.endpoint.region": region,
    }
    for process in ("spark.executorEnv", "spark.yarn.appMasterEnv"):
        properties[f"{process}.PYTHONPATH"] = PYTHONPATH
        properties[f"{process}.PYSPARK_PYTHON"] = PYTHON
        # The second is the one that boto3 knows, for the cells of a notebook.
        properties[f"{process}.AWS_REGION"] = properties[f"{process}.AWS_DEFAULT_REGION"] = region
    return properties


def submit_arguments(
    properties: Mapping[str, str], *, entry: str, command: Sequence[str]
) -> list[str]:
    """What follows the word `spark-submit`: the driver runs in the cluster as well.

    Args:
        properties: of Spark, see `spark_properties`.
        entry: URI of the script that starts verger, see `bundle.ENTRY`.
        command: of verger, such as `["run", "s3://bucket/images", "s3://bucket/out"]`; the backbone
            that lies beside the driver is added.
    """
    settings = [word for item in properties.items() for word in ("--conf", "=".join(item))]
    backbone = properties["spark.files"].rpartition("/")[2]
    return ["--deploy-mode", "cluster", *settings, entry, *command, "--weights", backbone]


def job_command(run: RunSettings, deadline: datetime) -> tuple[str, ...]:
    """The words of `verger run` for a cluster, without its weights."""
    return ("run", str(run.input), str(run.output), *_options(run, "cluster", deadline))


def notebook_command(
    run: RunSettings, notebook: str, run_id: str, deadline: datetime
) -> tuple[str, ...]:
    """The words of `verger cloud execute-notebook`, which is what a cluster does with one."""
    words = ["cloud", "execute-notebook", notebook, executed(run.output, run_id).uri]
    words += ["--input", str(run.input), "--output", str(run.output)]
    return (*words, *_options(run, "notebook", deadline))


def executed(output: Location, run_id: str) -> Location:
    """Where the executed copy of a notebook goes."""
    return output.child("executed", f"{run_id}.ipynb")


def _options(
    run: RunSettings, use: Literal["cluster", "notebook"], deadline: datetime
) -> list[str]:
    words = ["--deadline", f"{deadline:%Y-%m-%dT%H:%M:%SZ}"]
    given = run.model_dump(include={*options_for(use)}, exclude_defaults=True)
    for name, value in given.items():
        option = "--" + name.replace("_", "-")
        words += [option] if value is True else [option, str(value)]
    return words
