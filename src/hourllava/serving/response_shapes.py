"""Bodies of `/v1/responses`: what is taken, what is refused by name, and what is given."""

import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool

from hourllava.inference.questions.answers import Answer
from hourllava.serving.chat_shapes import AnswerExtras, Extras, StreamOptions, Temperature, TopP
from hourllava.serving.errors import invalid, unsupported
from hourllava.serving.shapes import Id, Strict
from hourllava.serving.sources import Source
from hourllava.serving.talk import Turn

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


class InputPart(Strict):
    """A part of an input: `input_text`, `input_file`, or our own `output_text`, sent back."""

    type: Annotated[str, Field(max_length=64)]
    text: str | None = None
    file_id: Id | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: Annotated[str, Field(max_length=1024)] | None = None
    detail: str | None = None
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class InputItem(Strict):
    """A message of an input."""

    type: Annotated[str, Field(max_length=64)] = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[InputPart] | None = None
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class ResponseRequest(Strict):
    """Body of a request. Options at the end are taken only with the value that changes nothing."""

    model: Annotated[str, Field(max_length=256)]
    input: str | Annotated[list[InputItem], Field(min_length=1, max_length=1000)]
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    background: StrictBool | None = None
    store: StrictBool | None = None
    previous_response_id: Id | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    metadata: dict[str, str] | None = None
    hourllava: Extras = Extras()
    # Without effect here.
    user: str | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    instructions: str | None = None
    # Refused, unless they change nothing.
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: StrictBool | None = None
    max_tool_calls: int | None = None
    top_logprobs: int | None = None
    truncation: str | None = None
    include: list[str] | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    conversation: Any = None
    prompt: Any = None


NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "max_tool_calls": (),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
    "include": ([],),
    "text": ({}, {"format": {"type": "text"}}),
    "reasoning": ({}, {"effort": "none"}),
    "conversation": (),
    "prompt": (),
}
"""Options that this server does not have, and the values with which they change nothing."""


class Citation(BaseModel):
    """A moment of the video as an address that a player opens at that second."""

    type: Literal["url_citation"] = "url_citation"
    url: str
    title: str
    start_index: int
    end_index: int


class OutputText(BaseModel):
    """The text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str = ""
    annotations: list[Citation] = []
    logprobs: list[Any] = []


class OutputMessage(BaseModel):
    """The answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"] = "in_progress"
    content: list[OutputText] = []


class InputDetails(BaseModel):
    """What a prompt consists of. `cached_tokens` are those that earlier questions about the video left computed."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0
    text_tokens: int
    video_tokens: int


class OutputDetails(BaseModel):
    """This model does not think aloud."""

    reasoning_tokens: int = 0


class ResponseUsage(BaseModel):
    """Tokens of a prompt, the video's included, and of its answer."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int

    @classmethod
    def of(cls, answer: Answer) -> "ResponseUsage":
        """Of an answer."""
        prompt, output, video = answer.num_prompt_tokens, answer.num_new_tokens, answer.num_video_tokens
        details = InputDetails(cached_tokens=answer.num_cached_tokens, text_tokens=prompt - video, video_tokens=video)
        return cls(
            input_tokens=prompt, input_tokens_details=details, output_tokens=output, total_tokens=prompt + output
        )


class ResponseFailure(BaseModel):
    """Why there is no answer."""

    code: str
    message: str


class Incomplete(BaseModel):
    """Why an answer is not whole."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseObject(BaseModel):
    """OpenAI's response object; `hourllava` has the evidence in numbers."""

    id: str
    object: Literal["response"] = "response"
    created_at: int = Field(default_factory=lambda: int(time.time()))
    status: Status
    background: bool = False
    error: ResponseFailure | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] = {}
    model: str
    output: list[OutputMessage] = []
    parallel_tool_calls: bool = False
    previous_response_id: str | None = None
    store: bool = True
    temperature: float = 0.0
    text: dict[str, Any] = {"format": {"type": "text"}}
    tool_choice: Literal["none"] = "none"
    tools: list[Any] = []
    top_p: float = 1.0
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    hourllava: AnswerExtras | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more comes."""
        return self.status not in ("queued", "in_progress")


def turns_of(given: str | list[InputItem]) -> Iterator[Turn]:
    """The messages of an input.

    Raises:
        ApiError: a part is of a kind that this server does not take.
    """
    if isinstance(given, str):
        yield Turn("user", given, where="input")
        return
    for number, item in enumerate(given):
        where = f"input.{number}"
        if item.type != "message" or item.role is None:
            raise unsupported(f"{where}.type={item.type}", "use messages with a role")
        if item.content is None or isinstance(item.content, str):
            yield Turn(item.role, item.content or "", where=where)
            continue
        parts = list(enumerate(item.content))
        texts = [part.text or "" for _, part in parts if part.type in ("input_text", "output_text")]
        sources = [
            (_source_of(part, f"{where}.content.{at}"), None)
            for at, part in parts
            if part.type not in ("input_text", "output_text")
        ]
        yield Turn(item.role, "\n".join(texts), sources, where)


def _source_of(part: InputPart, at: str) -> Source:
    if part.type != "input_file":
        raise unsupported(f"{at}.type={part.type}", "use input_text or input_file")
    given = [name for name in ("file_id", "file_data", "file_url") if getattr(part, name) is not None]
    if len(given) != 1:
        raise invalid("give one of file_id, file_data and file_url", at)
    url = part.file_data or part.file_url
    return Source(f"{at}.{given[0]}", file_id=part.file_id, url=url, filename=part.filename or "video")
