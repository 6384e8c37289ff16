"""What a memory can be asked beside a conversation: multiple choice, moments, and pictures of its video."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, Field

from hourllava.serving.asking import check_question, errors_of, question_place, until_gone, video_of
from hourllava.serving.content import file_response
from hourllava.serving.context import ERRORS, Context, Here, Owner
from hourllava.serving.errors import invalid, not_found
from hourllava.serving.pictures import Filmstrip
from hourllava.serving.protocol import Question
from hourllava.serving.shapes import Evidence, Strict
from hourllava.serving.store import MemoryRecord
from hourllava.serving.subtitles import cues_of

router = APIRouter(prefix="/v1/hourllava/memories/{memory_id}", responses=ERRORS)

MAX_WIDTH = 1280
JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}, "description": "a picture"}
}


class ChoiceRequest(Strict):
    """A question with its options; `subtitles` is the id of a file, or a text."""

    question: str
    options: Annotated[list[str], Field(min_length=2, max_length=26)]
    subtitles: str | None = None


class ChoiceObject(BaseModel):
    """The most probable option, and what the prompt looked at."""

    question: str
    option: str
    letter: str
    probabilities: list[float]
    evidence: list[Evidence]


class FindRequest(Strict):
    """What is looked for."""

    text: str
    limit: Annotated[int, Field(ge=1, le=100)] = 10


class EvidenceList(BaseModel):
    """Moments, strongest first."""

    data: list[Evidence]


class FilmstripObject(BaseModel):
    """A sheet of small pictures at `url`, row by row, and when each is shown."""

    columns: int
    rows: int
    tile_width: int
    tile_height: int
    times: list[float]
    url: str


@router.post("/choose")
async def choose(memory_id: str, body: ChoiceRequest, request: Request, here: Here, owner: Owner) -> ChoiceObject:
    """Multiple choice. A video that is not watched yet is watched first."""
    memory = await here.watching.get(memory_id, owner)
    check_question(here, body.question, [], "question")
    if len(body.options) > here.settings.max_options:
        raise invalid(f"{len(body.options)} options are given; the limit is {here.settings.max_options}", "options")
    for number, option in enumerate(body.options):
        check_question(here, option, [], f"options.{number}")
    question = Question(body.question, subtitles=await cues_of(here, owner, body.subtitles), caller=owner or None)
    video = video_of(here, memory)
    with question_place(here, owner), errors_of(here, memory):
        choice = await until_gone(request, here, here.engine.choose(video, question, body.options))
    return ChoiceObject(
        question=choice.question,
        option=choice.option,
        letter=choice.letter,
        probabilities=choice.probabilities,
        evidence=[Evidence.of(span) for span in choice.evidence],
    )


@router.post("/find")
async def find(memory_id: str, body: FindRequest, request: Request, here: Here, owner: Owner) -> EvidenceList:
    """The moments that a text is about. A video that is not watched yet is watched first."""
    memory = await here.watching.get(memory_id, owner)
    check_question(here, body.text, [], "text")
    with question_place(here, owner), errors_of(here, memory):
        spans = await until_gone(request, here, here.engine.find(here.watching.video(memory), body.text))
    return EvidenceList(data=[Evidence.of(span) for span in spans[: body.limit]])


@router.get("/filmstrip")
async def filmstrip(memory_id: str, request: Request, here: Here, owner: Owner) -> FilmstripObject:
    """What is on the filmstrip; the first request draws it, which takes seconds for an hour."""
    memory = await here.watching.get(memory_id, owner)
    strip = await until_gone(request, here, _filmstrip(here, memory))
    return FilmstripObject(**strip.__dict__, url=f"/v1/hourllava/memories/{memory_id}/filmstrip.jpg")


@router.get("/filmstrip.jpg", response_class=FileResponse, responses=JPEG)
async def filmstrip_sheet(memory_id: str, request: Request, here: Here, owner: Owner) -> FileResponse:
    """The sheet of the filmstrip."""
    memory = await here.watching.get(memory_id, owner)
    await until_gone(request, here, _filmstrip(here, memory))
    return await file_response(here.drawing.sheet(here.watching.video(memory).key), "filmstrip.jpg", "image/jpeg")


async def _filmstrip(context: Context, memory: MemoryRecord) -> Filmstrip:
    view = await context.watching.view(memory)
    path = await context.watching.path(memory)
    end = memory.end_seconds
    if view.duration_seconds is not None:
        end = min(end or view.duration_seconds, view.duration_seconds)
    with errors_of(context, memory):
        strip = await context.drawing.filmstrip(path, context.watching.video(memory).key, memory.start_seconds, end)
    if strip is None:
        raise not_found("file of this memory any more")
    return strip


@router.get("/frames", response_class=Response, responses=JPEG)
async def frame(
    memory_id: str,
    here: Here,
    owner: Owner,
    at: Annotated[float, Query(ge=0, le=1e7, allow_inf_nan=False)],
    width: Annotated[int, Query(ge=16, le=MAX_WIDTH)] = 320,
) -> Response:
    """The picture at a second of the player's clock, as a JPEG."""
    memory = await here.watching.get(memory_id, owner)
    path = await here.watching.path(memory)
    if path is None:
        raise not_found("file of this memory any more")
    with errors_of(here, memory):
        jpeg = await here.drawing.jpeg_at(path, at, width)
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})
