"""Bodies of `/v1/chat/completions`: what is taken, what is refused by name, and what is given."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool

from hourllava.inference.questions.answers import Answer
from hourllava.inference.questions.options import DEFAULT_MAX_NEW_TOKENS, DEFAULT_SUBTITLE_TOKENS
from hourllava.serving.errors import invalid, unsupported
from hourllava.serving.shapes import Evidence, Id, MemoryObject, Seconds, Strict

MAX_SEED = 2**63 - 1
Stop = str | Annotated[list[str], Field(max_length=16)] | None
Temperature = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
TopP = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class Extras(Strict):
    """What OpenAI has no word for, in the field `hourllava` of a request.

    Attributes:
        memory_id: of the video, in place of a file; or url.
        start_seconds, end_seconds, fps: the part to watch, and how densely.
        subtitles: id of an uploaded subtitle file, or the text of one.
        subtitle_tokens: tokens that they may take.
        progress: whether a stream tells of the watching with chunks, too, and not with comments only.
    """

    memory_id: Id | None = None
    start_seconds: Seconds = 0.0
    end_seconds: Seconds | None = None
    fps: float = 1.0
    subtitles: str | None = None
    subtitle_tokens: Annotated[int, Field(ge=0, le=100_000)] = DEFAULT_SUBTITLE_TOKENS
    progress: StrictBool = False


class VideoUrl(Strict):
    """Where a video is: `data:`, `media:`, or an address."""

    url: str
    fps: float | None = None
    uuid: str | None = None


class FilePart(Strict):
    """An uploaded file, or its data."""

    file_id: Id | None = None
    file_data: str | None = None
    filename: Annotated[str, Field(max_length=1024)] | None = None


class Part(Strict):
    """A part of a message: `text`, `video_url` or `file`."""

    type: Annotated[str, Field(max_length=64)]
    text: str | None = None
    video_url: VideoUrl | None = None
    file: FilePart | None = None
    uuid: str | None = None


class Message(Strict):
    """A message; the fields after `content` are those of our answers, which clients send back."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    hourllava: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None
    tool_calls: list[Any] | None = None
    function_call: dict[str, Any] | None = None
    tool_call_id: str | None = None


class StreamOptions(Strict):
    """What a stream has beside its text."""

    include_usage: StrictBool | None = None
    include_obfuscation: StrictBool | None = None


class ChatRequest(Strict):
    """Body of a request. Options below `hourllava` are taken only with the value that changes nothing."""

    model: Annotated[str, Field(max_length=256)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    seed: Seed | None = None
    stop: Stop = None
    hourllava: Extras = Extras()
    # Without effect here.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: StrictBool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    # Refused, unless they change nothing.
    n: int | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: StrictBool | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    response_format: dict[str, Any] | None = None
    logprobs: StrictBool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, Any] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    web_search_options: dict[str, Any] | None = None


NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Options that this server does not have, and the values with which they change nothing."""


def check_neutral(body: BaseModel, neutral: dict[str, tuple[Any, ...]]) -> None:
    """Refuse options that would change something.

    Raises:
        ApiError: one does; it is named.
    """
    for name, values in neutral.items():
        given = getattr(body, name)
        if given is not None and given not in values:
            raise unsupported(name)


def max_new_tokens_of(limit: int, **given: int | None) -> int:
    """The length of an answer that a request allows.

    Raises:
        ApiError: it is above the server's limit.
    """
    for name, value in given.items():
        if value is not None and value > limit:
            raise invalid(f"{name} is {value:,}; this server allows {limit:,}", name)
    return next((value for value in given.values() if value is not None), min(DEFAULT_MAX_NEW_TOKENS, limit))


class UrlCitation(BaseModel):
    """A moment of the video as an address that a player opens at that second."""

    url: str
    title: str
    start_index: int
    end_index: int


class Annotation(BaseModel):
    """A citation of an answer."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class AnswerExtras(BaseModel):
    """What an answer looked at, in numbers, and how long it took."""

    evidence: list[Evidence]
    memory_id: str | None
    first_token_seconds: float
    total_seconds: float


class ChatMessage(BaseModel):
    """An answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: list[Annotation]
    hourllava: AnswerExtras


class ChatChoice(BaseModel):
    """The only answer to a request."""

    index: int = 0
    message: ChatMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class PromptDetails(BaseModel):
    """What a prompt consists of. `cached_tokens` are those that earlier questions about the video left computed."""

    cached_tokens: int = 0
    text_tokens: int
    video_tokens: int


class Usage(BaseModel):
    """Tokens of a prompt, the video's included, and of its answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails

    @classmethod
    def of(cls, answer: Answer) -> "Usage":
        """Of an answer."""
        prompt, completion, video = answer.num_prompt_tokens, answer.num_new_tokens, answer.num_video_tokens
        return cls(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            prompt_tokens_details=PromptDetails(
                cached_tokens=answer.num_cached_tokens, text_tokens=prompt - video, video_tokens=video
            ),
        )


class ChatCompletion(BaseModel):
    """An answer that is whole."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class WatchProgress(BaseModel):
    """How far the video of a question is watched."""

    watching: MemoryObject
