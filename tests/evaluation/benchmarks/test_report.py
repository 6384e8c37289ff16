"""The report for people: the table, and the page with every question."""

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from evaluation.benchmarks.answers import answered, asked, write_run
from hourllava.evaluation.benchmarks.catalogue import BENCHMARKS
from hourllava.evaluation.benchmarks.outcome import score_run

NASTY = "<script>alert('x')</script> & \"| y\" $\\frac$ ```"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose questions and answers hold what may break a table or a page."""
    out = tmp_path_factory.mktemp("run") / "run"
    questions = [
        asked(k, "AB"[k % 2], text=NASTY, question=NASTY, video=f"v{k // 2}", file=f"videos/v {k // 2}.mp4",
              options=("x", NASTY), moments=((61.0, 62.5),), groups={"duration": ("long",), "domain": (NASTY,)})
        for k in range(24)
    ]  # fmt: skip
    answers = [answered(question, ("A", "B", NASTY)[k % 3]) for k, question in enumerate(questions)]
    write_run(out, "video-mme", answers, notes=("something odd: 1, such as x",), left_out={"a reason": 3})
    list(score_run(out, data=out.parent / "data"))
    return out


def test_the_table_says_how_many_and_how(run):
    table = (run / "table.md").read_text()
    assert table.startswith("# Video-MME: nano\n")
    for line in (
        "| protocol | lmms-eval-0.7.2 |", "| rule | lmms-eval-0.7.2 |", "| subtitles | no |", "| judge | none |",
        "- 24 questions about 12 videos in the files", "- 3 more are left out: a reason",
        "- 24 answered, about 12 videos; 0 not answered", "- in the files: something odd: 1, such as x",
        "## Published", "## The first prompt",
    ):  # fmt: skip
        assert line in table
    assert re.search(
        r"\*\*\d+\.\d \(\d+\.\d-\d+\.\d\)\*\* over all scored questions \(micro\), 24 of 24 questions", table
    )
    assert "| Hour-LLaVA-7B | long | 55.0 / 65.1 | without / with |" in table


def test_every_row_of_a_table_has_its_cells(run):
    columns = None
    for line in (run / "table.md").read_text().splitlines():
        if not line.startswith("|"):
            columns = None
            continue
        cells = re.split(r"(?<!\\)\|", line)
        assert columns in (None, len(cells)), line
        columns = len(cells)


class Page(HTMLParser):
    """What a page loads, links and holds."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.open, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [value for name, value in attrs if name in ("href", "src", "action")]
        if tag not in ("meta", "input", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_every_question_and_no_address(run):
    text = (run / "page.html").read_text()
    page = Page(text)
    assert page.open == []
    assert sum(tag == "details" for tag, _ in page.tags) == 24
    assert [tag for tag, _ in page.tags].count("script") == 1  # the questions' own are text
    assert NASTY in page.text
    assert "http://" not in text
    assert "https://" not in text
    assert set(page.links) == {
        f"../data/videos/v%20{k}.mp4#t={start},{end}" for k in range(12) for start, end in (("61", "62.5"), ("0", "2"))
    }
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_an_item_says_what_was_right_chosen_and_looked_at(run):
    first = (run / "page.html").read_text().split("<details")[1]
    assert first.startswith(' class="right">')
    assert '<span class="gold chosen">A. x</span>' in first
    assert "0:01:01-0:01:02</a>" in first
    assert "0:00:00-0:00:02</a>" in first


def test_without_the_data_folder_moments_are_no_links(run, tmp_path):
    list(score_run(run, out=tmp_path))
    assert Page((tmp_path / "page.html").read_text()).links == []


def test_figures_come_with_their_protocol_and_source():
    for benchmark in BENCHMARKS.values():
        assert benchmark.advice.endswith(".")
        for figure in benchmark.figures:
            assert figure.protocol
            assert figure.source
            assert re.fullmatch(r"[\d.]+(?:(?:-| / )[\d.]+)?", figure.percent)


PUBLISHED = {  # of the paper, 3B and 7B
    "tempcompass": ["63.6", "68.1"], "longvideobench": ["57.8", "60.4"], "lvbench": ["44.7", "45.6"],
    "video-mme": ["60.6 / 66.7", "59.0 / 65.4", "52.1 / 60.4", "63.6 / 70.2", "63.8 / 70.0", "55.0 / 65.1"],
}  # fmt: skip


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_papers_figures(name):
    figures = [one.percent for one in BENCHMARKS[name].figures if one.model.startswith("Hour-LLaVA")]
    assert figures == PUBLISHED.get(name, [])


def test_the_scores_are_drawn(run, figure, tmp_path):
    """A picture with a bar per group; names of groups with odd characters do not break it."""
    lines = list(score_run(run, out=tmp_path))
    path = tmp_path / "scores.png"
    assert str(path) in lines
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.height > 20


def test_without_matplotlib_a_warning_says_how_to_get_the_picture(run, figure, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    list(score_run(run, out=tmp_path))
    assert not (tmp_path / "scores.png").exists()
    assert "pip install 'hourllava[world]'" in caplog.text
