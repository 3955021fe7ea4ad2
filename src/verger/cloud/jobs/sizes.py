"""How much of a machine each process of Spark gets, and how many images a wave has."""

from verger.cloud.money.plan import PROCESSORS
from verger.settings import MAX_FILE_BYTES, MAX_IMAGE_PIXELS, RunSettings

YARN_MB = 12_288
"""What EMR's YARN has of a machine with 16 GiB (AWS' table of default task settings)."""

WORKER_MB = 274
"""A Python worker with its network, at its peak (`worker, Python` in presentation/data)."""

LARGEST_IMAGE_MB = (MAX_FILE_BYTES + 2 * 3 * MAX_IMAGE_PIXELS) // 2**20
"""The largest image that is read: its file, its pixels, and those pixels once more in RGB."""

HEAP_MB, OFF_HEAP_MB = 1_536, 512
"""Of an executor's Java, which took 1,054 MB in all at its peak (`executor, Java`)."""

DRIVER_MB, DRIVER_OVERHEAD_MB = 2_048, 1_536
"""Of the driver: its Java took 723 MB at its peak, its Python 232 MB and the moments of the PCA."""

ALONE = 2
"""Workers on a machine that is primary as well: EMR's own services need the other processors."""

ROUNDS = 8
"""Tasks of a wave for each processor: at the end of a wave some wait for the last one."""


def spark_sizes(workers: int) -> dict[str, str]:
    """Spark's settings for a cluster: one executor a machine, one Python worker a processor.

    Args:
        workers: machines besides the primary one; 0 where that one works itself.
    """
    cores = PROCESSORS if workers else ALONE
    overhead = OFF_HEAP_MB + cores * (WORKER_MB + LARGEST_IMAGE_MB)
    return {
        "spark.executor.instances": str(workers or 1),
        "spark.executor.cores": str(cores),
        "spark.task.cpus": "1",
        "spark.executor.memory": f"{HEAP_MB}m",
        "spark.executor.memoryOverhead": f"{overhead}m",
        "spark.driver.memory": f"{DRIVER_MB}m",
        "spark.driver.memoryOverhead": f"{DRIVER_OVERHEAD_MB}m",
        "spark.dynamicAllocation.enabled": "false",
        # A notebook may do something else before it starts Spark; YARN itself waits no longer.
        "spark.yarn.am.waitTime": "600s",
        # A failed run would fail again. YARN does not count attempts that ended with their machine.
        "spark.yarn.maxAppAttempts": "1",
    }


def with_full_waves(run: RunSettings, workers: int) -> RunSettings:
    """Waves that keep all processors of a cluster at work, unless a size was given."""
    if run.wave_size != RunSettings.model_fields["wave_size"].default:
        return run
    cores = workers * PROCESSORS or ALONE
    return run.model_copy(update={"wave_size": max(run.wave_size, ROUNDS * cores * run.task_size)})
