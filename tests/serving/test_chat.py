"""Chat completions through the real SDK, against a real server."""

import base64
import json
import re
import threading
import time

import httpx2
import openai
import pytest
import torch

from hourllava.errors import InputError
from hourllava.model.prompt import SYSTEM_PROMPT
from serving.conftest import sdk
from serving.scripted_engine import EVIDENCE, Script
from serving.waiting import until

MODEL = "hourllava-scripted"
SRT = "1\n00:00:01,000 --> 00:00:02,500\nHello\n"


def ask(client, content, **options):
    return client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}], **options)


def with_file(file_id, text="What happens?"):
    return [{"type": "file", "file": {"file_id": file_id}}, {"type": "text", "text": text}]


def user(part):
    return {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "x"}]}]}


def video(url):
    return {"type": "video_url", "video_url": {"url": url}}


@pytest.fixture(scope="module")
def client(server):
    with sdk(server) as client:
        yield client


@pytest.fixture(scope="module")
def file_id(client, clip):
    file = client.files.create(file=clip, purpose="user_data")
    assert client.files.wait_for_processing(file.id, poll_interval=0.05).status == "processed"
    return file.id


def test_models(client):
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "hourllava"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-9' here"):
        client.models.retrieve("gpt-9")


def test_an_answer_cites_the_moments_it_looked_at(server, client, file_id):
    answer = ask(client, with_file(file_id), max_tokens=7, temperature=0.5, top_p=0.9, seed=3, stop=["x"], user="me")
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("A red car.", "stop")
    first, second = choice.message.annotations
    assert first.url_citation.url == f"{server.url}/v1/files/{file_id}/content#t=420,440"
    assert first.url_citation.title == "0:07:00-0:07:20"
    assert (first.url_citation.start_index, first.url_citation.end_index) == (0, len("A red car."))
    assert second.url_citation.url.endswith("#t=5,9.5")
    extras = choice.message.model_extra["hourllava"]
    assert extras["evidence"] == [span.__dict__ for span in EVIDENCE]
    assert extras["memory_id"].startswith("mem-")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (100, 3, 103)
    details = answer.usage.prompt_tokens_details
    assert (details.cached_tokens, details.text_tokens, details.video_tokens) == (60, 20, 80)
    video, question = server.engine.asked[-1]
    assert (question.text, question.max_new_tokens, question.temperature) == ("What happens?", 7, 0.5)
    assert (question.top_p, question.seed, list(question.stop)) == (0.9, 3, ["x"])
    assert video.end_seconds is None


def test_a_stream_gives_the_same(client, file_id):
    whole = ask(client, with_file(file_id))
    chunks = list(ask(client, with_file(file_id), stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
    last = chunks[-2].choices[0]
    assert last.finish_reason == "stop"
    expected = [each.model_dump() for each in whole.choices[0].message.annotations]
    assert last.delta.model_extra["annotations"] == expected
    assert last.delta.model_extra["hourllava"]["evidence"] == [span.__dict__ for span in EVIDENCE]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.id == chunks[0].id for chunk in chunks)


def test_without_being_asked_no_chunk_lacks_choices(client, file_id):
    chunks = list(ask(client, with_file(file_id), stream=True))
    assert all(chunk.choices for chunk in chunks)
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)


def test_the_helper_for_streams_reads_it_too(client, file_id):
    with client.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": with_file(file_id)}]
    ) as stream:
        stream.until_done()
        assert stream.get_final_completion().choices[0].message.content == "A red car."


def test_a_conversation_becomes_question_and_history(server, client, file_id):
    answer = ask(client, with_file(file_id, "Who comes in?"))
    messages = [
        {"role": "system", "content": " "},
        {"role": "user", "content": with_file(file_id, "Who comes in?")},
        answer.choices[0].message.model_dump(),  # as clients send answers back, evidence and all
        {"role": "user", "content": "And"},
        {"role": "user", "content": [{"type": "text", "text": "then?"}]},
    ]
    client.chat.completions.create(model=MODEL, messages=messages)
    video, question = server.engine.asked[-1]
    assert (question.text, list(question.history)) == ("And\nthen?", [("Who comes in?", "A red car.")])
    assert video is not None


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_text_stands_before_the_next_message_of_the_user(server, client, role):
    def asked(*messages):
        client.chat.completions.create(
            model=MODEL, messages=[{"role": speaker, "content": text} for speaker, text in messages]
        )
        question = server.engine.asked[-1][1]
        return question.text, list(question.history)

    assert asked((role, "Be kind."), (role, "Be short."), ("user", "x")) == ("Be kind.\n\nBe short.\n\nx", [])
    assert asked((role, "Be kind."), ("user", "x"), ("assistant", "y"), (role, "Be short."), ("user", "z")) == (
        "Be short.\n\nz",
        [("Be kind.\n\nx", "y")],
    )
    assert asked((role, SYSTEM_PROMPT), (role, " "), ("user", "x")) == ("x", [])  # the models' own


