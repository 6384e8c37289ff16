"""What the documents show, runs; what they link to, is there; and the navigation has all of them."""

import functools
import json
import re
import runpy
import subprocess
import sys
import tomllib
import unicodedata
from pathlib import Path

import pytest

from forked_decoding import start_forked
from hourllava.inference.questions.options import AskSettings
from hourllava.model.nano import load_nano
from site_check import problems
from video.clips import write_clip

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
DOCUMENTS = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
SOURCES = [
    *(path for suffix in ("py", "yaml", "sh") for path in sorted((ROOT / "src").rglob(f"*.{suffix}"))),
    *sorted((ROOT / "benchmarks").glob("*")),
]


cached_nano = functools.cache(load_nano)


def name_of(document):
    return str(document.relative_to(ROOT))


def blocks(language):
    """Every fenced block of a language in the documents."""
    for document in DOCUMENTS:
        for text in re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), flags=re.DOTALL | re.MULTILINE):
            yield pytest.param(text, id=f"{name_of(document)}: {text.splitlines()[0][:40]}")


def prose(document):
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@functools.cache
def anchors(document):
    """Anchors of a document's headings, as Python-Markdown makes them."""
    found = []
    for heading in re.findall(r"^#+ (.+)$", prose(document), flags=re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
        found.append(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower()))
    return found


@pytest.mark.parametrize("code", list(blocks("python")))
def test_python_blocks_run(code, local_checkpoint, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if "lecture.mp4" in code:
        write_clip(tmp_path / "lecture.mp4", num_frames=60, fps=10)
    # Answers of a few tokens do; there is no network and no GPU where this runs.
    monkeypatch.setattr("hourllava.inference.engine.load_nano", cached_nano)
    monkeypatch.setattr("hourllava.inference.engine.AskSettings", functools.partial(AskSettings, max_new_tokens=3))
    monkeypatch.setattr("hourllava.video.child._start_process", start_forked)
    code = (
        code.replace("jylins/hourllava-qwen2-7b-s3", str(local_checkpoint))
        .replace('"cuda"', '"cpu"')
        .replace("bfloat16", "float32")
    )
    exec(compile(code, "documentation", "exec"), {"__name__": "documentation"})
    assert capsys.readouterr().out or "print(" not in code


def test_every_make_target_that_is_mentioned_exists():
    pattern = r"(?<!world )make ([a-z-]+)`"  # `hourllava world make` is no target
    mentioned = {name for document in DOCUMENTS for name in re.findall(pattern, document.read_text())}
    assert {"demo", "test", "check", "docs"} <= mentioned
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert mentioned <= targets
    subprocess.run(
        ["make", "--dry-run", "--always-make", *sorted(mentioned)], cwd=ROOT, check=True, capture_output=True
    )


def test_every_file_that_is_mentioned_exists():
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for path in re.findall(r"`((?:src|tests|benchmarks|docs|recipes)/[\w./-]+)`?", text):
            root = ROOT / "src/hourllava" if path.startswith("recipes/") else ROOT
            assert (root / path).exists(), f"{name_of(document)} mentions {path}"
        for command in re.findall(r"python ((?:benchmarks|tests)/[\w/]+\.py)", text):
            assert (ROOT / command).exists(), f"{name_of(document)} shows {command}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_and_their_anchors_are_there(document):
    links = re.findall(r"\]\((?!https?:)([^)\s]*)\)", prose(document))
    for link in links:
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), f"{name_of(document)} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{name_of(document)} links to {link}; there is no such heading"
        # The site holds docs/ only.
        assert document == ROOT / "README.md" or DOCS in target.resolve().parents or target.resolve() == DOCS


def test_headings_of_a_document_are_told_apart_by_their_anchors():
    for document in DOCUMENTS:
        twice = {anchor for anchor in anchors(document) if anchors(document).count(anchor) > 1}
        repeats = {"context", "decision", "cost"} if document.parent.name == "decisions" else set()
        assert not twice - repeats, name_of(document)


def test_pages_that_sources_point_to_are_there():
    found = 0
    for source in SOURCES:
        if source.suffix in (".py", ".yaml", ".sh"):
            for path, anchor in re.findall(r"\b(docs/[\w/-]+\.md)(?:#([\w-]+))?", source.read_text(encoding="utf-8")):
                found += 1
                assert (ROOT / path).is_file(), f"{name_of(source)} points to {path}"
                assert not anchor or anchor in anchors(ROOT / path), f"{name_of(source)} points to {path}#{anchor}"
    assert found > 10


def pages_of(entries):
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else pages_of(value)


def test_the_navigation_names_every_page_once():
    settings = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    pages = list(pages_of(settings["project"]["nav"]))
    assert sorted(pages) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_every_decision_says_what_it_costs_and_is_listed():
    index = (DOCS / "decisions" / "index.md").read_text(encoding="utf-8")
    decisions = sorted((DOCS / "decisions").glob("0*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        assert anchors(path)[1:] == ["context", "decision", "cost", "when-to-revisit"], path.name
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix(f"# {path.name[:4]} ")
        assert f"| [{path.name[:4]}]({path.name}) | {title} |" in index


def test_experiments_come_newest_first_with_their_verdict():
    headings = re.findall(r"^## (.+)$", (DOCS / "experiments.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    dates = [heading.split()[0] for heading in headings]
    assert dates == sorted(dates, reverse=True)
    for heading in headings:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d .+ \([a-z ,]+\)", heading), heading


def test_the_readme_is_short_and_its_picture_small():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120
    assert (DOCS / "images" / "ask.png").stat().st_size < 200_000


def test_the_file_tree_is_there():
    (tree,) = re.findall(r"^```\n(src/.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    paths = [line.split()[0] for line in tree.splitlines()]
    assert len(paths) > 5
    for path in paths:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ('<link rel="stylesheet" href="https://fonts.example/css">', "loads https://fonts.example/css"),
        ('<script src="//cdn.example/a.js"></script>', "loads //cdn.example/a.js"),
        ('<img src="gone.png">', "needs gone.png"),
        ('<a href="other.html#no">x</a>', "no such anchor"),
        (
            '<a href="https://example.org">x</a><a href="other.html#yes">y</a><link rel="canonical" href="https://a">',
            None,
        ),
    ],
)
def test_faults_of_a_site_are_found(tmp_path, html, said):
    (tmp_path / "index.html").write_text(html)
    (tmp_path / "other.html").write_text('<h1 id="yes">a</h1>')
    found = problems(tmp_path)
    assert (said is None and not found) or (len(found) == 1 and said in found[0])


@pytest.mark.slow
def test_the_site_is_built_strictly_and_needs_no_other_host():
    done = subprocess.run(["make", "docs"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    api = (ROOT / "site" / "api.html").read_text(encoding="utf-8")
    for name in ("hourllava.HourLlava.watch", "hourllava.Memory.load", "hourllava.load_model"):
        assert f'id="{name}"' in api


def test_tables_are_those_of_the_raw_results():
    script = runpy.run_path(str(ROOT / "benchmarks" / "serve_table.py"))
    core, load = (
        json.loads((DOCS / "benchmarks" / f"2026-11-29-serve-{name}" / "output.json").read_text())
        for name in ("core", "load")
    )
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    for table in (*script["tables"](core), script["load_table"](load)):
        assert table in text, f"docs/benchmarks.md should have:\n{table}"


def test_importing_the_package_does_not_load_torch():
    code = "import sys, hourllava, hourllava.errors; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
