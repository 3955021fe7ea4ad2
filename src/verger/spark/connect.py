"""Spark Connect: what stands in for a SparkContext, which its sessions do not have.

There is no broadcast, no accumulator, no RDD and no Java in this process. What tasks need travels
in their function; what they did is counted here, by the files that they say they wrote.
"""

import pickle
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import pyarrow as pa
import pyspark
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from verger.errors import SetupError
from verger.settings import without_secrets
from verger.spark.failures import session_ended, spark_errors
from verger.spark.java import runs_already
from verger.store.location import Location
from verger.version import VERSION

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

DEFAULT_PORT = 15002
"""Of a Connect server: https://spark.apache.org/docs/latest/spark-connect-overview.html."""

REACH_SECONDS = 10.0
"""What a server may take to answer at the start."""

RETRIES = 6
"""Of a call to a server that does not answer: a minute, where PySpark takes twenty, silently."""

LIMIT_SETTING = "spark.connect.grpc.maxInboundMessageSize"

CLIENT_LIMIT = 128 * 2**20
"""What PySpark sends and a server takes in one message, where nothing else is set."""

REST_OF_FUNCTION = 2**20
"""Bytes of a function and its plan besides the value that it carries."""


class Shared(Protocol[T_co]):
    """A value that tasks have: a broadcast, or `Carried`."""

    @property
    def value(self) -> T_co:
        """The value, here and in tasks."""


class Counter(Protocol):
    """Counts what is done: an accumulator, or a `Tally`."""

    @property
    def value(self) -> int:
        """The count, as the driver knows it."""

    def add(self, term: int) -> None:
        """Count so many more."""


@dataclass(frozen=True)
class Carried(Generic[T]):
    """A value inside the function that tasks are given."""

    value: T


@dataclass
class Tally:
    """Counts in this process; what a task adds to its copy counts for nobody."""

    value: int = 0

    def add(self, term: int) -> None:
        """Count so many more."""
        self.value += term


def is_connect(spark: SparkSession) -> bool:
    """Whether a session is of Spark Connect; its class is another one, which needs gRPC."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def share(spark: SparkSession, value: T) -> Shared[T]:
    """Give a value to tasks: by broadcast, or under Connect inside their function.

    Raises:
        SetupError: it is larger than a message to the server may be.
    """
    if not is_connect(spark):
        return spark.sparkContext.broadcast(value)
    size, limit = len(pickle.dumps(value)), message_limit(spark)
    if size + REST_OF_FUNCTION > limit:
        raise SetupError(
            f"A function of {size / 2**20:.0f} MB is larger than the server's messages may be, "
            f"{limit / 2**20:.0f} MB: the network is too large.",
            f"Take a smaller --network, or raise {LIMIT_SETTING} of the server.",
        )
    return Carried(value)


def message_limit(spark: SparkSession) -> int:
    """The bytes that a message to the server may have.

    The server breaks the connection when it gets a larger one, without a reason.
    """
    try:
        text = str(spark.conf.get(LIMIT_SETTING, "")).lower()
    except PySparkException:  # not every server lets its settings be read
        text = ""
    told = re.fullmatch(r"(\d+) *([kmg]?)b?", text)
    if told is None:
        return CLIENT_LIMIT
    limit: int = int(told[1]) * 1024 ** " kmg".index(told[2] or " ")
    return min(limit, CLIENT_LIMIT)


def counter(spark: SparkSession) -> Counter:
    """A counter that tasks add to; under Connect the driver does, when they have ended."""
    return Tally() if is_connect(spark) else spark.sparkContext.accumulator(0)


def processors(spark: SparkSession) -> int:
    """How many tasks work at once."""
    return _server_processors(spark) if is_connect(spark) else spark.sparkContext.defaultParallelism


@lru_cache(maxsize=8)
def _server_processors(spark: SparkSession) -> int:
    """As many as the parts into which Spark cuts a range that nobody told it how to cut."""
    numbers = spark.range(4096).selectExpr("spark_partition_id() as part")
    return int(numbers.groupBy().max("part").collect()[0][0]) + 1


def partitions(rows: DataFrame) -> int:
    """How many tasks make these rows; under Connect, where that is not told, one a processor."""
    spark = rows.sparkSession
    return processors(spark) if is_connect(spark) else rows.rdd.getNumPartitions()


_urls: "WeakKeyDictionary[SparkSession, str]" = WeakKeyDictionary()
"""Where the sessions that were made here go: PySpark gives the one it has for any address."""


def active_session() -> SparkSession | None:
    """The session of Spark Connect that this process has, if there is one."""
    module = sys.modules.get("pyspark.sql.connect.session")
    session: SparkSession | None = module.SparkSession.getActiveSession() if module else None
    return session


def connect(url: str, source: Location | None = None) -> SparkSession:
    """A session on a Connect server, whose workers were asked whether they fit.

    Args:
        url: `sc://host:port`, with the parameters that PySpark knows (`/;token=...`).
        source: what its workers are to read.

    Raises:
        SetupError: it cannot be reached, is of another version, or its workers do not fit.
    """
    place = without_secrets(url)
    _check_reachable(url)
    if runs_already():
        raise SetupError(
            f"A Spark of its own runs in this process, beside which {place} cannot be used.",
            "Start Python anew, or call spark.stop() first.",
        )
    try:
        import_module("pyspark.sql.connect.session")
    except ImportError as error:
        raise SetupError(
            f"Spark Connect lacks a package: {error}", 'pip install "verger[connect]"'
        ) from error
    active = active_session()
    if active is not None and _urls.get(active, url) != url:
        raise SetupError(
            f"This process has a session on another Connect server than {place}.",
            "Call spark.stop() first, or start Python anew.",
        )
    with spark_errors():
        try:
            return _session(url, place, source)
        except PySparkException as error:
            if not session_ended(error):
                raise
        return _session(url, place, source)


def _session(url: str, place: str, source: Location | None) -> SparkSession:
    """This process' session or a new one; one of no use is stopped: PySpark would give it again."""
    before = active_session()
    spark = SparkSession.builder.remote(url).getOrCreate()
    try:
        _retry_less(spark)
        check_version(spark.version, place)
        spark.range(0).isLocal()  # asks the server; of the version PySpark may keep the answer
        _check_workers(spark, place, source)
    except (PySparkException, SetupError) as error:
        if spark is not before or session_ended(error):
            spark.stop()
        raise
    _urls[spark] = url
    return spark


