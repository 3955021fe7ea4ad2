"""Where data may be: regions of AWS inside the European Union."""

import re
from urllib.parse import urlsplit

from verger.errors import RefusedError

EU_REGIONS = {
    "eu-west-1": "Ireland",
    "eu-west-3": "Paris",
    "eu-central-1": "Frankfurt",
    "eu-north-1": "Stockholm",
    "eu-south-1": "Milan",
    "eu-south-2": "Spain",
    "eusc-de-east-1": "European Sovereign Cloud, Brandenburg",
}
"""London (eu-west-2) and Zurich (eu-central-2) are in Europe and not in the Union."""

OPT_IN = {"eu-south-1", "eu-south-2"}
"""Off in an account until somebody turns them on; AWS refuses all credentials there."""

SOVEREIGN = "eusc-de-east-1"

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

_AWS_HOST = re.compile(
    r"(?:.+\.)?(?P<region>(?!vpce\.)[a-z0-9-]+)\.(?:vpce\.)?(?:amazonaws\.com|amazonaws\.eu|api\.aws)"
)
"""Region and domain at the end: before them, a bucket may have any name, even that of a region."""


def check_region(region: str) -> None:
    """Refuse a region outside the European Union.

    Raises:
        RefusedError: it is none of `EU_REGIONS`.
    """
    if region not in EU_REGIONS:
        raise RefusedError(
            f"The region {region or '(none)'} is not inside the European Union.",
            f"Give one of {', '.join(EU_REGIONS)}.",
        )


def check_cloud_region(region: str) -> None:
    """Refuse a region in which verger starts no machines.

    Raises:
        RefusedError: it is not inside the European Union, or the Sovereign Cloud.
    """
    check_region(region)
    if region == SOVEREIGN:
        raise RefusedError(
            f"verger starts no machines in the {EU_REGIONS[region]} ({region}): neither its "
            "prices nor what EMR needs there are known, so that no ceiling would hold.",
            f"Give one of {', '.join(name for name in EU_REGIONS if name != SOVEREIGN)}.",
        )


def check_endpoint(url: str | None, region: str) -> None:
    """Refuse an endpoint that is neither AWS in the European Union nor this machine (for tests).

    Args:
        url: where requests go; None for AWS' own endpoint in the region.
        region: the region in use.

    Raises:
        RefusedError: requests would leave the European Union, or go unencrypted.
    """
    check_region(region)
    if url is None:
        return
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in _LOOPBACK:
        return
    match = _AWS_HOST.fullmatch(host)
    if match is None or match["region"] not in EU_REGIONS:
        raise RefusedError(
            f"The endpoint {host or url} is not AWS inside the European Union.",
            "Unset AWS_ENDPOINT_URL and endpoint_url in ~/.aws/config.",
        )
    if parts.scheme != "https":
        raise RefusedError(f"The endpoint {host} is not encrypted.", "Write https://.")