def test_a_question_without_a_video_asks_the_language_model(server, client):
    answer = ask(client, "Hello?")
    assert server.engine.asked[-1][0] is None
    assert answer.choices[0].message.annotations == []
    assert answer.choices[0].message.model_extra["hourllava"]["memory_id"] is None


def test_extras_choose_part_rate_and_subtitles(server, client, file_id, clip):
    subtitles = server.http.put("/v1/hourllava/videos", params={"filename": "a.srt"}, content=SRT).json()["id"]
    for given in (subtitles, SRT):
        extras = {"start_seconds": 2, "end_seconds": 8.0, "fps": 2.0, "subtitles": given, "subtitle_tokens": 99}
        answer = ask(client, with_file(file_id), extra_body={"hourllava": extras})
        video, question = server.engine.asked[-1]
        assert (video.start_seconds, video.end_seconds, video.fps) == (2, 8.0, 2.0)
        assert [cue.text for cue in question.subtitles] == ["Hello"]
        assert question.subtitle_tokens == 99
    memory_id = answer.choices[0].message.model_extra["hourllava"]["memory_id"]
    ask(client, "Again?", extra_body={"hourllava": {"memory_id": memory_id}})
    assert server.engine.asked[-1][0] == video


def test_data_addresses_are_taken_once(server, client, clip):
    address = f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes() + b'more').decode()}"
    before = len(server.http.get("/v1/files").json()["data"])
    for part in (
        {"type": "video_url", "video_url": {"url": address, "uuid": "x"}},
        {"type": "file", "file": {"filename": "x.mp4", "file_data": address}},
    ):
        answer = ask(client, [part, {"type": "text", "text": "What?"}])
        assert "/v1/files/file-" in answer.choices[0].message.annotations[0].url_citation.url
    assert len(server.http.get("/v1/files").json()["data"]) == before + 1


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_parameter"),
        ({"top_k": 3}, "top_k", "unsupported_parameter"),
        ({"stream": 0}, "stream", "invalid_request"),
        ({"temperature": -1}, "temperature", "invalid_request"),
        ({"max_tokens": 10**6}, "max_tokens", "invalid_request"),
        ({"hourllava": {"fps": 1000}}, "hourllava", "invalid_request"),
        ({"hourllava": {"speed": 2}}, "hourllava.speed", "unsupported_parameter"),
        ({"messages": []}, "messages", "invalid_request"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages", "invalid_request"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages.0", "invalid_request"),
        (
            {"messages": [{"role": "tool", "content": "x"}, {"role": "user", "content": "x"}]},
            "messages.0.role=tool",
            "unsupported_parameter",
        ),
        ({"messages": [{"role": "system", "content": "Be kind."}]}, "messages.0", "invalid_request"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "Be kind."}]},
            "messages.1",
            "invalid_request",
        ),
        (
            {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": " "}]},
            "messages",
            "invalid_request",
        ),
        (user({"type": "image_url"}), "messages.0.content.0.type=image_url", "unsupported_parameter"),
        (user({"type": "file", "file": {"file_id": "file-x"}}), "messages.0.content.0.file.file_id", "not_found"),
        (user(video("file:///etc/passwd")), "messages.0.content.0.video_url.url", "invalid_request"),
        (user(video("http://a.example/x.mp4")), "messages.0.content.0.video_url.url", "url_refused"),
        ({"model": "other"}, "model", "model_not_found"),
    ],
)  # fmt: skip
def test_what_is_not_possible_is_refused_by_name(server, file_id, body, param, code):
    asked = len(server.engine.asked)
    whole = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], **body}
    if "fps" in whole.get("hourllava", {}):
        whole["messages"] = [{"role": "user", "content": with_file(file_id)}]
    for stream in (False, True):
        answer = server.http.post("/v1/chat/completions", json={"stream": stream, **whole})
        error = answer.json()["error"]
        assert answer.status_code in (400, 404), answer.text
        assert error["code"] == code, error
        assert error["param"] == param or param == "hourllava", error
    assert len(server.engine.asked) == asked


def test_two_videos_in_a_conversation_are_refused(client, file_id, clip):
    other = client.files.create(file=clip, purpose="user_data").id
    with pytest.raises(openai.BadRequestError, match="about one video"):
        ask(client, with_file(file_id) + with_file(other))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"model": NaN}', b"[" * 100_000, b'{"model": "\\ud800"}'],
)
def test_broken_bodies_get_an_error_of_the_usual_shape(server, body):
    answer = server.http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_an_unwatched_video_is_watched_first_and_told_of(serve, clip):
    server = serve(script=Script(frame_seconds=0.005))
    with sdk(server) as client:
        file = client.files.create(file=clip, purpose="user_data")
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": with_file(file.id)}]}
        text = server.http.post("/v1/chat/completions", json=body).text
        assert re.search(r"^: watching \d+/30$", text, re.MULTILINE)
        assert text.endswith("data: [DONE]\n\n")
        file = client.files.create(file=clip, purpose="user_data")
        extras = {"progress": True, "fps": 2.0}
        chunks = list(ask(client, with_file(file.id), stream=True, extra_body={"hourllava": extras}))
        told = [chunk.model_extra["hourllava"] for chunk in chunks if chunk.model_extra.get("hourllava")]
        states = [each["watching"]["state"] for each in told]
        assert states[-1] == "ready"
        assert "watching" in states
        assert all(chunk.choices for chunk in chunks)


