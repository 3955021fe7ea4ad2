"""Every figure of the slides and of the documentation, drawn from the results in `data/`.

    .venv/bin/python presentation/figures.py

French ones go to `presentation/build`, English ones to `docs/images`.
"""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diagrams
from collect import DATA, MAP_HEIGHT, MAP_WIDTH
from PIL import Image, ImageChops

from verger.report.charts import FRUIT, LEAF, WIDTH, Drawing, drawing, label, rectangle, scree
from verger.report.texts import texts

HERE = Path(__file__).parent
BUILD, DOCS = HERE / "build", HERE.parent / "docs/images"
MARKS = (",", ".")
NARROW_SPACE = "\u202f"
STRIP = 120  # pixels from one photograph to the next in a row of them
SYSTEMS = {
    ("bare loop, a process a processor", "loop"): (
        "boucle nue : la limite",
        "bare loop: the limit",
    ),
    ("verger", "extract"): ("verger, extraction", "verger, extraction"),
    ("verger", "whole"): ("verger, chaîne entière", "verger, all of it"),
    ("Daft, class UDF", "whole"): ("Daft, caractéristiques", "Daft, features"),
    ("Ray Data, actors", "whole"): ("Ray Data, caractéristiques", "Ray Data, features"),
    ("loading in processes", "whole"): ("processus, caractéristiques", "processes, features"),
    ("Spark, predict_batch_udf", "whole"): ("predict_batch_udf", "predict_batch_udf"),
    ("Spark, UDF by batch", "whole"): ("pandas UDF, par lot", "pandas UDF, by batch"),
    ("Spark, UDF by image", "whole"): ("pandas UDF, par image", "pandas UDF, by image"),
}
"""The rows of the benchmark that are drawn, from top to bottom: French and English names."""


def load_data() -> dict[str, Any]:
    """What is in `data/`, by the names of the files."""
    files = sorted(DATA.glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def rates(bench: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Images a second of Fruits-360 in float32, by contender and part, on one machine.

    Where one was measured with several sizes, that with the most contenders counts.
    """
    model = fullest(bench)["model"]
    runs = [run for run in bench["runs"] if run["precision"] == "f32" and not run["wide"]]
    found: dict[tuple[str, str], float] = {}
    for run in sorted(runs, key=lambda run: len(run["rows"])):
        if run["model"] == model:
            found |= {(row["name"], row["part"]): row["images_per_second"] for row in run["rows"]}
    return found


def fullest(bench: dict[str, Any]) -> dict[str, Any]:
    """The run with the most contenders."""
    run: dict[str, Any] = max(bench["runs"], key=lambda run: len(run["rows"]))
    return run


def bars(
    values: Sequence[tuple[str, float]], *, unit: str, strong: int, decimal_mark: str
) -> Drawing:
    """Horizontal bars, each with its name and its number, from top to bottom.

    Args:
        values: name and value; at least one value is above zero.
        unit: written after each number.
        strong: the index of the bar that stands out; -1 for none.
        decimal_mark: in the numbers.
    """
    name_width, row = 380, 62
    most = max(value for _, value in values)
    shapes = []
    for index, (name, value) in enumerate(values):
        y, length = 20 + index * row, (WIDTH - name_width - 210) * value / most
        colour = FRUIT if index == strong else LEAF
        written = f"{value:.3g}".replace(".", decimal_mark)
        shapes += [
            label(name_width - 16, y + 30, name, "end", size=19),
            rectangle(name_width, y + 4, length, row - 22, colour),
            label(name_width + length + 12, y + 30, f"{written} {unit}", "start", size=21),
        ]
    return drawing(shapes, height=30 + row * len(values))


def speed(bench: dict[str, Any], language: int) -> str:
    """Images a second of verger and of its peers."""
    found = rates(bench)
    shown = [(names[language], found[row]) for row, names in SYSTEMS.items() if row in found]
    strong = [*SYSTEMS].index(("verger", "whole"))
    return bars(shown, unit="images/s", strong=strong, decimal_mark=MARKS[language]).svg


def growth(measured: dict[str, Any], language: int) -> str:
    """Seconds of a run at each size."""
    separator = (NARROW_SPACE, ",")[language]
    shown = [
        (f"{size['images']:,} images".replace(",", separator), size["whole"])
        for size in measured["sizes"]
    ]
    return bars(shown, unit="s", strong=-1, decimal_mark=MARKS[language]).svg


def stages(run: dict[str, Any], language: int) -> str:
    """Seconds of each stage of a run."""
    names = texts(("fr", "en")[language], "stages")
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
    for name, draw_figure, results in (("speed", speed, "bench"), ("growth", growth, "growth")):
        if results in data:
            figures[name] = draw_figure(data[results], language)
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
