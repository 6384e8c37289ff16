"""The tools of an agent, through the real MCP client, in this process and over HTTP."""

import asyncio
import base64
import contextlib
import io

import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from PIL import Image

from hourllava.errors import EngineBusy
from hourllava.serving.app import create_app
from hourllava.serving.local import EngineSettings, LocalEngine
from hourllava.serving.mcp_server import INSTRUCTIONS, create_mcp, mcp_routes
from hourllava.serving.settings import ServeSettings
from hourllava.serving.store import Store
from serving.agents import CUES, TOOLS, called, refused
from serving.live import Live
from serving.looping import in_loop, until
from serving.scripted import ScriptedModel

MOMENT = {"start": "0:00:01", "end": "0:00:03", "start_seconds": 1.0, "end_seconds": 3.0, "weight": 0.5}


@pytest.fixture
def model():
    return ScriptedModel(num_frames=12)


@pytest.fixture
def context(tmp_path, media, model):
    engine = LocalEngine(model, tmp_path / "memories", EngineSettings(max_waiting_questions=4))
    settings = ServeSettings(media_root=media, max_question_characters=100, max_subtitle_bytes=1000)
    return create_app(engine, Store(tmp_path / "store"), settings).state.context


@contextlib.asynccontextmanager
async def connected(context, **options):
    async def get_context():
        return context

    async with Client(create_mcp(get_context, **options)) as client:
        try:
            yield client
        finally:
            await context.watching.close()
            await context.engine.close()


@in_loop
async def test_tools_say_what_they_do(context):
    async with connected(context) as client:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == TOOLS
        for tool in tools:
            assert tool.description
            assert tool.title
            assert tool.annotations.open_world_hint is False
            assert tool.annotations.read_only_hint is (tool.name != "watch_video")
            assert (tool.output_schema is None) is (tool.name == "get_frames")
            assert "call" not in tool.input_schema["properties"]
        assert client.instructions == INSTRUCTIONS
        assert "Never follow" in INSTRUCTIONS


@in_loop
async def test_a_video_is_found_watched_and_asked(context):
    progress = []

    async def note(done, total, message):
        progress.append((done, total, message))

    async with connected(context) as client:
        assert await called(client, "list_videos") == {
            "videos": [{"path": "talks/lecture.mp4", "megabytes": 0.0}],
            "note": "1 files.",
        }
        assert (await called(client, "list_videos", contains="LECT"))["note"] == "1 files."
        assert (await called(client, "list_videos", contains="x"))["videos"] == []
        result = await client.call_tool("watch_video", {"video": "talks/lecture.mp4"}, progress_callback=note)
        state = result.structured_content
        assert (state["state"], state["name"], state["duration"]) == ("ready", "lecture.mp4", "0:00:12")
        assert progress[-1][:2] == (12.0, 12.0)
        memory_id = state["memory_id"]
        asked = await called(client, "ask_video", memory_id=memory_id, questions=["What?", "Where?"])
        assert [answer["question"] for answer in asked["answers"]] == ["What?", "Where?"]
        assert asked["answers"][0]["answer"] == "A lamp and a cat."
        assert asked["answers"][0]["moments"] == [MOMENT]
        assert asked["answers"][0]["is_cut"] is False
        choice = await called(
            client, "choose_answer", memory_id=memory_id, question="What?", options=["a lamp", "a cat"]
        )
        assert (choice["option"], choice["letter"], choice["moments"]) == ("a lamp", "A", [MOMENT])
        found = await called(client, "find_moments", memory_id=memory_id, what="a lamp", limit=1)
        assert found == {"moments": [MOMENT]}
        listed = await called(client, "list_memories")
        assert [memory["memory_id"] for memory in listed["memories"]] == [memory_id]
        described = await called(client, "describe_video", memory_id=memory_id)
        assert described["subtitles"] == ["talks/lecture.srt"]
        assert described["gaps"] == ["0:00:09-0:00:10"]
        again = await called(client, "watch_video", video="talks/lecture.mp4")
        assert (again["memory_id"], again["state"]) == (memory_id, "ready")


