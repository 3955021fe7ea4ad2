"""Whose images an input holds, where its name, `fetch` or `pack` says it."""

import re

from verger.datasets.archives import RECORD
from verger.datasets.fruits360 import CREDIT
from verger.packs.format import read_pack
from verger.store import storage
from verger.store.location import Location


def credit_by_name(place: str) -> str | None:
    """The credit for the images of an input that is called after its data set."""
    return CREDIT if re.search(r"fruits?[-_ ]?360", place, re.IGNORECASE) else None


def find_credit(place: Location) -> str | None:
    """The credit for the images of an input.

    Raises:
        VergerError: the input is a pack that cannot be read.
    """
    if credit := credit_by_name(str(place)):
        return credit
    # `fetch` writes to this machine only; a role may be forbidden to look beside a prefix of S3.
    if not place.is_s3 and any(
        storage.exists(folder.child(RECORD)) for folder in (place, place.parent)
    ):
        return CREDIT
    pack = read_pack(place)
    return pack.credit if pack else None
