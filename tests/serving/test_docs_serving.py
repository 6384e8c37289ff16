"""What the pages on serving show is true: their Python runs, and their tables have every setting, tool and limit."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import Client

from cli.in_process import run_here
from conftest import tiny_checkpoint
from hourllava.serving.local import EngineSettings
from hourllava.serving.mcp_server import create_mcp
from hourllava.serving.ray_engine import MAX_ATTEMPTS, TAKE_SECONDS
from hourllava.serving.settings import ServeSettings
from serving.looping import in_loop

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE, RAY, AGENTS = (
    (DOCS / name).read_text(encoding="utf-8") for name in ("serving.md", "serving-ray.md", "serving-agents.md")
)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


def test_the_python_of_the_page_runs(server, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lecture.mp4").write_bytes(clip.read_bytes())
    shown = blocks(PAGE, "py")
    assert len(shown) == 2
    code = "".join(shown).replace("http://127.0.0.1:8000", server.url)
    names: dict[str, object] = {}
    exec(compile(code, "docs/serving.md", "exec"), names)
    names["client"].close()
    assert capsys.readouterr().out.count("A red car.") == 2


def test_the_addresses_of_curl_are_there(server, clip):
    uploaded = re.search(r"curl -T lecture.mp4 'http://127.0.0.1:8000(\S+)'", PAGE)
    assert server.http.put(uploaded[1], content=clip.read_bytes()).status_code == 200
    listed = re.search(r"^curl http://127.0.0.1:8000(\S+)$", PAGE, flags=re.MULTILINE)
    assert server.http.get(listed[1]).status_code == 200


def test_the_table_has_every_setting_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", PAGE, flags=re.MULTILINE))
    expected = {}
    for name, field in ServeSettings.model_fields.items():
        value = field.get_default(call_default_factory=True)
        expected[name] = f"{value:,}" if isinstance(value, (int, float)) else "none"
    assert rows == expected


# ------------------------------------------------------------------------------------------------- the page for agents


def test_the_table_of_tools_names_each_with_all_it_takes():
    async def get_context():
        raise AssertionError("no tool is called")

    @in_loop
    async def check():
        async with Client(create_mcp(get_context)) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        rows = dict(re.findall(r"^\| `(\w+)` \| (.*?)\| .+ \|$", AGENTS, flags=re.MULTILINE))
        assert rows.keys() == tools.keys()
        for name, row in rows.items():
            assert set(re.findall(r"`(\w+)`", row)) == set(tools[name].input_schema["properties"])

    check()


def test_clients_are_set_up_with_options_and_addresses_that_exist(server):
    started, connected = (json.loads(text)["mcpServers"]["hourllava"] for text in blocks(AGENTS, "json"))
    command, name, *options = [started["command"], *started["args"]]
    assert (command, name) == ("hourllava", "mcp")
    assert all(option in run_here("mcp", "--help").stdout for option in options if option.startswith("--"))
    path = connected["url"].removeprefix("http://127.0.0.1:8000")
    assert server.http.post(path, json={}, headers=connected["headers"]).status_code in (400, 406)
    assert server.http.post("/nowhere", json={}).status_code == 404


@pytest.mark.slow
def test_the_python_of_the_agents_page_runs(clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "lecture.mp4").write_bytes(clip.read_bytes())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (code,) = blocks(AGENTS, "py")
    more = ["--model", str(tiny_checkpoint()), "--store", str(tmp_path / "store"), "--device", "cpu"]
    code = code.replace('command="hourllava", args=["mcp", ', f"command={sys.executable!r}, args=[*MORE, ").replace(
        '"videos"]', '"videos"], env=dict(os.environ)'
    )
    names = {"MORE": ["-m", "hourllava", "mcp", *more], "os": os}
    exec(compile(code, "docs/serving-agents.md", "exec"), names)
    assert "[" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------ the page on Ray


def test_the_commands_of_the_page_on_ray_have_options_that_exist():
    shown = [line for text in blocks(RAY, "sh") for line in text.splitlines() if "hourllava serve" in line]
    assert len(shown) == 2
    known = run_here("serve", "--help").stdout
    for line in shown:
        assert re.search(r"--replicas \d", line)
        assert all(option in known for option in re.findall(r"--\w+", line))


def test_the_page_on_ray_tells_the_limits_of_a_replica():
    limits = EngineSettings()
    numbers = (limits.max_watches, limits.max_waiting_questions, limits.memory_bytes // 2**30)
    told = re.search(r"at once \((\d+)\), questions that wait \((\d+)\), memories at hand \((\d+) GiB\)", RAY)
    assert tuple(map(int, told.groups())) == numbers
    assert f"for {TAKE_SECONDS:.0f} seconds" in RAY
    assert MAX_ATTEMPTS == 2


@pytest.mark.slow
def test_ray_has_the_options_of_the_page():
    pytest.importorskip("ray")
    ray = Path(sys.executable).with_name("ray")
    known = subprocess.run([ray, "start", "--help"], capture_output=True, text=True, check=True).stdout
    for text in blocks(RAY, "sh"):
        for line in text.splitlines():
            if line.startswith("ray start"):
                assert all(option in known for option in re.findall(r"--\w+", line))