def _retry_less(spark: SparkSession) -> None:
    """Have calls tried `RETRIES` times again."""
    client: Any = spark.client
    if hasattr(client, "_retry_policy"):
        client._retry_policy["max_retries"] = RETRIES
        return
    retries = import_module("pyspark.sql.connect.client.retries")  # from Spark 4 on
    client.set_retry_policies([retries.DefaultPolicy(max_retries=RETRIES)])


def _check_reachable(url: str) -> None:
    """Refuse an address at which nothing answers."""
    server = urlsplit(url)
    try:
        address = (server.hostname or "", server.port or DEFAULT_PORT)
        socket.create_connection(address, REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        raise SetupError(
            f"The Connect server {without_secrets(url)} cannot be reached: {error}.",
            "See that it runs (sbin/start-connect-server.sh), and its host, port and firewall.",
        ) from error


def check_version(version: str, place: str) -> None:
    """Refuse a server of another major version than PySpark here."""
    theirs, ours = version.partition(".")[0], pyspark.__version__.partition(".")[0]
    if theirs != ours:
        raise SetupError(
            f"{place} is Spark {version}, and PySpark here is {pyspark.__version__}.",
            f'Take a PySpark of its major version: pip install "pyspark[connect]=={theirs}.*"',
        )


def _check_workers(spark: SparkSession, place: str, source: Location | None) -> None:
    """Ask a worker for its versions, and whether it sees the input."""
    folder = source.path if source and not source.is_s3 else ""

    def look(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from importlib.metadata import PackageNotFoundError, version

        try:
            installed = version("verger")
        except PackageNotFoundError:
            installed = ""
        for _ in batches:
            sees = not folder or Path(folder).is_dir()
            yield pa.RecordBatch.from_pydict({"version": [installed], "sees": [sees]})

    row = spark.range(0, 1, 1, 1).mapInArrow(look, "version string, sees boolean").collect()[0]
    if row["version"] != VERSION:
        found = row["version"] or "no verger"
        raise SetupError(
            f"The workers of {place} have {found}, and here is verger {VERSION}.",
            "Install the same verger where the server's Python workers run.",
        )
    if not row["sees"]:
        raise SetupError(
            f"The workers of {place} do not see the folder {folder}.",
            "Give an input and an output that both sides reach at the same path, such as S3.",
        )
