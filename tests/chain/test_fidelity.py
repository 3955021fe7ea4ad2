"""A run in bfloat16 says what that costs."""

from pathlib import Path

import numpy as np
import openvino
import pytest

from helpers import features_of, go, output_of
from verger.cli.summary import show_summary
from verger.spark import fidelity
from verger.spark.fidelity import compare_features

pytestmark = pytest.mark.usefixtures("spark")

capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_equal_features_are_as_near_as_can_be() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 8))
    found = compare_features(3 * rows, rows)
    assert found.images == 20
    assert found.least_cosine == pytest.approx(1)
    assert found.same_neighbour == 1


def test_what_differs_is_seen() -> None:
    rows = np.eye(4)[[0, 0, 1, 1]] + np.arange(16).reshape(4, 4) / 1000
    turned = rows.copy()
    turned[0] = [0, 1, 0, 0]
    found = compare_features(turned, rows)
    assert found.least_cosine < 0.1 < found.mean_cosine < 1
    assert found.same_neighbour < 1


def test_a_run_in_float32_measures_nothing(orchard: Path, tmp_path: Path) -> None:
    assert go(orchard, tmp_path / "out", limit=4).fidelity is None


@pytest.mark.skipif("BF16" not in capabilities, reason="this processor has no bfloat16")
def test_a_run_in_bfloat16_says_how_near_it_is(
    orchard: Path,
    sound: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(fidelity, "IMAGES", 12)
    output = tmp_path / "out"
    manifest = go(orchard, output, precision="bf16", components=5, wave_size=10)
    found = manifest.fidelity
    assert found is not None
    assert found.images == 12
    rounded, exact = (
        np.stack(features_of(folder).features).astype(float) for folder in (output, sound)
    )
    whole = compare_features(rounded, exact)
    assert whole.least_cosine <= found.least_cosine < 1
    assert found.mean_cosine == pytest.approx(whole.mean_cosine, abs=0.02)
    assert not (output / "_run/fidelity").exists()
    assert f"{found.mean_cosine:.4f}" in (output / "report.html").read_text()
    show_summary(manifest, output_of(output), "fr")
    assert f"{found.mean_cosine:.4f}".replace(".", ",") in " ".join(capsys.readouterr().out.split())
    again = go(orchard, output, precision="bf16", components=5)
    assert again.fidelity == found
