"""Responses through the real SDK: both ways, in the background, continued, cancelled, forgotten."""

import openai
import pytest

from hourllava.errors import InputError
from serving.conftest import sdk
from serving.scripted_engine import EVIDENCE, Script
from serving.waiting import until

MODEL = "hourllava-scripted"


def with_file(file_id, text="What happens?"):
    content = [{"type": "input_file", "file_id": file_id}, {"type": "input_text", "text": text}]
    return [{"role": "user", "content": content}]


@pytest.fixture(scope="module")
def client(server):
    with sdk(server) as client:
        yield client


@pytest.fixture(scope="module")
def file_id(client, clip):
    return client.files.create(file=clip, purpose="user_data").id


def test_a_response_is_whole(server, client, file_id):
    response = client.responses.create(
        model=MODEL, input=with_file(file_id), max_output_tokens=9, temperature=0.5, metadata={"a": "b"}
    )
    assert (response.status, response.output_text) == ("completed", "A red car.")
    first, _ = response.output[0].content[0].annotations
    assert first.url == f"{server.url}/v1/files/{file_id}/content#t=420,440"
    assert (first.title, first.start_index, first.end_index) == ("0:07:00-0:07:20", 0, 10)
    assert response.model_extra["hourllava"]["evidence"] == [span.__dict__ for span in EVIDENCE]
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (100, 3, 103)
    assert response.usage.input_tokens_details.video_tokens == 80
    assert response.metadata == {"a": "b"}
    assert server.engine.asked[-1][1].max_new_tokens == 9
    assert client.responses.retrieve(response.id).output_text == "A red car."


ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    *["response.output_text.delta"] * 3,
    *["response.output_text.annotation.added"] * 2,
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


def test_events_come_in_order(client, file_id):
    client.files.wait_for_processing(file_id, poll_interval=0.02)
    events = list(client.responses.create(model=MODEL, input=with_file(file_id), stream=True))
    assert [event.type for event in events] == ORDER
    assert [event.sequence_number for event in events] == list(range(len(ORDER)))
    assert "".join(event.delta for event in events if event.type.endswith("delta")) == "A red car."
    whole = client.responses.retrieve(events[0].response.id)
    assert events[-1].response.model_dump() == whole.model_dump()


def test_instructions_stand_before_the_question(server, client):
    first = client.responses.create(model=MODEL, instructions="Be kind.", input="x")
    assert first.instructions == "Be kind."
    assert server.engine.asked[-1][1].text == "Be kind.\n\nx"
    client.responses.create(model=MODEL, instructions="Be short.", input="y", previous_response_id=first.id)
    question = server.engine.asked[-1][1]
    assert (question.text, list(question.history)) == ("Be short.\n\ny", [("Be kind.\n\nx", "A red car.")])


def test_the_helper_for_streams_reads_them(client, file_id):
    with client.responses.stream(model=MODEL, input=with_file(file_id)) as stream:
        response = stream.get_final_response()
    assert response.output_text == "A red car."
    assert len(response.output[0].content[0].annotations) == 2


def test_the_watching_is_told_if_wanted(serve, clip):
    server = serve(script=Script(frame_seconds=0.002))
    with sdk(server) as client:
        file = client.files.create(file=clip, purpose="user_data")
        extras = {"fps": 2.0, "progress": True}
        events = list(
            client.responses.create(
                model=MODEL, input=with_file(file.id), stream=True, extra_body={"hourllava": extras}
            )
        )
    told = [event.watching["state"] for event in events if event.type == "hourllava.watch.progress"]
    assert told[-1] == "ready"
    assert events[-1].type == "response.completed"


def test_in_the_background(serve, clip):
    server = serve(script=Script(piece_seconds=0.1))
    with sdk(server) as client:
        file = client.files.create(file=clip, purpose="user_data")
        response = client.responses.create(model=MODEL, input=with_file(file.id), background=True)
        assert (response.status, response.background) == ("queued", True)
        until(lambda: client.responses.retrieve(response.id).status == "in_progress")
        late = list(client.responses.retrieve(response.id, stream=True, starting_after=2))
        assert late[0].sequence_number == 3
        assert late[-1].type == "response.completed"
        done = client.responses.retrieve(response.id)
        assert (done.status, done.output_text) == ("completed", "A red car.")
        assert client.responses.cancel(response.id).status == "completed"  # it has ended


def test_the_background_does_not_need_its_stream(serve):
    server = serve(script=Script(piece_seconds=0.05))
    with sdk(server) as client:
        stream = client.responses.create(model=MODEL, input="x", background=True, stream=True)
        first = next(iter(stream))
        assert first.response.status == "queued"
        stream.close()
        until(lambda: client.responses.retrieve(first.response.id).status == "completed")


