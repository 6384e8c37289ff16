"""`hourllava eval score`: stored answers are scored again, pooled and compared, without loading a model."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from evaluation.test_scores import answered
from hourllava.cli.main import app
from hourllava.errors import ConfigError, DataError


def write(folder, some, settings=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "answers.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in some))
    if settings is not None:
        (folder / "evaluation.json").write_text(json.dumps(settings))
    return folder


def score(*arguments):
    result = CliRunner().invoke(app, ["eval", "score", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result


def scores_in(folder):
    return json.loads((folder / "scores.json").read_text())


def test_answers_are_scored_where_they_lie(tmp_path):
    some = [answered(k, right=k > 2, video=f"v{k % 4}") for k in range(12)]
    folder = write(tmp_path / "a", some, {"model": "nano"})
    output = score(folder).stdout
    assert [line.rpartition("/")[2] for line in output.splitlines()][:2] == ["scores.json", "table.md"]
    scores = scores_in(folder)
    assert scores["settings"] == {"model": "nano"}
    cell = scores["all"]["all"]["choice"]["video"]
    assert (cell["n"], cell["right"], cell["videos"]) == (12, 9, 4)
    assert "12 questions about 4 videos" in (folder / "table.md").read_text()
    before = (folder / "scores.json").read_bytes()
    score(folder / "answers.jsonl")
    assert (folder / "scores.json").read_bytes() == before


def test_what_is_right_is_judged_anew(tmp_path, no_figures):
    one = answered(0).model_copy(update={"right": {"video": False, "blind": False}})
    folder = write(tmp_path / "a", [one])
    score(folder)
    assert scores_in(folder)["all"]["all"]["choice"]["video"]["right"] == 1


def test_several_sets_are_one(tmp_path, no_figures):
    sets = [
        write(tmp_path / str(k), [answered(n, video=f"{k}-{n}", id=f"{k}-{n}") for n in range(5)]) for k in range(3)
    ]
    with pytest.raises(ConfigError, match=r"3 sets of answers .* give --out"):
        score(*sets)
    score(*sets, "--out", tmp_path / "all")
    assert scores_in(tmp_path / "all")["all"]["all"]["choice"]["video"]["videos"] == 15
    with pytest.raises(DataError, match="question 0-0 is answered 2 times"):
        score(sets[0], sets[0], "--out", tmp_path / "all")


def test_two_models(tmp_path, no_figures):
    ours = write(tmp_path / "ours", [answered(k, video=f"v{k}") for k in range(9)])
    theirs = write(tmp_path / "theirs", [answered(k, right=k < 3, video=f"v{k}") for k in range(8)])
    score(ours, "--against", theirs, "--out", tmp_path / "out")
    cell = scores_in(tmp_path / "out")["against"]["all"]["all"]["choice"]
    assert (cell["n"], cell["won"], cell["lost"]) == (8, 5, 0)
    table = (tmp_path / "out" / "table.md").read_text()
    assert "1 questions were answered by only one of the two models" in table
    assert "| all | 8 | +62.5 (" in table


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"), (b"", "no answer to score"), (b"{}\n", "damaged or of another version"),
        (b"\xff\xfe\n", "damaged or of another version"),
        (answered().model_dump_json().replace("3600.0", "0").encode() + b"\n", "damaged"),
        (answered().model_dump_json().replace("3600.0", "NaN").encode() + b"\n", "damaged"),
        (2 * (answered().model_dump_json().encode() + b"\n"), "question q0 is answered 2 times"),
    ],
)  # fmt: skip
def test_damaged_answers_are_one_clear_line(tmp_path, content, words):
    if content is not None:
        (tmp_path / "answers.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        score(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "scores.json").exists()


def test_a_line_that_is_cut_off_is_said_and_stays(tmp_path, caplog, no_figures):
    folder = write(tmp_path / "a", [answered(0), answered(1)])
    path = folder / "answers.jsonl"
    content = path.read_bytes()[:-20]
    path.write_bytes(content)
    score(folder)
    assert "is incomplete and is skipped" in caplog.text
    assert path.read_bytes() == content
    assert scores_in(folder)["all"]["all"]["choice"]["video"]["n"] == 1


def test_no_model_is_loaded():
    code = "import sys; import hourllava.evaluation.results; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
