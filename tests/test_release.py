"""What a release is made of agrees with itself."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import steerlens

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!;~ ]", line)[0].lower().replace("_", "-") for line in requirements}


def test_the_version_stands_once_in_code_and_the_citation_agrees():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == steerlens.__version__
    assert "version" not in PROJECT


def test_every_package_that_is_installed_by_default_has_its_licence_listed():
    listed = set(re.findall(r"^\| ([\w.-]+) \|", (ROOT / "docs" / "licences.md").read_text(), re.M))
    assert names(PROJECT["dependencies"]) <= listed


def test_every_extra_but_the_heavy_ones_is_tested_by_someone():
    makefile = (ROOT / "Makefile").read_text()
    installed = names(PROJECT["optional-dependencies"]["dev"])
    for extra, packages in PROJECT["optional-dependencies"].items():
        if extra not in ("dev", "ray", "vllm"):
            assert names(packages) <= installed or extra in makefile, extra


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_targets_that_the_makefile_has(path):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = path.read_text()
    jobs = yaml.safe_load(text)["jobs"]
    assert jobs
    assert set(re.findall(r"\bmake ([\w-]+)", text)) <= targets


def test_the_forge_runs_every_supported_python():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    tested = jobs["tests"]["strategy"]["matrix"]["python"]
    promised = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert tested == promised


@pytest.mark.parametrize("name", ["fault.yml", "model.yml"])
def test_who_reports_a_fault_is_asked_for_what_doctor_says(name):
    fields = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / name).read_text())["body"]
    asked = [field for field in fields if "steerlens doctor" in str(field["attributes"].get("label"))]
    assert [field["validations"]["required"] for field in asked] == [True]
