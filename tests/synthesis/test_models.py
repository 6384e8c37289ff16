"""Asking a server: what is tried again, what is given up, what ends the run; and what it costs."""

import asyncio
import io
import json

import numpy as np
import pytest
from PIL import Image

from hourllava.errors import ConfigError
from hourllava.synthesis.models.asking import Asker, RetryPolicy
from hourllava.synthesis.models.openai_server import ServerModel, ServerOptions
from hourllava.synthesis.models.request import CallFault, Picture, Reply, Request
from hourllava.synthesis.models.spec import open_model
from hourllava.synthesis.models.spending import Price, Spending
from hourllava.synthesis.rows import ItemFault
from hourllava.synthesis.shapes import ChoiceQuestions, EventCaption, json_schema
from hourllava.synthesis.stage import StopRun
from synthesis.model_server import CONTENT, TRANSPORT, ModelServer, frames_of
from synthesis.runs import MODEL

POLICY = RetryPolicy(first_pause_seconds=0.001, longest_pause_seconds=0.05, stop_after=3)
EVENT = '<event>\n{"event": 1, "from": "0:00:00", "to": "0:00:30", "title": "The party in the cave"}\n</event>'
REQUEST = Request("event_caption", "Tell.", (EVENT,), EventCaption, max_tokens=100)


class Scripted:
    """A model that gives prepared replies, or raises prepared faults."""

    name, concurrency = "scripted", 2

    def __init__(self, *replies):
        self.replies, self.requests = list(replies), []

    async def call(self, request):
        self.requests.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def close(self):
        pass


def ask(model, tmp_path, check=None, **budget):
    async def run():
        spending = Spending(tmp_path / "log.jsonl", {"scripted": Price(prompt=1e6, completion=2e6)}, **budget)
        try:
            return await Asker(model, spending, POLICY).ask(REQUEST, "item", EventCaption, check)
        finally:
            spending.close()

    return asyncio.run(run())


GOOD = Reply('{"caption": "It begins."}', prompt_tokens=3, completion_tokens=2)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.text,
        "```json\n" + GOOD.text + "\n```",
        "Here it is: " + GOOD.text + " Bye.",
        '{"Caption": "It begins."}',
        '{"caption": "It begins.", "mood": "good"}',
    ],
)
def test_answers_in_other_clothes_are_taken(text, tmp_path):
    assert ask(Scripted(Reply(text)), tmp_path).caption == "It begins."


@pytest.mark.parametrize(
    "bad", [Reply("no JSON"), Reply('{"caption": ""}'), Reply("[]"), Reply("{}"), Reply('{"caption": {"a": 1}}')]
)
def test_an_unusable_answer_is_asked_for_again_with_the_fault_named(bad, tmp_path):
    model = Scripted(bad, GOOD)
    assert ask(model, tmp_path).caption == "It begins."
    first, second = model.requests
    assert second.parts[: len(first.parts)] == first.parts  # the cached beginning stays
    assert "could not be used" in second.parts[-1]
    assert second.seed != first.seed


def test_a_cut_answer_gets_more_tokens(tmp_path):
    model = Scripted(Reply('{"capt', finish="length"), Reply("  \n ", finish="length"), GOOD)
    ask(model, tmp_path)
    assert [request.max_tokens for request in model.requests] == [100, 200, 400]


def test_answers_that_stay_unusable_are_given_up(tmp_path):
    with pytest.raises(ItemFault, match="not JSON"):
        ask(Scripted(*[Reply("x")] * 3), tmp_path)


def test_a_check_names_what_is_wrong(tmp_path):
    def check(answer):
        if len(answer.caption) < 20:
            raise ValueError("it is too short")

    model = Scripted(GOOD, Reply(json.dumps({"caption": "It begins with rain."})))
    ask(model, tmp_path, check)
    assert "it is too short" in model.requests[1].parts[-1]


@pytest.mark.parametrize("reply", [Reply("", refusal="No."), Reply("", finish="filter")])
def test_refusals_are_not_asked_again(reply, tmp_path):
    model = Scripted(reply)
    with pytest.raises(ItemFault):
        ask(model, tmp_path)
    assert not model.replies


def test_pauses_follow_the_server(tmp_path, monkeypatch):
    slept = []
    real = asyncio.sleep

    async def sleep(seconds):
        slept.append(seconds)
        await real(0)

    monkeypatch.setattr("hourllava.synthesis.models.asking.asyncio.sleep", sleep)
    ask(Scripted(CallFault("rate limit", "", retry_after_seconds=0.04), CallFault("timeout", ""), GOOD), tmp_path)
    assert slept[0] == 0.04
    assert 0 < slept[1] <= 0.05


def test_a_server_that_is_down_ends_the_run(tmp_path):
    async def run():
        spending = Spending(tmp_path / "log.jsonl")
        asker = Asker(Scripted(*[CallFault("no connection", "refused")] * 18), spending, POLICY)
        for _ in range(2):
            with pytest.raises(ItemFault) as found:
                await asker.ask(REQUEST, "item", EventCaption)
            assert found.value.is_transport
        with pytest.raises(StopRun, match="run the same command again"):
            await asker.ask(REQUEST, "item", EventCaption)
        spending.close()

    asyncio.run(run())


