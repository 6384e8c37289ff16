"""The schema is true: requests made from it by the thousand get only answers that it declares."""

import os
import subprocess
import sys

import pytest

from hourllava.serving.app import create_app
from hourllava.serving.settings import ServeSettings
from hourllava.serving.store import Store
from serving.conftest import raw
from serving.live import live
from serving.scripted_engine import ScriptedEngine

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "negative_data_rejection,unsupported_method,use_after_free"
)


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"), min_free_bytes=0)
    return create_app(ScriptedEngine(), store, ServeSettings()).openapi()


HOOKS = """
import schemathesis

@schemathesis.hook
def map_body(context, body):
    # The only one; no text that is drawn is it. One that is too long is the fault of its request, and stays.
    if isinstance(body, dict) and isinstance(body.get("model"), str) and len(body["model"]) <= MAX_LENGTH:
        body["model"] = "hourllava-scripted"
    return body
"""


def operations(schema):
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def test_every_operation_declares_its_errors_and_says_what_it_does(schema):
    names = []
    for name, operation in operations(schema):
        assert {"4XX", "5XX"} <= operation["responses"].keys(), name
        assert "422" not in operation["responses"], name
        assert operation["description"].strip(), name
        names.append(operation["operationId"])
    assert len(set(names)) == len(names) > 25
    assert "HTTPValidationError" not in schema["components"]["schemas"]


def test_streams_declare_their_type(schema):
    streaming = [
        name
        for name, operation in operations(schema)
        if "text/event-stream" in operation["responses"].get("200", {}).get("content", {})
    ]
    assert sorted(streaming) == [
        "get /v1/hourllava/memories/{memory_id}/events",
        "get /v1/responses/{response_id}",
        "post /v1/chat/completions",
        "post /v1/responses",
    ]


@pytest.mark.slow
def test_requests_made_from_the_schema_find_no_fault(tmp_path, clip):
    with live(tmp_path / "store", media_root=clip.parent, max_client_files=10**6, max_client_memories=10**6) as server:
        file = server.http.put("/v1/hourllava/videos", **raw(clip)).json()
        ids = f'"path.file_id" = "{file["id"]}"\n"path.memory_id" = "{file["hourllava"]["memory_id"]}"\n'
        (tmp_path / "schemathesis.toml").write_text(f"[parameters]\n{ids}")
        lengths = {
            each["properties"]["model"]["maxLength"]
            for name, each in server.app.openapi()["components"]["schemas"].items()
            if name in ("ChatRequest", "ResponseRequest")
        }
        (tmp_path / "hooks.py").write_text(HOOKS.replace("MAX_LENGTH", str(lengths.pop())))
        assert not lengths
        # What is deleted is deleted last.
        for methods in (["--exclude-method", "DELETE"], ["--include-method", "DELETE"]):
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml"),
                    *("run", f"{server.url}/openapi.json", "--checks", CHECKS, "--request-timeout", "5"),
                    *("--max-examples", "50", "--seed", "1", "--suppress-health-check", "all", "--no-color", *methods),
                ],
                cwd=tmp_path,
                env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
                capture_output=True,
                text=True,
                check=False,
            )
            print(done.stdout[-1500:])
            assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        assert server.http.get("/health").status_code == 200
