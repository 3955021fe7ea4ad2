"""Hadoop's YARN on loopback, in one Java machine: started and stopped by the tests."""

import hashlib
import os
import re
import shlex
import shutil
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pyspark
import pytest
from pyspark.java_gateway import launch_gateway

from stores import KEYS
from verger.spark.java import java_home
from verger.store.client import bucket_region, s3_endpoint
from verger.store.location import Location, bucket_and_key, cache_folder

SPARK_HOME = Path(pyspark.__file__).parent
BRIEF_JAVA = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1"}
"""For a Java that lives a minute: its second compiler costs twice what the work does."""
MAVEN = "https://repo1.maven.org/maven2"
JARS = {
    "org/apache/hadoop/hadoop-client-minicluster/3.3.4/hadoop-client-minicluster-3.3.4.jar": (
        "cd8a1703393946c302bb3a52d0fcd23f6f8ded4554bc0dac5d2ee673dbe2b40e"
    ),
    "junit/junit/4.13.2/junit-4.13.2.jar": (
        "8e495b634469d64fb8acfa3495a065cbacc8a0fff55ce1e31007be4c16dc57d3"
    ),
    "org/hamcrest/hamcrest-core/1.3/hamcrest-core-1.3.jar": (
        "66fdef91e9739348df7a096aa384a5685f4e875584cce89386a7a47251c4d8e9"
    ),
    "org/bouncycastle/bcutil-jdk15on/1.70/bcutil-jdk15on-1.70.jar": (
        "52dc5551b0257666526c5095424567fed7dc7b00d2b1ba7bd52298411112b1d0"
    ),
    "org/bouncycastle/bcprov-jdk15on/1.70/bcprov-jdk15on-1.70.jar": (
        "8f3c20e3e2d565d26f33e8d4857a37d0d7f8ac39b62a7026496fcab1bdac30d4"
    ),
    "org/bouncycastle/bcpkix-jdk15on/1.70/bcpkix-jdk15on-1.70.jar": (
        "e5b9cb821df57f70b0593358e89c0e8d7266515da9d088af6c646f63d433c07c"
    ),
}
SETTINGS = {
    # Two machines of EMR; the memory is a limit, it is not taken.
    "yarn.minicluster.yarn.nodemanager.resource.memory-mb": "24576",
    "yarn.nodemanager.resource.cpu-vcores": "16",
    "yarn.nodemanager.vmem-check-enabled": "false",
    # A machine whose disk is nearly full would be given no work.
    "yarn.nodemanager.disk-health-checker.enable": "false",
    "yarn.nodemanager.env-whitelist": "JAVA_HOME,JAVA_TOOL_OPTIONS,SPARK_LOCAL_IP",
    # How each container was started stays there for the tests to look at.
    "yarn.nodemanager.delete.debug-delay-sec": "3600",
    "yarn.scheduler.minimum-allocation-mb": "256",
    "yarn.scheduler.capacity.root.queues": "default",
    "yarn.scheduler.capacity.root.default.capacity": "100",
    "yarn.scheduler.capacity.maximum-am-resource-percent": "0.9",
}
"""Room for the driver and the executors that EMR would have, whatever the machine."""


S3A_REGION = "spark.hadoop.fs.s3a.endpoint.region"

FREE_BYTES = 4 * 2**30
"""What archives, unpacked once for each application, and the images of a test need.

A node manager looks at what a disk has left for users without rights (`File.getUsableSpace`). That
is 0 while the blocks reserved for root are not, so that tests of root go on writing where YARN
finds "No space available in any of the local directories".
"""

SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/java/cacerts")
"""Where Debian and its kin keep what they trust, in Java's format."""


def trust_store_option() -> str:
    """Java's option for the certificates that this machine trusts; empty where it has none."""
    exists = SYSTEM_CERTIFICATES.exists()
    return f" -Djavax.net.ssl.trustStore={SYSTEM_CERTIFICATES}" if exists else ""


def s3a_options(place: Location) -> dict[str, str]:
    """What EMR's Spark has of its own: access to S3, from where a step's files are fetched.

    The region is that of the machines, which EMR's YARN knows; a step has to bring its own.
    """
    endpoint = s3_endpoint() or ""
    return {
        "spark.jars.packages": "org.apache.hadoop:hadoop-aws:3.3.4",
        "spark.jars.excludes": "org.apache.hadoop:hadoop-client-api",
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.s3a.access.key": KEYS["AWS_ACCESS_KEY_ID"],
        "spark.hadoop.fs.s3a.secret.key": KEYS["AWS_SECRET_ACCESS_KEY"],
        S3A_REGION: bucket_region(bucket_and_key(place.path)[0]),
        "spark.hadoop.fs.s3a.endpoint": endpoint,
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.connection.ssl.enabled": str(endpoint.startswith("https")).lower(),
    }


