"""`/v1/responses`: OpenAI's newer interface; with `background` a video is watched and asked while nobody waits."""

import contextlib
import secrets
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from hourllava.inference.questions.options import AskSettings
from hourllava.serving.asking import until_gone
from hourllava.serving.chat_shapes import check_neutral, max_new_tokens_of
from hourllava.serving.context import ERRORS, Here, Owner, base_url
from hourllava.serving.errors import invalid
from hourllava.serving.events import event, stream
from hourllava.serving.responding import Run, turns_before
from hourllava.serving.response_shapes import NEUTRAL, ResponseObject, ResponseRequest, turns_of
from hourllava.serving.routes.chat import asked_of, check_model
from hourllava.serving.shapes import QueryBool, QueryInt
from hourllava.serving.sources import Source
from hourllava.serving.talk import Talk, Turn, talk_of

router = APIRouter(prefix="/v1/responses", responses=ERRORS)

STREAM: dict[int | str, dict[str, Any]] = {
    200: {"model": ResponseObject, "content": {"text/event-stream": {}}, "description": "a response, or its events"}
}


class DeletedResponse(BaseModel):
    """That a response was deleted."""

    id: str
    object: str = "response"
    deleted: bool = True


@router.post("", response_model=None, responses=STREAM)
async def create(body: ResponseRequest, request: Request, here: Here, owner: Owner) -> ResponseObject | Response:
    """Answer the last message of the input; the video comes with the last message that has one."""
    check_neutral(body, NEUTRAL)
    check_model(here, body.model)
    is_background, is_stored = bool(body.background), body.store is not False
    if is_background and not is_stored:
        raise invalid("a response in the background must be stored", "store")
    rules = [Turn("system", body.instructions, where="instructions")] if body.instructions else []
    talk = talk_of([*rules, *turns_of(body.input)])
    if body.previous_response_id is not None:
        _continue(talk, here.responses.get(body.previous_response_id, owner, "previous_response_id"))
    max_tokens = max_new_tokens_of(here.settings.max_new_tokens, max_output_tokens=body.max_output_tokens)
    temperature, top_p = body.temperature or 0.0, body.top_p or 1.0
    settings = AskSettings(max_new_tokens=max_tokens, temperature=temperature, top_p=top_p)
    asked = await asked_of(here, owner, talk, body.hourllava, settings)
    here.responses.make_room()
    response = ResponseObject(
        id=f"resp_{secrets.token_hex(16)}",
        status="queued",
        background=is_background,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        metadata=body.metadata or {},
        model=body.model,
        previous_response_id=body.previous_response_id,
        store=is_stored,
        temperature=temperature,
        top_p=top_p,
    )
    run = Run(here, asked, response, base_url(request, here), tells_progress=body.hourllava.progress)
    here.responses.keep(run)
    if body.stream:
        try:
            return await stream(_events(here, run, ends_run=not is_background), here)
        except BaseException:  # it has not begun: nobody knows of it
            await run.cancel()
            here.responses.forget(run)
            raise
    if is_background:
        return response
    try:
        return await until_gone(request, here, run.end())
    except ClientDisconnect:
        await run.cancel()
        raise
    finally:
        _settle(here, run)


def _continue(talk: Talk, before: Run) -> None:
    talk.history[:0] = turns_before(before)
    if talk.source is None and before.asked.memory is not None:
        talk.source = Source("previous_response_id", memory_id=before.asked.memory.id)


def _settle(here: Here, run: Run) -> None:
    """Forget what was not to be kept, or never began."""
    if not run.response.store or run.response.status == "failed":
        here.responses.forget(run)


async def _events(here: Here, run: Run, *, ends_run: bool, after: int = -1) -> AsyncGenerator[bytes, None]:
    try:
        async with contextlib.aclosing(run.events(after)) as events:
            async for each in events:
                yield event(each, name=each["type"])
    finally:
        if ends_run:
            await run.cancel()
            _settle(here, run)


@router.get("/{response_id}", response_model=None, responses=STREAM)
async def get(
    response_id: str,
    here: Here,
    owner: Owner,
    stream_: Annotated[QueryBool, Query(alias="stream")] = False,
    starting_after: Annotated[QueryInt, Query(ge=-1, le=10**9)] = -1,
) -> ResponseObject | Response:
    """A response as it is now; with `stream` its events, from a number on."""
    run = here.responses.get(response_id, owner)
    if stream_ and (not run.response.is_final or run.has_more(starting_after)):
        return await stream(_events(here, run, ends_run=False, after=starting_after), here)
    if stream_:
        raise invalid("there are no events after that", "starting_after")
    return run.response


@router.post("/{response_id}/cancel")
async def cancel(response_id: str, here: Here, owner: Owner) -> ResponseObject:
    """End a response; one that has ended stays as it is."""
    run = here.responses.get(response_id, owner)
    if not run.response.background:
        raise invalid("only a response in the background can be cancelled; others end with their connection")
    await run.cancel()
    return run.response


@router.delete("/{response_id}")
async def delete(response_id: str, here: Here, owner: Owner) -> DeletedResponse:
    """Forget a response; one that is being made ends."""
    run = here.responses.get(response_id, owner)
    await run.cancel()
    here.responses.forget(run)
    return DeletedResponse(id=response_id)