def test_a_budget_holds_over_runs(tmp_path):
    ask(Scripted(GOOD), tmp_path, max_tokens=6)
    ask(Scripted(GOOD), tmp_path, max_tokens=6)
    with pytest.raises(StopRun, match="budget of 6 tokens"):
        ask(Scripted(GOOD), tmp_path, max_tokens=6)
    with pytest.raises(StopRun, match=r"budget of 14 is spent \(14.00\)"):
        ask(Scripted(GOOD), tmp_path, max_cost=14)


def test_a_half_written_log_is_read(tmp_path):
    ask(Scripted(GOOD), tmp_path)
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'\x00\x00\n{"item": "x", "ki')
    spending = Spending(tmp_path / "log.jsonl")
    assert spending.tokens == 5
    spending.close()


@pytest.mark.parametrize("fault", [*TRANSPORT, *CONTENT])
def test_every_fault_of_a_server_has_its_kind(fault, tmp_path):
    """Asked once, against a server that always fails this way."""
    expected = {
        "429": "rate limit", "500": "server error 500", "503": "server error 503", "drop": "no connection",
        "html": "no chat reply", "empty object": "no chat reply", "no choices": "no chat reply", "slow": "timeout",
        "not json": "not JSON", "missing key": "other form", "cut": "cut at the token limit",
        "blanks": "cut at the token limit", "refusal": "refusal", "filter": "content filter",
        "schema ignored": "not JSON", "fenced": None, "prose": None, "other keys": None, "extra key": None,
        "wrong counts": None,
    }  # fmt: skip

    async def run(address):
        model = ServerModel(MODEL, [address], ServerOptions(timeout_seconds=0.3))
        spending = Spending(tmp_path / "log.jsonl")
        policy = RetryPolicy(transport=0, content=0)
        try:
            return await Asker(model, spending, policy).ask(REQUEST, "item", EventCaption)
        finally:
            await model.close()
            spending.close()

    with ModelServer([], faults={fault: 1.0}) as server:
        if expected[fault] is None:
            assert asyncio.run(run(server.address)).caption
        else:
            with pytest.raises(ItemFault) as found:
                asyncio.run(run(server.address))
            assert found.value.kind == expected[fault]
            assert found.value.is_transport == (fault in TRANSPORT)


def test_the_schema_demands_every_key_and_no_other():
    schema = json_schema(ChoiceQuestions)
    question = schema["$defs"]["ChoiceQuestion"]
    assert set(question["required"]) == set(question["properties"])
    assert question["additionalProperties"] is schema["additionalProperties"] is False
    options = question["properties"]["wrong_options"]
    assert (options["minItems"], options["maxItems"]) == (3, 3)


@pytest.mark.parametrize(("count", "fps"), [(1, 1), (2, 1), (30, 1), (30, 0.5), (30, 2), (31, 29.97)])
def test_frames_in_a_video_keep_their_times_and_pictures(count, fps):
    from hourllava.synthesis.models.clip_file import clip_as_mp4

    pictures = []
    for k in range(count):
        buffer = io.BytesIO()
        Image.fromarray(np.full((32, 48, 3), 8 * k, np.uint8)).save(buffer, "JPEG")
        pictures.append(Picture(buffer.getvalue(), 20.0 + k / fps, 48, 32))
    found = frames_of(clip_as_mp4(pictures), 20.0)
    assert [picture.seconds for picture in found] == pytest.approx([20 + k / fps for k in range(count)], abs=0.002)
    for k, picture in enumerate(found):
        assert abs(float(np.asarray(Image.open(io.BytesIO(picture.jpeg))).mean()) - 8 * k) < 6


def test_calls_at_a_time_stay_at_the_limit(tmp_path):
    class Slow(Scripted):
        at_work = most = 0

        async def call(self, request):
            self.at_work += 1
            self.most = max(self.most, self.at_work)
            for _ in range(5):
                await asyncio.sleep(0)
            self.at_work -= 1
            return GOOD

    async def run():
        spending = Spending(tmp_path / "log.jsonl")
        asker = Asker(model, spending, POLICY)
        await asyncio.gather(*(asker.ask(REQUEST, f"item {k}", EventCaption) for k in range(20)))
        spending.close()

    model = Slow()
    asyncio.run(run())
    assert model.most == model.concurrency


def test_requests_go_to_the_server_with_least_to_do():
    model = ServerModel(MODEL, ["http://a/v1", "http://b/v1"], ServerOptions(concurrency=5))
    assert model.concurrency == 10
    asyncio.run(model.close())


@pytest.mark.parametrize("spec", ["nonsense", "@http://x", "model@", ""])
def test_a_model_that_is_none_is_refused(spec):
    with pytest.raises(ConfigError, match="is no model"):
        open_model(spec, {}, [])


def test_settings_of_the_server_are_checked():
    with pytest.raises(ConfigError, match=r"server\.speed"):
        open_model("m@http://x/v1", {"speed": 1}, [])


def test_world_knows_its_own_videos_only(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(ConfigError, match="no script of MarathonWorld"):
        open_model("world", {}, [tmp_path / "a.mp4"])
