"""The client of a judge: requests, kept replies, failures."""

import pytest

from evaluation.benchmarks.judges import judge_server
from hourllava.errors import ConfigError, DataError
from hourllava.evaluation.benchmarks import judge
from hourllava.evaluation.benchmarks.judge import JudgeClient


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(judge, "_PAUSES_SECONDS", (0.0,) * 4)
    for name in judge._KEYS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with judge_server() as found:
        yield found


def says_something(place, reply):
    return "Correct" in reply or "Incorrect" in reply


def test_a_request_is_that_of_the_authors(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    client = JudgeClient(server.url, "a-judge", tmp_path / "judged.jsonl")
    assert client.replies(["right?"], says_something, progress=False) == ["Correct"]
    assert server.requests == [
        {
            "model": "a-judge", "temperature": 1.0, "top_p": 1, "presence_penalty": 1, "max_tokens": 128,
            "messages": [
                {"role": "system", "content": "You are an AI assistant for question answering."},
                {"role": "user", "content": "right?"},
            ],
        }
    ]  # fmt: skip
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert "secret" not in (tmp_path / "judged.jsonl").read_text()


def test_replies_come_in_order_and_are_kept(server, tmp_path):
    server.reply = lambda prompt: f"Correct {prompt}"
    prompts = [str(k) for k in range(20)]
    client = JudgeClient(server.url, "m", tmp_path / "judged.jsonl")
    assert client.replies(prompts, says_something, progress=False) == [f"Correct {k}" for k in range(20)]
    with (tmp_path / "judged.jsonl").open("a") as file:
        file.write('{"half a li')
    again = JudgeClient(server.url, "m", tmp_path / "judged.jsonl")
    assert again.replies([*prompts, "new"], says_something, progress=False)[-1] == "Correct new"
    assert len(server.requests) == 21
    other = JudgeClient(server.url, "other", tmp_path / "judged.jsonl")  # another judge is asked anew
    other.replies(prompts, says_something, progress=False)
    assert len(server.requests) == 41


@pytest.mark.parametrize("fault", [500, 429, {"choices": []}, [1], "I cannot say", None])
def test_a_fault_is_tried_again_and_then_counted(server, tmp_path, fault):
    asked = []

    def reply(prompt):
        asked.append(prompt)
        return "Correct" if prompt == "sound" or (prompt == "late" and asked.count("late") == 3) else fault

    server.reply = reply
    client = JudgeClient(server.url, "m", tmp_path / "judged.jsonl")
    prompts = ["sound", "late", "never"]
    assert client.replies(prompts, says_something, progress=False) == ["Correct", "Correct", None]
    assert asked.count("never") == 4
    assert client.num_failed == 1
    assert client.last_failure
    assert len((tmp_path / "judged.jsonl").read_text().splitlines()) == 2


def test_a_judge_that_is_down_is_not_asked_for_ever(server, tmp_path):
    server.reply = lambda prompt: 503
    client = JudgeClient(server.url, "m", tmp_path / "judged.jsonl")
    assert set(client.replies([str(k) for k in range(200)], says_something, progress=False)) == {None}
    assert client.num_failed == 200
    assert len(server.requests) < 100
    assert "503" in client.last_failure


@pytest.mark.parametrize("status", [401, 404])
def test_a_refusal_ends_at_once(server, tmp_path, status):
    server.reply = lambda prompt: status
    client = JudgeClient(server.url, "m", tmp_path / "judged.jsonl")
    with pytest.raises(ConfigError, match=rf"refuses \({status} .*check --judge, --judge-model m and "):
        client.replies([str(k) for k in range(100)], says_something, progress=False)
    assert len(server.requests) < 50


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/passwd", "http://", ""])
def test_only_addresses_of_servers_are_taken(tmp_path, url):
    with pytest.raises(ConfigError, match="use the address of a server"):
        JudgeClient(url, "m", tmp_path / "judged.jsonl")


def test_damaged_replies_are_refused(tmp_path):
    (tmp_path / "judged.jsonl").write_text("no json\n")
    with pytest.raises(DataError, match="remove it to judge again"):
        JudgeClient("http://localhost/v1", "m", tmp_path / "judged.jsonl")
