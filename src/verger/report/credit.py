"""Whose pictures are shown, where that can be told."""

import re

from verger.datasets.fruits360 import CREDIT, RECORD
from verger.store.location import Location
from verger.store.storage import exists

CLASSES = frozenset({
    "Apple Braeburn", "Apple Crimson Snow", "Apple Golden", "Apple Granny Smith",
    "Apple Red Delicious", "Cactus fruit", "Cantaloupe", "Carambula", "Cherry Rainier",
    "Cherry Wax Black", "Cherry Wax Red", "Clementine", "Cocos", "Granadilla", "Grapefruit Pink",
    "Guava", "Huckleberry", "Kaki", "Kumquats", "Mandarine", "Mangostan", "Maracuja",
    "Melon Piel de Sapo", "Mulberry", "Nectarine Flat", "Pear Monster", "Pear Williams", "Pepino",
    "Physalis", "Physalis with Husk", "Pitahaya Red", "Pomelo Sweetie", "Rambutan", "Redcurrant",
    "Salak", "Tamarillo", "Tangelo", "Tomato Maroon",
})  # fmt: skip
"""Names of classes of Fruits-360 that other collections hardly have; some end in a number."""
ENOUGH = 4


def credit(place: str, classes: list[str]) -> str | None:
    """The credit for the images of an input: Fruits-360's by name, record or classes."""
    names = {re.sub(r" \d+$", "", name) for name in classes}
    if re.search(r"fruits?[-_ ]?360", place, re.IGNORECASE) or len(names & CLASSES) >= ENOUGH:
        return CREDIT
    if place == "?" or place.startswith("s3://"):
        return None
    location = Location(place)
    return CREDIT if any(exists(at.child(RECORD)) for at in (location, location.parent)) else None