@in_loop
async def test_frames_are_small_pictures(context):
    async with connected(context) as client:
        memory_id = (await called(client, "watch_video", video="talks/lecture.mp4"))["memory_id"]
        result = await client.call_tool("get_frames", {"memory_id": memory_id, "at_seconds": [0, 7.5, 999]})
        texts, pictures = result.content[::2], result.content[1::2]
        assert [text.text for text in texts][:2] == [
            "lecture.mp4 at 0:00:00 (0 s):",
            "lecture.mp4 at 0:00:07 (7.5 s):",
        ]
        for picture in pictures:
            assert picture.mime_type == "image/jpeg"
            image = Image.open(io.BytesIO(base64.b64decode(picture.data)))
            assert (image.format, image.width <= 320) == ("JPEG", True)
        assert await refused(client, "get_frames", memory_id=memory_id, at_seconds=[1.0] * 9)
        assert await refused(client, "get_frames", memory_id=memory_id, at_seconds=[1.0], width=5000)
        (context.settings.media_root / "talks" / "lecture.mp4").unlink()
        assert "is gone" in await refused(client, "get_frames", memory_id=memory_id, at_seconds=[1.0])
        assert await called(client, "ask_video", memory_id=memory_id, questions=["What?"])


@in_loop
async def test_parts_and_uploads_are_watched(context, clip):
    with context.store.new_upload("upload.mp4") as upload:
        upload.write(clip.read_bytes())
        record = upload.commit()
    async with connected(context) as client:
        state = await called(client, "watch_video", video=record.id, start_seconds=2, end_seconds=8, fps=2)
        described = await called(client, "describe_video", memory_id=state["memory_id"])
        assert (described["start_seconds"], described["end_seconds"], described["fps"]) == (2.0, 8.0, 2.0)
        assert (described["name"], described["subtitles"]) == ("upload.mp4", [])


@in_loop
async def test_a_long_watch_becomes_a_job(context, model):
    model.frames_may_pass.clear()
    async with connected(context, wait_seconds=0.05) as client:
        state = await called(client, "watch_video", video="talks/lecture.mp4")
        assert state["state"] in ("queued", "watching")
        assert "again" in state["note"]
        question = {"memory_id": state["memory_id"], "questions": ["What?"]}
        assert "is not ready. It is being watched" in await refused(client, "ask_video", **question)
        model.frames_may_pass.set()
        await until(lambda: is_ready(client, state["memory_id"]))
        assert (await called(client, "ask_video", **question))["answers"]


async def is_ready(client, memory_id):
    return (await called(client, "describe_video", memory_id=memory_id))["state"] == "ready"


@in_loop
async def test_subtitles_come_from_the_media_folder_or_an_upload(context, model, media, monkeypatch):
    seen = []
    stream = model.stream
    monkeypatch.setattr(model, "stream", lambda *a, **o: seen.append(o["subtitles"]) or stream(*a, **o))
    with context.store.new_upload("lecture.srt") as upload:
        upload.write(CUES.encode())
        record = upload.commit()
    (media / "large.srt").write_text("x" * 1001)
    (media / "bad.vtt").write_bytes(b"\xff\xfe\x00" * 20)
    async with connected(context) as client:
        memory_id = (await called(client, "watch_video", video="talks/lecture.mp4"))["memory_id"]
        for subtitles in ("talks/lecture.srt", record.id):
            await called(client, "ask_video", memory_id=memory_id, questions=["What?"], subtitles=subtitles)
        assert [cues[0].text for cues in seen] == ["Look at the lamp."] * 2
        for bad in ("large.srt", "bad.vtt", "talks/lecture.mp4", "../secret.srt", "missing.srt", "file-" + "0" * 32):
            message = await refused(client, "ask_video", memory_id=memory_id, questions=["What?"], subtitles=bad)
            assert str(media) not in message


@pytest.mark.parametrize("path", ["../secret.mp4", "/etc/passwd", "talks", "missing.mp4", "talks/lecture.srt", "a\0b"])
def test_nothing_outside_the_media_folder_is_watched(context, media, path):
    @in_loop
    async def outside():
        async with connected(context) as client:
            message = await refused(client, "watch_video", video=path)
            assert str(media.parent) not in message
            assert (await called(client, "list_memories"))["memories"] == []

    outside()


@in_loop
async def test_mistakes_are_told_in_words(context):
    async with connected(context) as client:
        memory_id = (await called(client, "watch_video", video="talks/lecture.mp4"))["memory_id"]
        for arguments, words in (
            ({"memory_id": "mem-1", "questions": ["What?"]}, "no memory"),
            ({"memory_id": memory_id, "questions": [" "]}, "asks nothing"),
            ({"memory_id": memory_id, "questions": ["x" * 101]}, "101 letters"),
            ({"memory_id": memory_id, "questions": []}, "questions"),
            ({"memory_id": memory_id, "questions": ["What?"] * 9}, "questions"),
            ({"memory_id": memory_id, "questions": ["What?"], "max_new_tokens": 0}, "max_new_tokens"),
        ):
            assert words in await refused(client, "ask_video", **arguments)
        assert "options" in await refused(client, "choose_answer", memory_id=memory_id, question="What?", options=["a"])
        assert "end" in await refused(client, "watch_video", video="talks/lecture.mp4", start_seconds=5, end_seconds=5)


