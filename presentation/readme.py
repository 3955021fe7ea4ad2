"""Write into both READMEs how fast it is, from the results in `data/`.

.venv/bin/python presentation/readme.py
"""

import re
from pathlib import Path
from typing import Any

from figures import NARROW_SPACE, fullest, load_data

ROOT = Path(__file__).parents[1]
PLACE = re.compile(r"(<!-- speed -->\n).*?(<!-- /speed -->\n)", re.DOTALL)
TEXTS = {
    "README.md": """\
{images} photographs of Fruits-360 on {cores} cores ({model}): all of it in **{verger} s**, the
features after {features} s. A bare loop, decoding and network alone, takes {bare} s with its start;
the features alone take Daft {daft} s, Ray Data {ray} s and Spark's `predict_batch_udf` {spark} s.
[How fast it is](docs/speed.md).
""",
    "README.fr.md": """\
{images} photographies de Fruits-360 sur {cores} cœurs ({model}) : tout en **{verger} s**, les
caractéristiques après {features} s. Une boucle nue, décodage et réseau seuls, prend {bare} s avec
son démarrage ; les caractéristiques seules prennent {daft} s à Daft, {ray} s à Ray Data et
{spark} s à `predict_batch_udf` de Spark. [La vitesse](docs/speed.md).
""",
}
"""What stands between the marks."""


def told(bench: dict[str, Any]) -> dict[str, Any]:
    """The facts of the run with the most contenders: numbers, and seconds by contender."""
    run = fullest(bench)
    seconds = {(row["name"], row["part"]): row["seconds"] for row in run["rows"]}
    return {
        "images": run["images"],
        "cores": run["cores"],
        "model": run["model"],
        "verger": seconds["verger", "whole"],
        "features": seconds["verger", "features"],
        "bare": seconds["bare loop, a process a processor", "start"],
        "daft": seconds["Daft, class UDF", "whole"],
        "ray": seconds["Ray Data, actors", "whole"],
        "spark": seconds["Spark, predict_batch_udf", "whole"],
    }


def fill(name: str, text: str, bench: dict[str, Any]) -> str:
    """A README with what was measured between its marks."""
    english = name == "README.md"

    def written(value: object) -> str:
        if not isinstance(value, int | float):
            return str(value)
        number = f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
        return number if english else number.replace(",", NARROW_SPACE).replace(".", ",")

    facts = {key: written(value) for key, value in told(bench).items()}
    return PLACE.sub(lambda found: f"{found[1]}{TEXTS[name].format(**facts)}{found[2]}", text)


def main() -> None:
    """Write both."""
    bench = load_data()["bench"]
    for name in TEXTS:
        file = ROOT / name
        text = file.read_text(encoding="utf-8")
        file.write_text(fill(name, text, bench), encoding="utf-8")


if __name__ == "__main__":
    main()