def test_a_full_queue_is_429_and_the_sdk_tries_again(serve):
    server = serve(script=Script(busy_seconds=0.2))
    with sdk(server, max_retries=0) as client:
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as caught:
                ask(client, "x", stream=stream)
            assert caught.value.code == "queue_full"
            assert caught.value.response.headers["retry-after"] == "1"
    with sdk(server, max_retries=1) as client:
        timer = threading.Timer(0.3, lambda: setattr(server.engine.script, "busy_seconds", None))
        timer.start()
        start = time.monotonic()
        assert ask(client, "x").choices[0].message.content == "A red car."
        assert time.monotonic() - start >= 1.0  # as Retry-After says
        timer.join()


def test_a_client_has_so_many_questions_at_once(serve):
    server = serve(max_client_questions=1, script=Script(piece_seconds=0.2))
    with sdk(server, max_retries=0) as client:
        stream = ask(client, "x", stream=True)
        next(stream)
        with pytest.raises(openai.RateLimitError, match="1 of your questions"):
            ask(client, "y")
        list(stream)
        assert ask(client, "y").choices[0].finish_reason == "stop"


@pytest.mark.parametrize("after", [0, 2])
def test_an_error_amid_a_stream_is_an_event(serve, after):
    server = serve(script=Script(fails=InputError("the prompt is too long"), after_pieces=after))
    with sdk(server) as client:
        if after == 0:
            with pytest.raises(openai.BadRequestError, match="too long"):
                ask(client, "x", stream=True)
        else:
            got: list[str] = []
            stream = ask(client, "x", stream=True)
            with pytest.raises(openai.APIError, match="too long"):
                got.extend(chunk.choices[0].delta.content for chunk in stream)
            assert got == ["", "A red", " car"]
        with pytest.raises(openai.BadRequestError, match="too long"):
            ask(client, "x")


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (torch.OutOfMemoryError("CUDA"), openai.InternalServerError, "out_of_memory"),
        (ZeroDivisionError("a secret"), openai.InternalServerError, "internal"),
    ],
)
def test_faults_of_the_server_do_not_tell_secrets(serve, error, kind, code):
    server = serve(script=Script(fails=error))
    with sdk(server, max_retries=0) as client:
        for stream in (False, True):
            with pytest.raises(kind) as caught:
                ask(client, "x", stream=stream)
            assert caught.value.code == code
            assert "secret" not in str(caught.value)
    server.engine.script.fails = None
    with sdk(server) as client:
        assert ask(client, "x").choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_question(serve, stream):
    server = serve(script=Script(["x"] * 1000, piece_seconds=0.02))
    body = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": "x"}]}
    if stream:
        with server.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            next(answer.iter_lines())
    else:
        with pytest.raises(httpx2.ReadTimeout):
            server.http.post("/v1/chat/completions", json=body, timeout=0.2)
    until(lambda: server.engine.ended)
    assert server.engine.ended[0] < 200
    until(lambda: not server.context.questions)


def test_the_sdk_closes_a_stream(serve):
    server = serve(script=Script(["x"] * 1000, piece_seconds=0.02))
    with sdk(server) as client:
        stream = ask(client, "x", stream=True)
        next(stream)
        stream.close()
        until(lambda: server.engine.ended)


def test_silence_is_filled_with_pings(serve, monkeypatch):
    monkeypatch.setattr("hourllava.serving.events.FIRST_EVENT_SECONDS", 0.1)
    server = serve(ping_seconds=0.05, script=Script(["x"], piece_seconds=0.4))
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "x"}]}
    text = server.http.post("/v1/chat/completions", json=body).text
    assert text.startswith(": ping\n\n")
    assert json.loads(text.split("data: ")[1])["choices"][0]["delta"]["role"] == "assistant"
    with sdk(server) as client:
        assert [chunk.choices[0].delta.content for chunk in ask(client, "x", stream=True)][:2] == ["", "x"]


def test_the_end_of_the_server_is_told(serve):
    server = serve(drain_seconds=0.2, script=Script(["x"] * 1000, piece_seconds=0.02))
    with sdk(server, max_retries=0) as client:
        stream = ask(client, "x", stream=True)
        next(stream)
        server.stop()
        with pytest.raises(openai.APIError, match="shutting down") as caught:
            for _ in stream:
                pass
        assert caught.value.code == "shutting_down"


def test_a_short_answer_is_still_written_to_its_end(serve):
    server = serve(drain_seconds=5, script=Script(["x"] * 20, piece_seconds=0.02))
    with sdk(server, max_retries=0) as client:
        stream = ask(client, "x", stream=True)
        next(stream)
        server.stop()
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "x" * 20
