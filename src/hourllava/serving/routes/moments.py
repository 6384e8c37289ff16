"""What a memory can be asked beside a conversation: multiple choice, moments, and pictures of its video."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, Field

from hourllava.serving import asking
from hourllava.serving.asking import Asked, errors_of, until_gone
from hourllava.serving.content import file_response
from hourllava.serving.context import ERRORS, Context, Here, Owner
from hourllava.serving.errors import not_found
from hourllava.serving.pictures import Filmstrip
from hourllava.serving.protocol import Question
from hourllava.serving.records import MemoryRecord
from hourllava.serving.shapes import Chosen, Evidence, QueryFloat, QueryInt, Strict
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


class ChoiceObject(Chosen):
    """The most probable option, and what the prompt looked at."""

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
    question = Question(body.question, subtitles=await cues_of(here, owner, body.subtitles), caller=owner or None)
    choice = await until_gone(request, here, asking.choose(here, Asked(owner, memory, question), body.options))
    return ChoiceObject(**Chosen.fields_of(choice), evidence=[Evidence.of(span) for span in choice.evidence])


@router.post("/find")
async def find(memory_id: str, body: FindRequest, request: Request, here: Here, owner: Owner) -> EvidenceList:
    """The moments that a text is about. A video that is not watched yet is watched first."""
    memory = await here.watching.get(memory_id, owner)
    spans = await until_gone(request, here, asking.find(here, owner, memory, body.text, "text"))
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
    request: Request,
    here: Here,
    owner: Owner,
    at: Annotated[QueryFloat, Query(ge=0, le=1e7, allow_inf_nan=False)],
    width: Annotated[QueryInt, Query(ge=16, le=MAX_WIDTH)] = 320,
) -> Response:
    """The picture at a second of the player's clock, as a JPEG."""
    memory = await here.watching.get(memory_id, owner)
    path = await here.watching.path(memory)
    if path is None:
        raise not_found("file of this memory any more")
    with errors_of(here, memory):
        jpeg = await until_gone(request, here, here.drawing.jpeg_at(path, at, width))
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})
