"""`hourllava mcp` as an agent starts it: over stdin and stdout."""

import asyncio
import os
import subprocess
import sys

import pytest
from mcp import Client, StdioServerParameters

from conftest import tiny_checkpoint
from forking import run_hourllava
from hourllava.errors import CheckpointError, ConfigError
from running import children_of, wait_until_gone
from serving.agents import TOOLS, called, refused


@pytest.mark.slow
def test_an_agent_starts_the_command_and_uses_every_tool(tmp_path, media):
    """Whatever is printed by anybody, stdout has the protocol only."""
    progress, used, others = [], set(), set(children_of(os.getpid()))

    async def note(done, total, message):
        progress.append((done, total))

    arguments = ["--media-root", media, "--model", tiny_checkpoint(), "--store", tmp_path / "store", "--device", "cpu"]
    command = StdioServerParameters(
        command=sys.executable,
        args=["-m", "hourllava", "mcp", *map(str, arguments)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )

    async def use():
        async with asyncio.timeout(240), Client(command) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS

            async def use_tool(tool, **arguments):
                used.add(tool)
                return await called(client, tool, **arguments)

            assert [video["path"] for video in (await use_tool("list_videos"))["videos"]] == ["talks/lecture.mp4"]
            used.add("watch_video")
            watched = await client.call_tool("watch_video", {"video": "talks/lecture.mp4"}, progress_callback=note)
            assert watched.structured_content["state"] == "ready"
            assert progress[-1] == (12.0, 12.0)
            this = {"memory_id": watched.structured_content["memory_id"]}
            question, subtitles = "What is on the desk?", "talks/lecture.srt"
            asked = await use_tool("ask_video", **this, questions=[question], subtitles=subtitles, max_new_tokens=4)
            assert asked["answers"][0]["moments"]
            choice = await use_tool("choose_answer", **this, question=question, options=["a lamp", "a cat"])
            assert sum(choice["probabilities"]) == pytest.approx(1.0)
            assert (await use_tool("find_moments", **this, what="a lamp"))["moments"]
            assert len((await use_tool("list_memories"))["memories"]) == 1
            assert (await use_tool("describe_video", **this))["subtitles"] == [subtitles]
            used.add("get_frames")
            frames = await client.call_tool("get_frames", {**this, "at_seconds": [1]})
            assert frames.content[1].type == "image"
            assert "no memory" in await refused(client, "find_moments", memory_id="mem-0", what="a lamp")

    asyncio.run(use())
    assert used == TOOLS
    wait_until_gone(set(children_of(os.getpid())) - others)


def test_the_command_names_a_folder_that_is_not_there(tmp_path):
    result = run_hourllava(
        "mcp", "--media-root", "missing", "--store", tmp_path / "store", cache=tmp_path, cwd=tmp_path
    )
    assert result.returncode == ConfigError.exit_code
    assert "no folder" in result.stderr
    assert result.stdout == ""


@pytest.mark.slow
def test_the_command_ends_if_there_is_no_such_model(tmp_path):
    """Although its stdin is open."""
    command = [sys.executable, "-m", "hourllava", "mcp", "--media-root", ".", "--model", "missing/model"]
    with subprocess.Popen(
        [*command, "--store", str(tmp_path / "store")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    ) as process:
        assert process.wait(240) == CheckpointError.exit_code
        assert "missing/model" in process.stderr.read().splitlines()[-1]
        assert process.stdout.read() == ""
