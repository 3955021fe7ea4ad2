"""What the repository says of itself: versions, Pythons, links, forms."""

import re
from pathlib import Path

import pytest
import yaml

from verger import __version__

ROOT = Path(__file__).parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text()
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob(".github/*.md")]
FORMS = [form for form in ROOT.glob(".github/ISSUE_TEMPLATE/*.yml") if form.name != "config.yml"]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"


def test_the_same_pythons_are_promised_tested_and_taken() -> None:
    promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)
    tests = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    assert tests["jobs"]["fast"]["strategy"]["matrix"]["python"] == promised
    assert f'requires-python = ">={promised[0]}"' in PROJECT
    script = (ROOT / "tools/make_venv.sh").read_text()
    assert " ".join(f"python{version}" for version in reversed(promised)) in script


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_of_the_repository_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_asks_for_what_helps(form: Path) -> None:
    content = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= set(content)
    assert all(field["attributes"]["label"] for field in content["body"])
    assert any(field["validations"]["required"] for field in content["body"])
