"""What the server is and how it is: health, figures, limits, the media folder, subtitles; and the page."""

import asyncio
import dataclasses
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.types import Message, Receive, Scope, Send

from hourllava.serving import files
from hourllava.serving.context import ERRORS, Here, Owner
from hourllava.serving.errors import DRAIN_RETRY_SECONDS
from hourllava.serving.media import list_media
from hourllava.serving.subtitles import as_webvtt, cues_of_file

router = APIRouter(responses=ERRORS)

PAGE_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class Health(BaseModel):
    """That the server lives, or is ready."""

    status: Literal["ok", "draining", "no_replica"]


class MediaObject(BaseModel):
    """A file of the media folder."""

    path: str
    bytes: int
    modified_at: int
    kind: str


class MediaList(BaseModel):
    """The files of the media folder."""

    data: list[MediaObject]


class SettingsObject(BaseModel):
    """What a client may do here."""

    model: str
    needs_key: bool
    media_root: bool
    allow_urls: bool
    max_upload_bytes: int
    max_video_seconds: float
    max_frames: int
    max_fps: float
    max_question_characters: int
    max_turns: int
    max_options: int
    max_subtitle_bytes: int
    max_new_tokens: int
    context_tokens: int


def _text(kind: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {kind: {"schema": {"type": "string"}}}, "description": "text"}}


@router.get("/health")
async def health() -> Health:
    """Whether the process lives: always ok."""
    return Health(status="ok")


@router.get("/ready")
async def ready(here: Here, response: Response) -> Health:
    """Whether requests are taken: 503 while the server ends, or if no process of the model answers."""
    engine = await here.engine.status()
    if here.closing.is_draining or engine.is_draining:
        state = Health(status="draining")
    elif engine.num_replicas == 0:
        state = Health(status="no_replica")
    else:
        return Health(status="ok")
    response.status_code = 503
    response.headers["Retry-After"] = str(DRAIN_RETRY_SECONDS)
    return state


@router.get("/metrics", response_class=Response, responses=_text("text/plain"))
async def metrics(here: Here) -> Response:
    """Figures for Prometheus."""
    page = here.metrics.page(await here.engine.status(), here.num_streams)
    return Response(page, media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/hourllava/settings")
async def settings(here: Here) -> SettingsObject:
    """The limits of the server, and what it allows."""
    limits = here.settings
    return SettingsObject(
        model=here.model,
        context_tokens=here.context_tokens,
        needs_key=bool(limits.keys),
        media_root=limits.media_root is not None,
        allow_urls=bool(limits.allow_url_hosts),
        **limits.model_dump(include=set(SettingsObject.model_fields) - {"media_root"}),
    )


@router.get("/v1/hourllava/media")
async def media(here: Here) -> MediaList:
    """Videos and subtitles of the media folder."""
    found = await asyncio.to_thread(list_media, here.settings.media_root)
    return MediaList(data=[MediaObject(**dataclasses.asdict(file)) for file in found])


@router.get("/v1/hourllava/subtitles/{file_id}", response_class=Response, responses=_text("text/vtt"))
async def subtitles(file_id: str, here: Here, owner: Owner) -> Response:
    """An uploaded subtitle file as WebVTT, which players take."""
    record = await files.file_of(here, file_id, owner)
    return Response(as_webvtt(await cues_of_file(here, record)), media_type="text/vtt; charset=utf-8")


class _Page(StaticFiles):
    """The files of the page, under a policy that lets it load from this server only."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_page_headers()]
            await send(message)

        await super().__call__(scope, receive, send_with_policy)


def _page_headers() -> list[tuple[bytes, bytes]]:
    return [(b"content-security-policy", PAGE_POLICY.encode()), (b"cache-control", b"no-cache")]


def mount_page(app: FastAPI, folder: Path | None = None) -> None:
    """Serve the page at `/` and its files below `/page`.

    Args:
        app: gets the routes.
        folder: of the page; by default that of the package.
    """
    folder = folder or Path(str(package_files("hourllava.serving"))) / "page"
    if not (folder / "index.html").is_file():
        return

    async def index() -> FileResponse:
        headers = {name.decode(): value.decode() for name, value in _page_headers()}
        return FileResponse(folder / "index.html", media_type="text/html; charset=utf-8", headers=headers)

    app.add_api_route("/", index, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/page", _Page(directory=folder))
