"""A model behind any server that speaks the OpenAI protocol: vLLM, SGLang, llama.cpp, Ollama, hosted ones.

Needs the package `openai` (`pip install 'hourllava[synth]'`). The engines themselves pin other versions of torch and
transformers than ours, so they run in environments of their own: HTTP is the boundary.
"""

import base64
import os
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from hourllava.errors import ConfigError
from hourllava.synthesis.models.clip_file import clip_as_mp4
from hourllava.synthesis.models.request import CallFault, Picture, Reply, Request
from hourllava.synthesis.rows import ItemFault
from hourllava.synthesis.shapes import json_schema
from hourllava.synthesis.stage import StopRun

try:
    import openai
    from openai.types.chat import ChatCompletion
except ImportError as error:
    raise ConfigError("models on a server need openai; run: pip install 'hourllava[synth]'") from error

Media = Literal["images", "video"]
_FINISHES = {"content_filter": "filter", "length": "length"}


class ServerOptions(BaseModel):
    """How servers are asked.

    Attributes:
        concurrency: requests at a time to each server.
        timeout_seconds: for a reply.
        media: frames as images, or the clip as a small video file (vLLM's `video_url`).
        structured: whether the server is given the JSON schema; False for servers that refuse it.
        extra_body: more fields of each request, for switches of one engine.
        api_key_variable: environment variable with the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    concurrency: int = 32
    timeout_seconds: float = 300.0
    media: Media = "images"
    structured: bool = True
    extra_body: dict[str, Any] = {}
    api_key_variable: str = "OPENAI_API_KEY"


class ServerModel:
    """A model on one or several servers; each request goes to the one with fewest at work.

    Args:
        name: as the servers know it.
        addresses: base URLs, such as `http://localhost:8000/v1`.
        options: how they are asked.
    """

    def __init__(self, name: str, addresses: Sequence[str], options: ServerOptions) -> None:
        self._name, self._options = name, options
        key = os.environ.get(options.api_key_variable) or "none"
        self._clients = {
            address: openai.AsyncOpenAI(base_url=address, api_key=key, max_retries=0, timeout=options.timeout_seconds)
            for address in addresses
        }
        self._at_work = dict.fromkeys(addresses, 0)

    @property
    def name(self) -> str:
        """As the servers know it."""
        return self._name

    @property
    def concurrency(self) -> int:
        """Of all servers together."""
        return self._options.concurrency * len(self._clients)

    async def call(self, request: Request) -> Reply:
        """Ask the server that has least to do."""
        body = self._body(request)  # before the block: what fails in it is the server's
        address = min(self._at_work, key=self._at_work.__getitem__)
        self._at_work[address] += 1
        try:
            # Not `chat.completions.create`: it looks at every part of a message, which takes 5 ms for 30 pictures.
            completion = await self._clients[address].post("/chat/completions", body=body, cast_to=ChatCompletion)
            return _reply(completion, address)
        except openai.APIStatusError as error:
            raise _of_status(error, address) from None
        except openai.APITimeoutError:
            seconds = self._options.timeout_seconds
            raise CallFault("timeout", f"no reply within {seconds:g} s", server=address) from None
        except openai.APIConnectionError as error:
            raise CallFault("no connection", f"{error.__cause__ or error}", server=address) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            # A proxy's page, an empty object, half a reply: the SDK fails on them in all these ways.
            raise CallFault("no chat reply", f"{type(error).__name__}: {error}"[:200], server=address) from None
        finally:
            self._at_work[address] -= 1

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.close()

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._name,
            "messages": [
                {"role": "system", "content": request.system},
                {"role": "user", "content": self._content(request)},
            ],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if self._options.structured:
            schema = {"name": request.kind, "schema": json_schema(request.shape), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body | self._options.extra_body

    def _content(self, request: Request) -> str | list[dict[str, Any]]:
        if not request.pictures:
            return request.text
        content: list[dict[str, Any]] = []
        if self._options.media == "video":
            data = base64.b64encode(clip_as_mp4(request.pictures)).decode()
            content.append({"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}})
            return [*content, {"type": "text", "text": request.text}]
        return [_part(part) for part in request.parts]


def _part(part: str | Picture) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    data = base64.b64encode(part.jpeg).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}


def _reply(completion: Any, address: str) -> Reply:
    if not isinstance(completion, ChatCompletion) or not completion.choices:
        raise CallFault("no chat reply", f"{type(completion).__name__} without choices", server=address)
    choice, usage = completion.choices[0], completion.usage
    return Reply(
        text=choice.message.content or "",
        finish=_FINISHES.get(choice.finish_reason, "stop"),
        refusal=choice.message.refusal or None,
        prompt_tokens=usage.prompt_tokens if usage else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
        server=address,
    )


def _of_status(error: openai.APIStatusError, address: str) -> Exception:
    """The fault that a status stands for: to be tried again, of this request alone, or of the whole run."""
    code, reason = error.status_code, " ".join(str(error.message).split())[:200]
    name = getattr(error, "code", None)
    if name == "insufficient_quota" or code in (401, 402, 403, 404):
        return StopRun(
            f"{address} refuses all requests ({code}: {reason}); check the address, the model's name and key"
        )
    if code == 429:
        return CallFault("rate limit", reason, retry_after_seconds=_retry_after(error), server=address)
    if code >= 500 or code in (408, 409):
        return CallFault(f"server error {code}", reason, retry_after_seconds=_retry_after(error), server=address)
    if name == "content_filter":
        return ItemFault("content filter", reason)
    return ItemFault(f"request refused ({code})", reason)


def _retry_after(error: openai.APIStatusError) -> float | None:
    try:
        return float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
