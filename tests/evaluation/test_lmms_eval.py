"""The adapter for lmms-eval without lmms-eval: what is asked of the engine, and in which order answers come back.

tests/evaluation/benchmarks/test_harness.py runs it inside the genuine one.
"""

import random

import pytest

from conftest import tiny_checkpoint
from evaluation.benchmarks.miniatures import put_video
from hourllava.errors import ConfigError, VideoError
from hourllava.evaluation.lmms_eval.ranks import answer_shared, check_cache, share_of
from hourllava.evaluation.lmms_eval.requests import Reply, answer_requests, request_of
from hourllava.inference.engine import HourLlava

OPTIONS = {"until": ["\n\n"], "max_new_tokens": 4, "temperature": 0, "do_sample": False, "num_beams": 1}


@pytest.fixture(scope="module")
def engine():
    with HourLlava.from_pretrained(tiny_checkpoint(), device="cpu") as engine:
        yield engine


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for k in range(3):
        put_video(folder / f"{k}.mp4", 2 + k)
    return [str(folder / f"{k}.mp4") for k in range(3)]


def test_each_video_is_watched_once_and_answers_come_in_the_order_of_the_requests(engine, videos, monkeypatch):
    watched = []
    watch = HourLlava.watch
    monkeypatch.setattr(
        HourLlava, "watch", lambda self, video, **some: watched.append(video) or watch(self, video, **some)
    )
    requests = [request_of(f"What is {k}?", [videos[k % 3]], OPTIONS) for k in range(6)]
    requests += [request_of("What is 1?", [videos[1]], OPTIONS), request_of("What is 1?", [], OPTIONS)]
    in_order = answer_requests(engine, requests, progress=False)
    assert watched == videos
    order = list(range(len(requests)))
    random.Random(0).shuffle(order)
    shuffled = answer_requests(engine, [requests[k] for k in order], progress=False)
    assert shuffled == [in_order[k] for k in order]
    assert in_order[1] == in_order[6] != in_order[7]
    alone = engine.ask(engine.watch(videos[2], progress=False), "What is 5?", max_new_tokens=4, stop=["\n\n"])
    assert in_order[5] == Reply(alone.text, alone.num_prompt_tokens, alone.num_new_tokens)


def test_what_cannot_be_answered_is_empty_and_said(engine, videos, tmp_path, capsys):
    (tmp_path / "x.mp4").write_bytes(b"no video" * 200)
    bad = request_of("What?", [str(tmp_path / "x.mp4")], OPTIONS)
    long = request_of("What is it? " * 4000, [videos[0]], OPTIONS)
    good = request_of("What?", [videos[0]], OPTIONS)
    replies = answer_requests(engine, [bad, long, good], progress=False)
    assert [bool(reply.error) for reply in replies] == [True, True, False]
    assert replies[0].text == replies[1].text == ""
    assert "x.mp4" in replies[0].error
    said = capsys.readouterr().err
    assert "its 1 questions get an empty answer" in said
    assert "the question gets an empty answer" in said
    with pytest.raises(VideoError):
        answer_requests(engine, [bad], progress=False)


def test_options_of_generation():
    greedy = request_of("?", ["v"], OPTIONS).way
    assert (greedy.max_new_tokens, greedy.stop, greedy.temperature) == (4, ("\n\n",), 0.0)
    assert request_of("?", ["v"], {"until": "x"}).way.stop == ("x",)
    assert request_of("?", ["v"], {}).way.max_new_tokens == 128  # TempCompass says nothing
    assert request_of("?", ["v"], {"temperature": 0.5, "do_sample": False}).way.temperature == 0.0
    sampled = {"temperature": 0.5, "do_sample": True, "top_p": 0.9}
    assert [request_of("?", ["v"], sampled, repeat=k).way.seed for k in range(2)] == [0, 1]
    assert request_of("?", ["v"], sampled).way.top_p == 0.9
    assert request_of("?", ["v"], {"temperature": None, "top_p": None}).way == request_of("?", ["v"], {}).way


@pytest.mark.parametrize("visuals", [["a.mp4", "b.mp4"], [object()]])
def test_other_than_one_video_is_refused(visuals):
    with pytest.raises(ConfigError, match="watches one video for each question"):
        request_of("?", visuals, {})


class TestRanks:
    """Several processes."""

    def test_each_video_belongs_to_one_process_and_each_question_is_answered(self):
        requests = [request_of(f"q{k}", [f"v{k % 5}"], {}) for k in range(23)]
        shares = [share_of(requests, rank, 3) for rank in range(3)]
        assert sorted(one.prompt for share in shares for one in share) == sorted(one.prompt for one in requests)
        owners = [{request.video for request in share} for share in shares]
        assert not owners[0] & owners[1]
        assert not owners[1] & owners[2]
        assert max(map(len, owners)) - min(map(len, owners)) == 1

    def test_a_process_gets_the_answers_to_what_it_was_dealt(self, monkeypatch):
        """Two processes after one another: the second sees what the first put in."""
        dealt = [[request_of(f"q{k}", [f"v{k % 3}"], {}) for k in range(rank, 10, 2)] for rank in range(2)]
        everything = [request for some in dealt for request in some]
        answers = [{one: Reply(one.prompt.upper()) for one in share_of(everything, rank, 2)} for rank in range(2)]
        for rank in range(2):
            gathered = iter((dealt, answers))

            def gather(found, own, gathered=gathered, rank=rank):
                found[:] = next(gathered)
                assert found[rank] == own

            monkeypatch.setattr("torch.distributed.all_gather_object", gather)
            monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
            monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
            replies = answer_shared(dealt[rank], lambda some: [Reply(one.prompt.upper()) for one in some])
            assert [reply.text for reply in replies] == [one.prompt.upper() for one in dealt[rank]]

    def test_a_cache_of_answers_is_refused(self):
        for argument in ("--use_cache", "--use_cache=x"):
            with pytest.raises(ConfigError, match="memories=FOLDER"):
                check_cache(["lmms_eval", argument])
        check_cache(["lmms_eval", "--tasks", "x"])
