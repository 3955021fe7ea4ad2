"""What a cluster is given: packages as pinned binary wheels, verger's code, and the backbone.

Nodes need no internet and no TensorFlow: Spark unpacks the archives beside its processes.
"""

import hashlib
import importlib.util
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib.metadata import distribution
from io import BytesIO
from pathlib import Path, PurePath
from typing import Literal

from verger.errors import SetupError
from verger.networks.weights import BUNDLED
from verger.store import storage
from verger.store.location import Location
from verger.version import VERSION

Architecture = Literal["x86_64", "arm64"]

PYTHON = "3.11"
"""Of the cluster: EMR 7 has it beside its default, 3.9."""
PACKAGE = Path(__file__).parents[2]
UNUSED_CODE = (BUNDLED, PACKAGE / "recognise/server/static")
"""Of verger itself: the network goes there as a file of its own, once for all versions of the code,
and no cluster serves a page."""
ENTRY = PACKAGE / "__main__.py"
"""What Spark starts as the driver: verger's command line, out of the archive beside it."""
GLIBC = tuple(f"2_{minor}" for minor in range(34, 16, -1))
"""What wheels may ask for, by every name: EMR 7 runs on Amazon Linux 2023, whose glibc is 2.34."""

FRONTENDS = ("gguf", "jax", "onnx", "paddle", "pytorch", "tensorflow", "tensorflow_lite")
UNUSED = (
    "*/tests",
    "*/test",
    "*/include",
    "*/sboms",
    "numpy/distutils",
    "numpy/f2py",
    "numpy/_core/_simd.*",  # for numpy's own tests
    "numpy/_core/*_tests.*",
    "pyarrow/src",
    "*.a",
    "openvino/libs/*_gpu_plugin.so*",
    "openvino/libs/*_npu_plugin.so*",
    "openvino/libs/cache.json",  # of the plugin for Intel's graphics processors
    # Networks come as OpenVINO's own format.
    *(f"openvino/libs/libopenvino_{name}_frontend.so*" for name in FRONTENDS),
    *(f"openvino/frontend/{name}" for name in FRONTENDS),
    "openvino/libs/libopenvino_*auto*_plugin.so*",
    "openvino/libs/libopenvino_hetero_plugin.so*",
    "pyarrow/*flight*.so*",
    # Copies of what the third name has.
    "pyarrow/libarrow_python*.so",
    "pyarrow/libarrow_python*.so.*.*.*",
    "*.pyi",
    "*.pyx",
    "*.pxi",
    "*.pxd",
    # A notebook that runs by itself completes no words and is not debugged.
    "jedi",
    "debugpy",
    # Times are in UTC.
    "pytz/zoneinfo",
    "tzdata/zoneinfo",
)
"""What wheels carry and no worker loads: a fourth of their size on x86-64."""

SERVICES = ("s3", "sts")
"""Of AWS, those that are called from a cluster; botocore describes 400."""


def pack_environment(folder: Path, arch: Architecture) -> Path:
    """Put the pinned wheels for a cluster's processors into `environment-ARCH-DIGEST.tar.gz`.

    An archive that is there already is taken as it is: its name says what it is made of.

    Raises:
        SetupError: pip is missing, or cannot get a wheel.
    """
    lock = PACKAGE / "cloud/jobs/locks" / f"{arch}.lock"
    digest = hashlib.sha256(lock.read_bytes() + "".join((*UNUSED, *SERVICES)).encode())
    archive = folder / f"environment-{arch}-{digest.hexdigest()[:12]}.tar.gz"
    if archive.exists():
        return archive
    if importlib.util.find_spec("pip") is None:
        raise SetupError(
            "pip is needed to fetch the cluster's packages, and is not installed here.",
            "Install it: python -m ensurepip",
        )
    machine = {"x86_64": "x86_64", "arm64": "aarch64"}[arch]
    platforms = [f"--platform=manylinux_{glibc}_{machine}" for glibc in GLIBC]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        packages = Path(scratch, "packages")
        done = subprocess.run(  # noqa: S603 - no shell, and no word of it comes from outside
            [
                sys.executable, "-m", "pip", "install", "--no-input", "--quiet",
                "--disable-pip-version-check",
                "--target", packages, "--python-version", PYTHON, *platforms,
                "--platform", f"manylinux2014_{machine}", "--only-binary=:all:", "--no-deps",
                "--no-compile", "--require-hashes", "--requirement", lock,
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            why = next((line for line in done.stderr.splitlines() if "ERROR" in line), "")
            raise SetupError(
                f"pip cannot get the cluster's packages for {arch}: {why}",
                "Look at the network and at pip's settings; the same command goes on.",
            )
        whole = Path(scratch, archive.name)
        with tarfile.open(whole, "w:gz", compresslevel=1) as tar:
            tar.add(packages, ".", filter=used)
        whole.replace(archive)
    return archive


def used(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """The member, unless it is one that no worker loads."""
    path = PurePath(member.name)
    services = path.match("botocore/data/*") or path.match("boto3/data/*")
    if services and member.isdir() and path.name not in SERVICES:
        return None
    return None if any(path.match(unused) for unused in UNUSED) else member


def pack_code(folder: Path) -> Path:
    """Put this very verger into `verger-DIGEST.zip`, equal for equal code.

    Its metadata comes with it, so that it knows its version.
    """
    content = {
        f"verger/{file.relative_to(PACKAGE).as_posix()}": file.read_bytes()
        for file in sorted(PACKAGE.rglob("*"))
        if file.is_file()
        and file.parent.name != "__pycache__"
        and not any(folder in file.parents for folder in UNUSED_CODE)
    }
    metadata = distribution("verger").read_text("METADATA") or ""
    content[f"verger-{VERSION}.dist-info/METADATA"] = metadata.encode()
    digest = hashlib.sha256()
    for name, data in content.items():
        digest.update(name.encode() + hashlib.sha256(data).digest())
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        for name, data in content.items():
            # With a fixed date, equal code gives equal bytes.
            zipped.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    archive = folder / f"verger-{digest.hexdigest()[:12]}.zip"
    # Whole at once: another process may be uploading it.
    storage.write_bytes(Location(str(archive)), packed.getvalue())
    return archive
