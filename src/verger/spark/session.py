"""A Spark session that starts anywhere: its Java comes with verger, its log stays quiet."""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from time import monotonic, sleep
from typing import Any

from pyspark.sql import SparkSession

from verger.errors import SetupError
from verger.output.manifest import SparkRecord
from verger.progress import Clock, Progress
from verger.settings import RunSettings, without_secrets
from verger.spark.connect import active_session, connect, is_connect
from verger.spark.java import (
    executors,
    is_submitted,
    java_home,
    java_options,
    java_overheard,
    runs_already,
    silence_accumulators,
)
from verger.store.client import s3_client, s3_endpoint
from verger.store.location import Location

LOCAL_RETRIES = 4
"""Attempts at a task: without them one killed worker would end a local job."""

SETTINGS: dict[str, Any] = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": "2048",
    "spark.sql.session.timeZone": "UTC",
    # With it, SQL would not share the workers that RDDs have warmed up.
    "spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled": "false",
    # Each worker computes on one thread: there are as many workers as processors.
    "spark.executorEnv.OMP_NUM_THREADS": "1",
    "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",
    # Bound by a machine's own setting, all of them would share its first core.
    "spark.executorEnv.OMP_PROC_BIND": "false",
}
"""Spark's own settings, wherever it runs."""

WHILE_JAVA_STARTS = ("pyarrow.dataset", "pyspark.ml.linalg")
"""What is slow to import, and needed as soon as Spark runs."""

EXECUTOR_SECONDS = 30.0
"""After so long without an executor of a cluster, the user is told."""


def start_session(
    master: str | None = None,
    *places: Location,
    driver_memory: str = "2g",
    debug: bool = False,
) -> SparkSession:
    """Start Spark, or take the session that runs in this process.

    Args:
        master: Spark's master URL; None for all processors of this machine.
        places: what its workers are to read and write.
        driver_memory: of the Java machine, as Spark writes it (`2g`).
        debug: show Spark's log.

    Raises:
        SetupError: Java or Spark does not start.
        InputError: a bucket cannot be reached.
    """
    if master is None and (active := active_session()):
        return active
    # A session is active in the thread that made it alone.
    if master is None and runs_already():
        return SparkSession.builder.getOrCreate()
    settings = SETTINGS | worker_options(*places)
    if not is_submitted():
        os.environ["JAVA_HOME"] = str(java_home())
        # The workers must be this interpreter, whatever python3 is on the PATH.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        master = master or default_master()
        settings["spark.driver.memory"] = driver_memory
        settings["spark.ui.enabled"] = settings["spark.ui.showConsoleProgress"] = "false"
        settings["spark.driver.extraJavaOptions"] = java_options(debug, is_local(master))
    if master and is_local(master):
        # Spark looks its own host up, which warns or fails on machines without a resolvable name.
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        settings["spark.driver.host"] = "127.0.0.1"
        settings["spark.sql.shuffle.partitions"] = str(2 * len(os.sched_getaffinity(0)))
        settings["spark.python.daemon.module"] = "verger.spark.daemon"
    builder = SparkSession.builder.appName("verger").config(map=settings)
    if master:
        builder = builder.master(master)
    interrupt = signal.getsignal(signal.SIGINT)
    said: deque[str] = deque(maxlen=500)
    try:
        with java_overheard(said, debug, _import_what_is_slow):
            spark = builder.getOrCreate()
    except Exception as error:
        sleep(0.2)  # the last words of Java may be on the way
        why = _first_failure([*said, *str(error).splitlines()]) or str(error)
        raise SetupError(
            f"Spark does not start with master {master or 'of the cluster'}: {why}",
            "Look at `verger doctor`; run again with --debug for Spark's own log.",
        ) from error
    if not debug:
        silence_accumulators(spark.sparkContext)
    # PySpark's own handler calls Java in the middle of another call, and both fail.
    if interrupt is not None and _is_main_thread():
        signal.signal(signal.SIGINT, interrupt)
    return spark


def _import_what_is_slow() -> None:
    with _signals_held_back():
        for name in WHILE_JAVA_STARTS:
            import_module(name)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM after the block: packages that are imported catch what they raise.

    In the main thread, that is: Python handles signals nowhere else.
    """
    handlers: dict[signal.Signals, Any] = {}
    came: list[int] = []
    try:
        for one in (signal.SIGTERM, signal.SIGINT):
            # None is a handler of a program that Python is a part of.
            if _is_main_thread() and (handler := signal.getsignal(one)) is not None:
                handlers[one] = handler
                signal.signal(one, lambda number, _: came.append(number))
        yield
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
    for number in came:
        signal.raise_signal(number)


def start_for(
    settings: RunSettings, clock: Clock, record: SparkRecord, *, debug: bool = False
) -> SparkSession:
    """Start Spark as a run wants it, or take the session that there is; `record` learns where."""
    with clock.stage("spark"):
        if settings.remote:
            spark = connect(settings.remote, settings.input)
        else:
            spark = start_session(
                settings.master,
                settings.input,
                settings.output,
                driver_memory=settings.driver_memory,
                debug=debug,
            )
        if is_connect(spark):
            record.version = spark.version
            record.master = without_secrets(settings.remote) or "Spark Connect"
            return spark
        note_missing_executors(spark, clock.progress)
    record.master = spark.sparkContext.master or ""
    return spark


def note_missing_executors(spark: SparkSession, progress: Progress) -> None:
    """Say that a standalone cluster gives no executor at the start, for which Spark waits silently.

    Args:
        spark: a session that has just started.
        progress: is told.
    """
    context = spark.sparkContext
    dynamic = context.getConf().get("spark.dynamicAllocation.enabled", "false") == "true"
    if dynamic or not (context.master or "").startswith("spark://"):
        return
    end = monotonic() + EXECUTOR_SECONDS
    while not executors(context):
        if monotonic() > end:
            progress.note(
                f"{context.master} has given no executor yet: it is full, or its workers have less "
                "memory than an executor asks for (spark.executor.memory). Waiting."
            )
            return
        sleep(0.2)


def _first_failure(lines: Iterable[str]) -> str | None:
    """The line that says best why Java or Spark does not start."""
    words = ("Invalid", "unresponsive", "Exception:", "Error", "error")
    return next((line.lstrip(": ") for word in words for line in lines if word in line), None)


def is_local(master: str) -> bool:
    """Whether Spark runs in this machine's own Java."""
    return master.startswith("local")


def default_master() -> str:
    """All processors that this process may use, with retries."""
    return f"local[{len(os.sched_getaffinity(0))},{LOCAL_RETRIES}]"


def worker_options(*locations: Location) -> dict[str, str]:
    """Endpoint and region of the driver for the workers, which read and write files themselves.

    Credentials are not passed on: each machine has its own, from the AWS chain.
    """
    if not any(location.is_s3 for location in locations):
        return {}
    options = {"spark.executorEnv.AWS_REGION": str(s3_client().meta.region_name)}
    if endpoint := s3_endpoint():
        options["spark.executorEnv.AWS_ENDPOINT_URL"] = endpoint
    return options
