"""Baselines of a benchmark's run, and models behind a server."""

import json

import pytest

from cli.in_process import error_line, run_here
from conftest import tiny_checkpoint
from evaluation.benchmarks.judges import judge_server
from evaluation.benchmarks.miniatures import MINIATURES
from hourllava.inference.engine import HourLlava

SERVED = ["--server", "http://localhost:1/v1", "--server-model", "m"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return MINIATURES["cg-bench"](tmp_path_factory.mktemp("data") / "cg-bench")


def run(data, out, *options, name="cg-bench"):
    return run_here("eval", name, data, "--out", out, "--model", tiny_checkpoint(), "--device", "cpu", *options)


def raw(out):
    lines = [json.loads(line) for line in (out / "raw.jsonl").read_text().splitlines()]
    return sorted(lines, key=lambda line: line["question"]["place"])


@pytest.mark.parametrize("protocol", ["lmms-eval-0.7.2", "likelihood"])
def test_blind_watches_nothing_and_asks_the_same(data, tmp_path, monkeypatch, protocol):
    assert run(data, tmp_path / "video", "--protocol", protocol).code == 0
    monkeypatch.setattr(HourLlava, "watch", None)
    ended = run(data, tmp_path / "blind", "--protocol", protocol, "--condition", "blind")
    assert ended.code == 0, ended.stderr
    for seen, blind in zip(raw(tmp_path / "video"), raw(tmp_path / "blind"), strict=True):
        assert blind["prompt"] == seen["prompt"]
        assert (blind["num_frames"], blind["evidence"]) == (0, [])
        assert seen["num_frames"] == 2
    assert "| frames | none: the questions alone (--condition blind) |" in (tmp_path / "blind" / "table.md").read_text()
    ended = run_here("eval", "score", tmp_path / "video", "--against", tmp_path / "blind", "--out", tmp_path / "both")
    assert ended.code == 0
    assert "## This run minus the other run" in (tmp_path / "both" / "table.md").read_text()
    ended = run(data, tmp_path / "blind", "--protocol", protocol)
    assert (ended.code, "condition 'blind' there, 'video' now" in error_line(ended)) == (2, True)


def test_frames_only_changes_what_memaug_finds(data, tmp_path):
    """With fewer frames than MemAug keeps anyway, the answers are those of `video`; the share is what must differ."""
    shares = []
    with_ready = HourLlava.with_ready
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            HourLlava, "with_ready",
            lambda self, make: shares.append(make.keywords["share"]) or with_ready(self, make),
        )  # fmt: skip
        assert run(data, tmp_path / "out", "--condition", "frames_only").code == 0
    assert shares == [0.0]
    assert all(line["num_frames"] == 2 for line in raw(tmp_path / "out"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--condition", "x"], "--condition is 'x'; use one of: video, frames_only, blind"),
        (["--engine", "x"], "--engine is 'x'; use one of: local, ray"),
        (["--condition", "blind", "--subtitles"], "omit one of the two"),
        (["--server", "http://localhost:1/v1"], "--server and --server-model go together"),
        (["--server", "ftp://x", "--server-model", "m"], "--server is 'ftp://x'; use an address"),
        ([*SERVED, "--subtitles"], "--subtitles needs the model itself"),
        ([*SERVED, "--protocol", "likelihood"], "--protocol likelihood needs the model itself"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(data, tmp_path, options, words):
    ended = run_here("eval", "cg-bench", data, "--out", tmp_path / "out", "--model", "nowhere", *options)
    assert (ended.code, words in error_line(ended)) == (2, True), ended.stderr
    assert not (tmp_path / "out").exists()


class TestServer:
    """Another model, behind a server."""

    def test_each_question_is_a_request_with_its_video(self, data, tmp_path):
        with judge_server() as server:
            server.reply = lambda content: "B" if "Where" in content[-1]["text"] else "H."
            options = ["--server", server.url, "--server-model", "other"]
            ended = run(data, tmp_path / "out", *options)
            assert ended.code == 0, ended.stderr
            requests = server.requests.copy()
            assert run(data, tmp_path / "out", *options).code == 0  # nothing is left to ask
            assert len(server.requests) == len(requests) == 3
        videos = sorted(request["messages"][0]["content"][0]["video_url"]["url"] for request in requests)
        folder = f"file://{data}/cg_videos_720p"
        assert videos == [f"{folder}/cg000000001.mp4"] * 2 + [f"{folder}/cg000000002.mp4"]
        for request in requests:
            assert (request["model"], request["temperature"], request["max_tokens"]) == ("other", 0, 16)
            assert request["stop"] == ["\n\n"]
        answers = raw(tmp_path / "out")
        assert [line["output"] for line in answers] == ["B", "H.", "H."]
        assert [line["prompt"] for line in answers] == [
            next(
                request["messages"][0]["content"][1]["text"]
                for request in requests
                if line["question"]["question"] in request["messages"][0]["content"][1]["text"]
            )
            for line in answers
        ]
        table = (tmp_path / "out" / "table.md").read_text()
        assert "| model | other, behind a server |" in table
        assert "| frames | as the server samples them |" in table

    def test_addresses_of_videos_and_blind_questions(self, data, tmp_path):
        with judge_server() as server:
            server.reply = lambda content: "B"
            options = ["--server", server.url, "--server-model", "other"]
            run(data, tmp_path / "a", *options, "--server-videos", "http://files/x/", "--limit", 1)
            run(data, tmp_path / "b", *options, "--condition", "blind")
            first, *_, last = server.requests
        assert first["messages"][0]["content"][0]["video_url"]["url"] == "http://files/x/cg_videos_720p/cg000000001.mp4"
        assert [part["type"] for part in last["messages"][0]["content"]] == ["text"]

    def test_what_fails_is_listed_and_asked_again(self, data, tmp_path, monkeypatch):
        monkeypatch.setattr("hourllava.evaluation.benchmarks.served._PAUSES_SECONDS", (0.0, 0.0))
        with judge_server() as server:
            server.reply = lambda content: 500 if "Who" in content[-1]["text"] else "B"
            options = ["--server", server.url, "--server-model", "other"]
            assert run(data, tmp_path / "out", *options).code == 9
            failed = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
            assert [line["id"] for line in failed] == ["2"]
            assert "gives no answer: 500" in failed[0]["reason"]
            server.reply = lambda content: "B"
            assert run(data, tmp_path / "out", *options).code == 0
            assert len(raw(tmp_path / "out")) == 3
            server.reply = lambda content: 401
            ended = run(data, tmp_path / "other", *options)
            assert (ended.code, "check --server, --server-model" in error_line(ended)) == (2, True)
