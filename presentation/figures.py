"""Every figure of the slides and of the documentation, drawn from the results in `data/`.

    .venv/bin/python presentation/figures.py

French ones go to `presentation/build`, English ones to `docs/images`.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

import diagrams
from collect import DATA, MAP_HEIGHT, MAP_WIDTH
from PIL import Image, ImageChops

from verger.report.charts import bars, scree
from verger.report.texts import stage_names

HERE = Path(__file__).parent
BUILD, DOCS = HERE / "build", HERE.parent / "docs/images"
MARKS = (",", ".")
STRIP = 120  # pixels from one photograph to the next in a row of them
SYSTEMS = {
    "(a)": ("moteur seul, sans Spark", "engine alone, no Spark"),
    "(b)": ("verger, extraction", "verger, extraction"),
    "(c)": ("pandas UDF, predict par image", "pandas UDF, predict by image"),
    "(d)": ("pandas UDF, predict par lot", "pandas UDF, predict by batch"),
}


def load_data() -> dict[str, Any]:
    """What is in `data/`, by the names of the files."""
    files = sorted(DATA.glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def rates(benchmark: dict[str, Any]) -> dict[str, float]:
    """Images a second of each row of the benchmark, by its letter."""
    return {row["name"][:3]: row["images_per_second"] for row in benchmark["rates"]}


def speed(benchmark: dict[str, Any], language: int) -> str:
    """Images a second of verger and of the usual jobs."""
    found = rates(benchmark)
    shown = [(SYSTEMS[name][language], found[name]) for name in ("(b)", "(d)", "(c)", "(a)")]
    return bars(shown, unit="images/s", decimal_mark=MARKS[language]).svg


def stages(run: dict[str, Any], language: int) -> str:
    """Seconds of each stage of a run."""
    names = stage_names(("fr", "en")[language])
    shown = [(names[name], value) for name, value in run["timings"].items()]
    longest = max(range(len(shown)), key=lambda index: shown[index][1])
    return bars(shown, unit="s", strong=longest, decimal_mark=MARKS[language]).svg


def spectrum(run: dict[str, Any], language: int) -> str:
    """The scree plot of the components kept."""
    titles = (
        {"x_title": "composante", "y_title": "part de la variance", "sum_title": "cumul"},
        {},
    )[language]
    shown = run["spectrum"][: run["components"]]
    return scree(shown, decimal_mark=MARKS[language], **titles).svg


def photographs(shown: list[dict[str, Any]], width: int, height: int) -> bytes:
    """Photographs at their places, as PNG; white hides nothing of what lies below."""
    canvas = Image.new("RGB", (width, height), "white")
    for one in shown:
        with Image.open(io.BytesIO(base64.b64decode(one["jpeg"]))) as image:
            box = (one["x"], one["y"], one["x"] + image.width, one["y"] + image.height)
            canvas.paste(ImageChops.multiply(canvas.crop(box), image.convert("RGB")), box)
    buffer = io.BytesIO()
    canvas.quantize(256).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def draw(language: int) -> dict[str, bytes]:
    """All figures in French (0) or English (1), by the names of their files."""
    data = load_data()
    run, french = data["run"], language == 0
    strip = [one | {"x": STRIP * index, "y": 0} for index, one in enumerate(run["photographs"])]
    figures = {
        "architecture": diagrams.architecture(french),
        "ledger": diagrams.ledger(french),
        "cloud": diagrams.cloud(french),
        "broadcast": diagrams.broadcast(
            french, run["broadcast_bytes"] / 1e6, data["reference"]["images"], run["task_size"]
        ),
        "spectrum": spectrum(run, language),
        "stages": stages(run, language),
    }
    if "benchmark" in data:
        figures["speed"] = speed(data["benchmark"], language)
    return {
        **{f"{name}.svg": svg.encode() for name, svg in figures.items()},
        "map.png": photographs(run["map"], MAP_WIDTH, MAP_HEIGHT),
        "photographs.png": photographs(strip, STRIP * len(strip), STRIP),
    }


def main() -> None:
    """Write all figures."""
    for language, folder in enumerate((BUILD, DOCS)):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in draw(language).items():
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