def fetch_jars() -> list[Path]:
    """The jars of YARN, from Maven Central; where it cannot be reached the test is skipped."""
    folder = cache_folder() / "yarn"
    folder.mkdir(parents=True, exist_ok=True)
    for path, digest in JARS.items():
        file = folder / Path(path).name
        if not file.exists():
            try:
                with urllib.request.urlopen(f"{MAVEN}/{path}", timeout=60) as answer:
                    file.write_bytes(answer.read())
            except OSError as error:
                pytest.skip(f"Maven Central cannot be reached: there is no YARN ({error})")
        if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            file.unlink()
            pytest.fail(f"{file.name} is not the file that it should be")
    return [folder / Path(path).name for path in JARS]


@contextmanager
def yarn(folder: Path, spark: Mapping[str, str], env: dict[str, str]) -> Iterator[dict[str, str]]:
    """A resource manager and a node manager, and Spark's settings for them in files, as on EMR.

    Args:
        folder: for settings and logs.
        spark: what `spark-defaults.conf` says besides the master.
        env: of the machine; its AWS variables reach neither `spark-submit` nor a container. Where
            EMR's machines have a metadata service and a name of S3, these have a file in the
            home that YARN gives to containers; it names no region.

    Yields:
        The environment in which `spark-submit` finds the cluster.
    """
    folder.mkdir(parents=True)
    free = shutil.disk_usage(folder).free
    assert free > FREE_BYTES, f"the disk of {folder} has {free:,} bytes left: YARN would find none"
    home = _home(folder / "home")
    env = {name: value for name, value in env.items() if not name.startswith("AWS_")}
    classpath = ":".join(map(str, fetch_jars()))
    options = f"-Dtest.build.data={folder} -Djava.net.preferIPv4Stack=true{trust_store_option()}"
    arguments = ["--driver-class-path", classpath, "--driver-java-options", options]
    # The node manager fetches the step's files from S3.
    # As everything else does here, with jars that EMR has on its class path.
    arguments += ["--packages", spark["spark.jars.packages"]]
    arguments += ["--conf", f"spark.jars.excludes={spark['spark.jars.excludes']}"]
    settings = {
        **env,
        **BRIEF_JAVA,
        "JAVA_HOME": str(java_home()),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_SUBMIT_ARGS": shlex.join([*arguments, "pyspark-shell"]),
    }
    with mock.patch.dict(os.environ, settings, clear=True), (folder / "yarn.log").open("wb") as log:
        gateway = launch_gateway(popen_kwargs={"stdout": log, "stderr": log, "cwd": folder})
    try:
        hadoop = gateway.jvm.org.apache.hadoop.yarn
        conf = hadoop.conf.YarnConfiguration()
        hadoop_settings = {
            name.removeprefix("spark.hadoop."): value
            for name, value in spark.items()
            if name.startswith("spark.hadoop.")
        }
        hadoop_settings["yarn.nodemanager.user-home-dir"] = str(home)
        for name, value in (SETTINGS | hadoop_settings).items():
            conf.set(name, value)
        cluster = hadoop.server.MiniYARNCluster("yarn", 1, 1, 1)
        cluster.init(conf)
        cluster.start()
        stream = gateway.jvm.java.io.FileOutputStream(str(folder / "yarn-site.xml"))
        cluster.getConfig().writeXml(stream)
        stream.close()
        resolved = gateway.jvm.System.getProperty("spark.jars").split(",")
        # Where the containers find Spark itself; it would be sent to each otherwise.
        jars = f"local:{SPARK_HOME}/jars/*"
        defaults = {"spark.master": "yarn", "spark.yarn.jars": jars} | {
            name: value
            for name, value in spark.items()
            if not name.startswith("spark.jars.") and name != S3A_REGION
        }
        (folder / "spark-defaults.conf").write_text(
            "".join(f"{name} {value}\n" for name, value in defaults.items())
        )
        try:
            yield {
                **env,
                **BRIEF_JAVA,
                "JAVA_HOME": str(java_home()),
                "SPARK_LOCAL_IP": "127.0.0.1",
                "HADOOP_CONF_DIR": str(folder),
                "SPARK_CONF_DIR": str(folder),
                "SPARK_DIST_CLASSPATH": ":".join(jar.removeprefix("file://") for jar in resolved),
            }
        finally:
            # After a test that hung it may hang too.
            watchdog = threading.Timer(60, gateway.proc.kill)
            watchdog.start()
            try:
                cluster.stop()
            finally:
                watchdog.cancel()
    finally:
        gateway.proc.kill()
        gateway.proc.wait()


def _home(folder: Path) -> Path:
    (folder / ".aws").mkdir(parents=True)
    keys = "".join(f"{name.lower()} = {value}\n" for name, value in KEYS.items())
    text = f"[default]\n{keys}endpoint_url = {s3_endpoint()}\n"
    (folder / ".aws/config").write_text(text)
    return folder


def container_variables(folder: Path) -> list[dict[str, str]]:
    """The AWS variables that each container of the cluster in a folder was started with."""
    scripts = folder.rglob("launch_container.sh")
    found = [
        re.findall(r'^export (AWS_\w+)="?([^"\n]*)"?$', one.read_text(), re.MULTILINE)
        for one in scripts
    ]
    return [dict(variables) for variables in found]
