"""What Spark needs to write to S3: jars, and a committer made for object stores."""

import os
from pathlib import Path

import pyspark

from verger import s3
from verger.errors import SetupError
from verger.spark.session import is_submitted
from verger.storage import Location

CREDENTIALS = {
    # AWS' own chain (environment, profile, role) in the version of its SDK that each Hadoop has.
    "3.3": "com.amazonaws.auth.DefaultAWSCredentialsProviderChain",
    "3.4": "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider",
}
CLOUD_VERSIONS = {"3.5": "3.5.8", "4.0": "4.0.2"}
"""Of `spark-hadoop-cloud` by the line of Spark: a few classes that do not change within it."""


def s3_options(*locations: Location) -> dict[str, str]:
    """Spark's settings for the locations that Spark itself reads and writes.

    With pip's Spark, what S3 needs is added. A Spark that came with its cluster, as on EMR, has
    its own, and nothing is added; nor to a driver that `spark-submit` started, which has Java and
    its jars already.

    Raises:
        InputError, SetupError: the bucket cannot be reached.
    """
    buckets = [s3.split(location.path)[0] for location in locations if location.is_s3]
    if not buckets or is_submitted() or not _is_from_pip():
        return {}
    region, endpoint = s3.region(buckets[0]), s3.endpoint()
    hadoop, scala, spark = _versions()
    cloud = CLOUD_VERSIONS.get(spark[:3], spark)
    options = {
        "spark.jars.packages": f"org.apache.hadoop:hadoop-aws:{hadoop},"
        f"org.apache.spark:spark-hadoop-cloud_{scala}:{cloud}",
        # The other clouds' clients, and what Spark has already.
        "spark.jars.excludes": ",".join(EXCLUDED),
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.s3a.aws.credentials.provider": CREDENTIALS[hadoop[:3]],
        "spark.hadoop.fs.s3a.endpoint.region": region,
        "spark.hadoop.fs.s3a.committer.name": "magic",
        "spark.hadoop.fs.s3a.committer.magic.enabled": "true",
        "spark.hadoop.mapreduce.outputcommitter.factory.scheme.s3": (
            "org.apache.hadoop.fs.s3a.commit.S3ACommitterFactory"
        ),
        "spark.sql.sources.commitProtocolClass": (
            "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol"
        ),
        "spark.sql.parquet.output.committer.class": (
            "org.apache.spark.internal.io.cloud.BindingParquetOutputCommitter"
        ),
    }
    if endpoint:
        options["spark.hadoop.fs.s3a.endpoint"] = endpoint
        options["spark.hadoop.fs.s3a.path.style.access"] = "true"
        ssl = str(endpoint.startswith("https")).lower()
        options["spark.hadoop.fs.s3a.connection.ssl.enabled"] = ssl
    return options


def worker_options(*locations: Location) -> dict[str, str]:
    """Endpoint and region of the driver for the workers, which read images themselves.

    Credentials are not passed on: each machine has its own, from the AWS chain.
    """
    if not any(location.is_s3 for location in locations):
        return {}
    options = {"spark.executorEnv.AWS_REGION": str(s3.client().meta.region_name)}
    if found := s3.endpoint():
        options["spark.executorEnv.AWS_ENDPOINT_URL"] = found
    return options


EXCLUDED = (
    "org.apache.hadoop:hadoop-client-api",
    "org.apache.hadoop:hadoop-client-runtime",
    "org.apache.hadoop:hadoop-cloud-storage",
    "org.apache.hadoop:hadoop-azure",
    "org.apache.hadoop:hadoop-azure-datalake",
    "org.apache.hadoop:hadoop-openstack",
    "com.google.cloud.bigdataoss:gcs-connector",
    "org.eclipse.jetty:jetty-util",
    "org.eclipse.jetty:jetty-util-ajax",
)


def _is_from_pip() -> bool:
    package = Path(pyspark.__file__).parent
    home = os.environ.get("SPARK_HOME")
    return home is None or Path(home).resolve() == package.resolve()


def _versions() -> tuple[str, str, str]:
    """The versions of Hadoop, Scala and Spark in pip's package, by the names of its jars."""
    jars = Path(pyspark.__file__).parent / "jars"
    try:
        (hadoop,) = jars.glob("hadoop-client-api-*.jar")
        (core,) = jars.glob("spark-core_*.jar")
    except ValueError as error:
        raise SetupError(
            f"The Spark in {jars.parent} has not the jars that it came with.",
            "Install pyspark again.",
        ) from error
    scala = core.stem.removeprefix("spark-core_").partition("-")[0]
    return hadoop.stem.removeprefix("hadoop-client-api-"), scala, pyspark.__version__