def test_a_background_response_is_cancelled(serve):
    server = serve(script=Script(["x"] * 1000, piece_seconds=0.02))
    with sdk(server) as client:
        response = client.responses.create(model=MODEL, input="x", background=True)
        until(lambda: client.responses.retrieve(response.id).status == "in_progress")
        assert client.responses.cancel(response.id).status == "cancelled"
        until(lambda: server.engine.ended)
        assert client.responses.retrieve(response.id).status == "cancelled"
        assert server.context.questions == {}
        running = client.responses.create(model=MODEL, input="x", background=True)
        client.responses.delete(running.id)
        until(lambda: len(server.engine.ended) == 2)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(running.id)


def test_a_conversation_goes_on(server, client, file_id):
    first = client.responses.create(model=MODEL, input=with_file(file_id, "Who comes in?"))
    second = client.responses.create(model=MODEL, input="And then?", previous_response_id=first.id)
    video, question = server.engine.asked[-1]
    assert (question.text, list(question.history)) == ("And then?", [("Who comes in?", "A red car.")])
    assert video is not None
    assert second.previous_response_id == first.id
    items = [*with_file(file_id, "Who?"), first.output[0].model_dump(), {"role": "user", "content": "And?"}]
    client.responses.create(model=MODEL, input=items)
    assert list(server.engine.asked[-1][1].history) == [("Who?", "A red car.")]


def test_an_answer_that_is_cut_is_incomplete(serve):
    server = serve(script=Script(finish_reason="length"))
    with sdk(server) as client:
        response = client.responses.create(model=MODEL, input="x")
        assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        events = list(client.responses.create(model=MODEL, input="x", stream=True))
        assert events[-1].type == "response.incomplete"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_response(serve, stream):
    server = serve(script=Script(["x"] * 1000, piece_seconds=0.02))
    with sdk(server, max_retries=0, timeout=0.3) as client:
        if stream:
            events = client.responses.create(model=MODEL, input="x", stream=True)
            next(iter(events))
            events.close()
        else:
            with pytest.raises(openai.APITimeoutError):
                client.responses.create(model=MODEL, input="x")
    until(lambda: server.engine.ended)
    assert server.engine.ended[0] < 200


@pytest.mark.parametrize("after", [0, 2])
def test_failures(serve, after):
    server = serve(script=Script(fails=InputError("too long"), after_pieces=after))
    with sdk(server, max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match="too long"):
            client.responses.create(model=MODEL, input="x")
        if after:
            events = list(client.responses.create(model=MODEL, input="x", stream=True))
            assert events[-1].type == "response.failed"
            assert events[-1].response.error.message == "too long"
        else:
            with pytest.raises(openai.BadRequestError, match="too long"):
                client.responses.create(model=MODEL, input="x", stream=True)
        response = client.responses.create(model=MODEL, input="x", background=True)
        failed = until(lambda: (found := client.responses.retrieve(response.id)).status == "failed" and found)
        assert failed.error.message == "too long"


def test_a_full_queue(serve):
    server = serve(script=Script(busy_seconds=7))
    with sdk(server, max_retries=0) as client:
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as caught:
                client.responses.create(model=MODEL, input="x", stream=stream)
            assert caught.value.response.headers["retry-after"] == "7"


def test_so_many_are_kept(serve):
    server = serve(max_responses=2, script=Script(["x"] * 1000, piece_seconds=0.02))
    with sdk(server, max_retries=0) as client:
        running = [client.responses.create(model=MODEL, input="x", background=True).id for _ in range(2)]
        with pytest.raises(openai.RateLimitError):
            client.responses.create(model=MODEL, input="x", background=True)
        client.responses.cancel(running[1])
        client.responses.create(model=MODEL, input="x", background=True)
        assert client.responses.retrieve(running[0]).status in ("queued", "in_progress")
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(running[1])
        not_stored = serve_whole(client, server)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(not_stored.id)


def serve_whole(client, server):
    """A short response that is not stored."""
    server.engine.script.pieces = ["x"]
    for run in list(server.context.responses._runs):
        client.responses.delete(run)
    return client.responses.create(model=MODEL, input="x", store=False)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"text": {"format": {"type": "json_object"}}}, "text"),
        ({"include": ["x"]}, "include"),
        ({"conversation": "c"}, "conversation"),
        ({"speed": 1}, "speed"),
        ({"background": True, "store": False}, "store"),
        ({"previous_response_id": "resp_x"}, "previous_response_id"),
        ({"input": []}, "input"),
        ({"input": [{"type": "reasoning"}]}, "input.0.type=reasoning"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0.type=input_image"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input.0.content.0"),
        ({"input": "x", "max_output_tokens": 10**6}, "max_output_tokens"),
    ],
)
def test_what_is_not_possible_is_refused_by_name(server, change, param):
    answer = server.http.post("/v1/responses", json={"model": MODEL, "input": "x", **change})
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["param"].startswith(param)
