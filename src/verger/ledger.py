"""Which waves count: one small file, switched whole, that decides what an output holds.

A wave is a folder of features and one of rejected files. It counts when `_ledger/ledger.json`
names it and not before, because no committer of Spark is atomic over a whole job.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from verger import storage
from verger.errors import SetupError
from verger.locks import held
from verger.results import Output
from verger.storage import Location


class Identity(BaseModel):
    """What all rows of an output have in common; another identity needs another output."""

    model_config = ConfigDict(frozen=True)

    backbone: str
    weights_sha256: str
    precision: str
    label_from: str


class Wave(BaseModel):
    """Images that were committed together."""

    model_config = ConfigDict(frozen=True)

    number: int
    """Of its folders `features/wave-N` and `rejected/wave-N`."""
    images: int
    """Of its folder `_ledger/images/wave=N`; another than `number` after --rebase."""
    featurized: int
    rejected: dict[str, int]
    """Rejected files by reason."""

    @property
    def files(self) -> int:
        """All that it accounts for, rejected ones among them."""
        return self.featurized + sum(self.rejected.values())


class Ledger(BaseModel):
    """The waves of an output, in the order of their commits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    input: str
    identity: Identity
    waves: tuple[Wave, ...] = ()

    @property
    def files(self) -> int:
        """All that its waves account for, rejected ones among them."""
        return sum(wave.files for wave in self.waves)

    @property
    def featurized(self) -> int:
        """Rows of features."""
        return sum(wave.featurized for wave in self.waves)

    def with_waves(self, *added: Wave, without: frozenset[int] = frozenset()) -> "Ledger":
        """The ledger after a commit of some waves, in the place of those numbered `without`."""
        left = (wave for wave in self.waves if wave.number not in without)
        return self.model_copy(update={"waves": (*left, *added)})

    def write(self, output: Output) -> None:
        """Switch to this ledger."""
        storage.write_bytes(ledger_file(output), self.model_dump_json(indent=1).encode())


def ledger_file(output: Output) -> Location:
    """Where the ledger is."""
    return output.ledger.child("ledger.json")


def images_of(output: Output, number: int) -> Location:
    """The folder of Parquet that holds the fingerprints of a wave's images."""
    return output.images.child(f"wave={number}")


def read_ledger(output: Output) -> Ledger | None:
    """The ledger of an output, or None where there is none yet.

    Raises:
        SetupError: the file is there and is no ledger of this version.
    """
    try:
        return Ledger.model_validate_json(storage.read_bytes(ledger_file(output)))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise SetupError(
            f"{ledger_file(output)} is damaged or of another version.",
            "Start over with --fresh, or give another output folder.",
        ) from error


def delete_uncommitted(output: Output, ledger: Ledger) -> int:
    """Delete the folders of waves that the ledger does not name.

    Returns:
        A number for the next wave, which no folder has had: a killed run's last job may still be
        writing to one that was just deleted.
    """
    numbers = {f"{wave.number:06}" for wave in ledger.waves}
    images = {str(wave.images) for wave in ledger.waves}
    seen = [0]
    for parent, keep in (
        (output.features, numbers),
        (output.rejected, numbers),
        (output.images, images),
    ):
        for name in storage.names(parent):
            wave = re.fullmatch(r"wave[-=](\d+)", name)
            if wave:
                seen.append(int(wave[1]))
            # Spark's own folder for unfinished jobs goes too, and nothing else.
            if (wave and wave[1] not in keep) or name == "_temporary":
                storage.delete(parent.child(name))
    return max(seen) + 1


def locked(output: Output) -> AbstractContextManager[Callable[[], None]]:
    """Hold the output for this process, so that no two runs write to it; see `locks.held`."""
    name = "lease.json" if output.location.is_s3 else "lock"
    return held(output.location, output.ledger.child(name))