@in_loop
async def test_faults_are_told_without_what_is_inside(context, model, media):
    async with connected(context) as client:
        memory_id = (await called(client, "watch_video", video="talks/lecture.mp4"))["memory_id"]
        model.ask_error = RuntimeError("secret")
        question = {"memory_id": memory_id, "questions": ["What?"]}
        assert "secret" not in await refused(client, "ask_video", **question)
        model.ask_error = EngineBusy("full", 7.0)
        assert "try again in 7 seconds" in await refused(client, "ask_video", **question)
        model.ask_error = None
        (media / "broken.mp4").write_bytes(b"\0" * 1000)
        message = await refused(client, "watch_video", video="broken.mp4")
        assert "broken.mp4" in message
        assert str(media) not in message


@in_loop
async def test_a_failed_question_ends_the_others(context, model):
    async with connected(context) as client:
        memory_id = (await called(client, "watch_video", video="talks/lecture.mp4"))["memory_id"]
        assert await refused(client, "ask_video", memory_id=memory_id, questions=["What?"] * 8)  # four may wait
        status = await context.engine.status()
        assert (status.questions_waiting, status.questions_running) == (0, 0)


@in_loop
async def test_a_client_that_gives_up_ends_its_question(context, model):
    async with connected(context) as client:
        memory_id = (await called(client, "watch_video", video="talks/lecture.mp4"))["memory_id"]
        model.tokens_may_pass.clear()
        asking = asyncio.create_task(client.call_tool("ask_video", {"memory_id": memory_id, "questions": ["What?"]}))
        await until(lambda: context.engine._num_running == 1)
        asking.cancel()
        await until(lambda: model.num_cancelled == 1)


# --------------------------------------------------------------------------------------------------------- transports


@pytest.fixture
def live(tmp_path, media, model):
    """A server with `/mcp` and two keys."""
    settings = ServeSettings(media_root=media, keys={"ann": "a" * 16, "bob": "b" * 16})
    engine = LocalEngine(model, tmp_path / "memories")
    running = LiveWithMcp(tmp_path / "store", engine, settings)
    yield running
    running.close()


class LiveWithMcp(Live):
    async def _serve(self):
        context = self.context

        async def get_context():
            return context

        if not any(getattr(route, "path", "") == "/mcp" for route in self.app.routes):
            server = create_mcp(get_context)
            self.app.router.routes += mcp_routes(server)
            async with server.session_manager.run():
                await super()._serve()
        else:
            await super()._serve()


@contextlib.asynccontextmanager
async def over_http(live, key):
    async with (
        create_mcp_http_client(headers={"Authorization": f"Bearer {key * 16}"}) as http,
        Client(streamable_http_client(f"{live.url}/mcp", http_client=http)) as client,
    ):
        yield client


def test_every_tool_works_over_http_and_memories_belong_to_keys(live):
    progress = []

    async def note(done, total, message):
        progress.append(done)

    @in_loop
    async def anns():
        async with over_http(live, "a") as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
            assert len((await called(client, "list_videos"))["videos"]) == 1
            result = await client.call_tool("watch_video", {"video": "talks/lecture.mp4"}, progress_callback=note)
            memory_id = result.structured_content["memory_id"]
            assert result.structured_content["state"] == "ready"
            assert progress[-1] == 12.0
            asked = await called(client, "ask_video", memory_id=memory_id, questions=["What?"])
            assert asked["answers"][0]["moments"] == [MOMENT]
            assert await called(client, "choose_answer", memory_id=memory_id, question="What?", options=["a", "b"])
            assert await called(client, "find_moments", memory_id=memory_id, what="a lamp")
            assert await called(client, "describe_video", memory_id=memory_id)
            assert not (await client.call_tool("get_frames", {"memory_id": memory_id, "at_seconds": [1]})).is_error
            assert len((await called(client, "list_memories"))["memories"]) == 1
        async with over_http(live, "b") as client:
            assert (await called(client, "list_memories"))["memories"] == []
            assert "no memory" in await refused(client, "describe_video", memory_id=memory_id)

    anns()


def test_without_a_key_there_is_no_tool(live):
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert live.http.post("/mcp", json={}, headers=headers).status_code == 401


def test_strange_hosts_and_origins_are_refused(live):
    key = {"Authorization": f"Bearer {'a' * 16}"}
    assert live.http.post("/mcp", json={}, headers={**key, "Host": "evil.example"}).status_code == 421
    assert live.http.post("/mcp", json={}, headers={**key, "Origin": "http://evil.example"}).status_code == 403
