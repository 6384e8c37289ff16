"""`/v1/chat/completions`: a conversation about a video, as any OpenAI client holds it."""

import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hourllava.inference.questions.answers import Answer
from hourllava.inference.questions.options import AskSettings
from hourllava.serving.asking import Asked, ask, check_question, until_gone
from hourllava.serving.chat_shapes import (
    NEUTRAL,
    Annotation,
    AnswerExtras,
    ChatChoice,
    ChatCompletion,
    ChatMessage,
    ChatRequest,
    Extras,
    Message,
    Part,
    UrlCitation,
    Usage,
    check_neutral,
    max_new_tokens_of,
)
from hourllava.serving.checks import Part as VideoPart
from hourllava.serving.citing import cited
from hourllava.serving.context import ERRORS, Context, Here, Owner, base_url
from hourllava.serving.errors import ApiError, invalid, unsupported
from hourllava.serving.events import comment, event, stream
from hourllava.serving.protocol import Question, TextPiece, WatchView
from hourllava.serving.shapes import Evidence
from hourllava.serving.showing import memory_shown
from hourllava.serving.sources import Source, memory_of
from hourllava.serving.subtitles import cues_of
from hourllava.serving.talk import Talk, Turn, talk_of

router = APIRouter(responses=ERRORS)

STREAM: dict[int | str, dict[str, Any]] = {
    200: {"model": ChatCompletion, "content": {"text/event-stream": {}}, "description": "an answer, or its events"}
}


@router.post("/v1/chat/completions", response_model=None, responses=STREAM)
async def complete(body: ChatRequest, request: Request, here: Here, owner: Owner) -> ChatCompletion | Response:
    """Answer the last message; the video comes with the last message that has one."""
    check_neutral(body, NEUTRAL)
    check_model(here, body.model)
    talk = talk_of(_turns(body.messages))
    asked = await asked_of(
        here,
        owner,
        talk,
        body.hourllava,
        AskSettings(
            max_new_tokens=max_new_tokens_of(
                here.settings.max_new_tokens,
                max_completion_tokens=body.max_completion_tokens,
                max_tokens=body.max_tokens,
            ),
            temperature=body.temperature or 0.0,
            top_p=body.top_p or 1.0,
            seed=body.seed or 0,
            stop=[body.stop] if isinstance(body.stop, str) else body.stop or (),
        ),
    )
    reply = _Reply(here, asked, body.model, base_url(request, here))
    if body.stream:
        wants_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        return await stream(reply.events(wants_usage, body.hourllava.progress), here)
    return await until_gone(request, here, reply.whole())


def check_model(context: Context, model: str) -> None:
    """Check the name of the model.

    Raises:
        ApiError: this server has another one.
    """
    if model != context.model:
        message = f"there is no model {model[:100]!r} here, only {context.model!r}"
        raise ApiError(404, "model_not_found", message, "model")


async def asked_of(context: Context, owner: str, talk: Talk, extras: Extras, options: AskSettings) -> Asked:
    """A conversation as a question for the engine; its video is found or taken in.

    Raises:
        ApiError: there is no such video or subtitle file, or something is beyond the limits.
    """
    check_question(context, talk.text, talk.history, "messages")
    if talk.source is not None and extras.memory_id is not None:
        raise invalid("give the video in messages or by memory_id, not both", "hourllava.memory_id")
    source = talk.source
    if extras.memory_id is not None:
        source = Source("hourllava.memory_id", memory_id=extras.memory_id)
    memory = None
    if source is not None:
        fps = extras.fps if talk.fps is None else talk.fps
        memory = await memory_of(context, owner, source, VideoPart(fps, extras.start_seconds, extras.end_seconds))
    question = Question(
        text=talk.text,
        history=talk.history,
        subtitles=await cues_of(context, owner, extras.subtitles),
        subtitle_tokens=extras.subtitle_tokens,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
        stop=options.stop,
        caller=owner or None,
    )
    return Asked(owner, memory, question)


