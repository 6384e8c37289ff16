"""What the documents show, runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from video.clips import write_clip

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language):
    """Every fenced block of a language in the documents."""
    for document in DOCUMENTS:
        for text in re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), flags=re.DOTALL | re.MULTILINE):
            yield pytest.param(text, id=f"{document.name}: {text.splitlines()[0][:40]}")


@pytest.mark.parametrize("code", list(blocks("python")))
def test_python_blocks_run(code, local_checkpoint, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if "lecture.mp4" in code:
        write_clip(tmp_path / "lecture.mp4", num_frames=60, fps=10)
    # There is no network and no GPU where this runs.
    code = code.replace("jylins/hourllava-qwen2-7b-s3", str(local_checkpoint)).replace('"cuda"', '"cpu"')
    exec(compile(code, "documentation", "exec"), {"__name__": "documentation"})
    assert capsys.readouterr().out or "print(" not in code


def test_every_make_target_that_is_mentioned_exists():
    pattern = r"(?<!world )make ([a-z-]+)"  # `hourllava world make` is no target
    mentioned = {name for document in DOCUMENTS for name in re.findall(pattern, document.read_text())}
    assert {"demo", "test", "check"} <= mentioned
    for target in mentioned:
        subprocess.run(["make", "--dry-run", "--always-make", target], cwd=ROOT, check=True, capture_output=True)


def test_every_file_that_is_mentioned_exists():
    for document in DOCUMENTS:
        for path in re.findall(r"`((?:src|tests|benchmarks|docs|recipes)/[\w./-]+)`?", document.read_text()):
            root = ROOT / "src/hourllava" if path.startswith("recipes/") else ROOT
            assert (root / path).exists(), f"{document.name} mentions {path}"
        for path in re.findall(r"\]\((?!http)([\w./-]+)\)", document.read_text()):
            assert (document.parent / path).exists(), f"{document.name} links to {path}"
        for command in re.findall(r"python (benchmarks/\w+\.py)", document.read_text()):
            assert (ROOT / command).exists(), f"{document.name} shows {command}"


def test_the_file_tree_is_there():
    tree = re.search(r"## Finding your way\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    paths = [line.split()[0] for line in tree.group(1).splitlines()]
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path


def test_importing_the_package_does_not_load_torch():
    code = "import sys, hourllava, hourllava.errors; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
