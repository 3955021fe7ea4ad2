"""What the server's OpenAPI document allows, and more, is asked of it by schemathesis."""

import re
import subprocess
import sys
from pathlib import Path

from servers import serving

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


def test_schemathesis_finds_nothing(sound: Path, tmp_path: Path) -> None:
    with serving(sound, "--corrections", tmp_path / "kept", "--seconds", 120) as port:
        asked = subprocess.run(
            [
                SCHEMATHESIS, "run", f"http://127.0.0.1:{port}/openapi.json",
                "--checks", "all",
                # That some bytes are no photograph cannot be said in a schema.
                "--exclude-checks", "positive_data_acceptance",
                "--max-examples", "20", "--seed", "1", "--request-timeout", "120", "--no-color",
            ],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
    assert asked.returncode == 0, asked.stdout + asked.stderr
    generated = re.search(r"(\d+) generated, \1 passed", asked.stdout)
    assert generated, asked.stdout
    assert int(generated[1]) > 50