def _turns(messages: list[Message]) -> Iterator[Turn]:
    for number, message in enumerate(messages):
        where = f"messages.{number}"
        if message.tool_calls or message.function_call or message.audio:
            raise unsupported(f"{where}.tool_calls", "this model calls no tools")
        parts = message.content
        if parts is None or isinstance(parts, str):
            yield Turn(message.role, parts or "", where=where)
            continue
        texts = [part.text or "" for part in parts if part.type == "text"]
        sources = [
            (_source_of(part, f"{where}.content.{at}"), part.video_url.fps if part.video_url else None)
            for at, part in enumerate(parts)
            if part.type != "text"
        ]
        yield Turn(message.role, "\n".join(texts), sources, where)


def _source_of(part: Part, at: str) -> Source:
    if part.type == "video_url" and part.video_url is not None:
        return Source(f"{at}.video_url.url", url=part.video_url.url)
    if part.type == "file" and part.file is not None:
        file = part.file
        if (file.file_id is None) == (file.file_data is None):
            raise invalid("give one of file_id and file_data", f"{at}.file")
        param = f"{at}.file.{'file_id' if file.file_data is None else 'file_data'}"
        return Source(param, file_id=file.file_id, url=file.file_data, filename=file.filename or "video")
    if part.type in ("video_url", "file"):
        raise invalid(f"the part has no {part.type}", f"{at}.{part.type}")
    raise unsupported(f"{at}.type={part.type}", "use text, video_url or file")


class _Reply:
    """The answer to a request, whole or in events."""

    def __init__(self, context: Context, asked: Asked, model: str, base: str) -> None:
        self._context, self._asked, self._model, self._base = context, asked, model, base
        self._id, self._created = f"chatcmpl-{secrets.token_hex(16)}", int(time.time())

    async def whole(self) -> ChatCompletion:
        """The answer, when it is whole."""
        answer = None
        async for each in ask(self._context, self._asked):
            answer = each if isinstance(each, Answer) else answer
        assert answer is not None
        assert answer.finish_reason != "cancelled"
        message = ChatMessage(
            content=answer.text, annotations=self._annotations(answer), hourllava=self._extras(answer)
        )
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[ChatChoice(message=message, finish_reason=answer.finish_reason)],
            usage=Usage.of(answer),
        )

    async def events(self, wants_usage: bool, wants_progress: bool) -> AsyncGenerator[bytes, None]:
        """The answer in pieces, as the SDK reads them."""
        usage: dict[str, Any] = {"usage": None} if wants_usage else {}
        began = False
        async for each in ask(self._context, self._asked):
            if isinstance(each, WatchView):
                yield comment(f"{each.state} {each.frames_done}/{each.frames_total or '?'}")
                if wants_progress:
                    assert self._asked.memory is not None
                    memory = await memory_shown(self._context, self._asked.memory, each)
                    yield self._chunk({}, **usage, hourllava={"watching": memory.model_dump(mode="json")})
                continue
            if not began:
                began = True
                yield self._chunk({"role": "assistant", "content": ""}, **usage)
            if isinstance(each, TextPiece):
                yield self._chunk({"content": each.text}, **usage)
                continue
            annotations = [annotation.model_dump(mode="json") for annotation in self._annotations(each)]
            delta = {"annotations": annotations, "hourllava": self._extras(each).model_dump(mode="json")}
            yield self._chunk(delta, each.finish_reason, **usage)
            if wants_usage:
                yield event({**self._head, "choices": [], "usage": Usage.of(each).model_dump(mode="json")})
        yield b"data: [DONE]\n\n"

    @property
    def _head(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
        }

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**self._head, "choices": [choice], **more})

    def _annotations(self, answer: Answer) -> list[Annotation]:
        length = len(answer.text)
        return [
            Annotation(url_citation=UrlCitation(url=url, title=title, start_index=0, end_index=length))
            for url, title in cited(self._asked.memory, answer.evidence, self._base)
        ]

    def _extras(self, answer: Answer) -> AnswerExtras:
        memory = self._asked.memory
        return AnswerExtras(
            evidence=[Evidence.of(span) for span in answer.evidence],
            memory_id=None if memory is None else memory.id,
            first_token_seconds=answer.first_token_seconds,
            total_seconds=answer.total_seconds,
        )
