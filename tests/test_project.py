"""The files of an open project agree with each other and with the code."""

import hashlib
import re
from pathlib import Path

import pytest
import yaml

import hourllava
from hourllava.model.nano import FOLDER

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_one_version():
    assert yaml.safe_load(text_of("CITATION.cff"))["version"] == hourllava.__version__
    newest = re.search(r"^## (\S+)", text_of("CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == hourllava.__version__


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_targets_that_exist(path):
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    called = set()
    for job in jobs.values():
        matrix = job.get("strategy", {}).get("matrix", {})
        called |= {name for row in matrix.get("include", []) for name in row.get("targets", "").split()}
        called |= set(matrix.get("target", []))
        for step in job.get("steps", []):
            for line in re.findall(r"^make (.*)$", step.get("run", ""), re.MULTILINE):
                called |= {word for word in line.split() if re.fullmatch(r"[a-z-]+", word)}
    assert called <= TARGETS


def test_every_tier_has_a_job_and_ci_runs_the_first():
    everything = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    for tier in re.findall(r"^(test-[a-z]+):", MAKEFILE, re.MULTILINE):
        assert tier in everything, f"no workflow runs make {tier}"
    run = re.findall(r"^make (.*)$", text_of(".ci/run"), re.MULTILINE)
    assert [set(line.split()) <= TARGETS for line in run] == [True]


def test_contributing_names_every_target():
    named = set(re.findall(r"`make ([a-z-]+)`", text_of("CONTRIBUTING.md")))
    assert named == TARGETS - {"help", "format", "clean"}


def test_files_that_contributing_names_are_there():
    text = text_of("CONTRIBUTING.md")
    for name in re.findall(r"`((?:tests|docs|benchmarks|src)/[\w/.]*)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"^\| `([a-z]+)/`", text, re.MULTILINE):
        assert (ROOT / "src" / "hourllava" / name).is_dir(), name


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_constraints_lie_within_what_the_package_allows(name):
    from packaging.requirements import Requirement

    declared = text_of("pyproject.toml")
    allowed = {
        requirement.name: requirement
        for requirement in map(Requirement, re.findall(r'^    "([a-zA-Z-]+[><=~][^"]*)",$', declared, re.MULTILINE))
    }
    for line in text_of(name).splitlines():
        if match := re.fullmatch(r"([\w-]+)==([\w.]+)", line):
            package, version = match.groups()
            if package in allowed:
                assert allowed[package].specifier.contains(version), f"{line}: pyproject.toml has {allowed[package]}"


def test_the_oldest_constraints_are_the_oldest_that_the_package_allows():
    oldest = dict(re.findall(r"^([\w-]+)==([\w.]+)$", text_of("constraints-oldest.txt"), re.MULTILINE))
    for package, version in re.findall(r'^    "([a-z-]+)>=([\d.]+)', text_of("pyproject.toml"), re.MULTILINE):
        if package in oldest:
            assert oldest[package].startswith(f"{version}.") or oldest[package] == version, package


class TestNanoCard:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")

    def test_digests_are_those_of_the_weights(self):
        told = dict(re.findall(r"^([0-9a-f]{64})  (\S+)$", self.card, re.MULTILINE))
        found = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in FOLDER.glob("*.safetensors")}
        assert told == found

    def test_figures_are_those_of_the_docs(self):
        page = text_of("docs/nano.md").replace("**", "")
        for figure in re.findall(r"\d+ % \(\d+-\d+; (?:n = )?[\d,]+\)", self.card):
            assert figure in page, figure

    def test_recipes_that_it_names_are_shipped(self):
        names = re.findall(r"`(recipes/[\w./-]+)`", self.card)
        assert names
        for name in names:
            assert (Path(hourllava.__file__).parent / name).is_file()
