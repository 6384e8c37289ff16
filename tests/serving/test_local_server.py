"""The whole server with a real, tiny model: watched, asked, streamed, chosen, found, saved."""

import threading

import pytest

from conftest import tiny_checkpoint
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.memory import Memory
from hourllava.serving.local import EngineSettings, LocalEngine
from serving.conftest import sdk
from serving.live import live

MODEL = "hourllava-tiny"


@pytest.fixture(scope="module")
def tiny():
    return HourLlava.from_pretrained(tiny_checkpoint(), device="cpu")


@pytest.fixture(scope="module")
def running(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    with live(folder, LocalEngine(tiny, folder / "memories", EngineSettings(name=MODEL))) as server:
        yield server


@pytest.fixture(scope="module")
def file(running, clip):
    with sdk(running) as client:
        file = client.files.create(file=clip, purpose="user_data")
        return client.files.wait_for_processing(file.id, poll_interval=0.05)


def test_both_ways_and_both_interfaces_give_one_answer(running, file):
    parts = [{"type": "file", "file": {"file_id": file.id}}, {"type": "text", "text": "What is shown?"}]
    message = {"role": "user", "content": parts}
    with sdk(running) as client:
        whole = client.chat.completions.create(model=MODEL, messages=[message], max_tokens=6)
        chunks = client.chat.completions.create(model=MODEL, messages=[message], max_tokens=6, stream=True)
        content = [{"type": "input_file", "file_id": file.id}, {"type": "input_text", "text": "What is shown?"}]
        items = [{"role": "user", "content": content}]
        response = client.responses.create(model=MODEL, input=items, max_output_tokens=6)
        text = whole.choices[0].message.content
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
        assert response.output_text == text
    assert whole.choices[0].message.annotations
    evidence = whole.choices[0].message.model_extra["hourllava"]["evidence"]
    assert all(0 <= span["start_seconds"] < span["end_seconds"] <= 12 for span in evidence)
    assert 1 <= whole.usage.completion_tokens <= 6


def test_choice_moments_and_the_memory_itself(running, file, tmp_path):
    memory_id = file.model_extra["hourllava"]["memory_id"]
    base = f"/v1/hourllava/memories/{memory_id}"
    choice = running.http.post(f"{base}/choose", json={"question": "Which?", "options": ["red", "blue"]}).json()
    assert sum(choice["probabilities"]) == pytest.approx(1)
    assert running.http.post(f"{base}/find", json={"text": "a lamp"}).json()["data"]
    path = tmp_path / "memory.safetensors"
    path.write_bytes(running.http.get(f"{base}/download").content)
    assert len(Memory.load(path)) == 12
    shown = running.http.get(base).json()
    assert (shown["state"], shown["duration_seconds"], shown["error"]) == ("ready", 12.0, None)


def test_a_damaged_video_is_refused_without_a_path(running, clip):
    content = clip.read_bytes()
    for broken in (content[:200], content[: len(content) // 2], content[len(content) // 2 :], bytes(5000)):
        answer = running.http.put("/v1/hourllava/videos", params={"filename": "broken.mp4"}, content=broken)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "video_unreadable"), answer.text
        assert str(running.folder) not in answer.text


def test_the_server_answers_while_it_watches_asks_and_takes_uploads(running, clip):
    """How fast it does is measured by benchmarks/serve_http.py; here it must only go on."""
    failures = []

    def work(function):
        try:
            function()
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(error)

    def watch_and_ask():
        with sdk(running) as client:
            for number in range(3):
                content = clip.read_bytes() + bytes(number + 1)  # another digest: watched anew
                uploaded = running.http.put("/v1/hourllava/videos", params={"filename": "a.mp4"}, content=content)
                parts = [{"type": "file", "file": {"file_id": uploaded.json()["id"]}}, {"type": "text", "text": "x"}]
                for chunk in client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": parts}], max_tokens=30, stream=True
                ):
                    assert chunk.choices

    threads = [threading.Thread(target=work, args=(watch_and_ask,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    answered = 0
    while any(thread.is_alive() for thread in threads):
        assert running.http.get("/health", timeout=5).json() == {"status": "ok"}
        assert running.http.get("/v1/hourllava/memories", timeout=5).status_code == 200
        answered += 1
    assert not failures
    assert answered > 5
