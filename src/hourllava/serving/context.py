"""What every route of a server has at hand."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from hourllava.serving.access import SignedAddresses
from hourllava.serving.closing import Closing
from hourllava.serving.download import Fetcher
from hourllava.serving.drawing import Drawing
from hourllava.serving.errors import ErrorBody
from hourllava.serving.fetching import Fetching
from hourllava.serving.kept import Kept
from hourllava.serving.metrics import Metrics
from hourllava.serving.protocol import Engine
from hourllava.serving.settings import ServeSettings
from hourllava.serving.store import Store
from hourllava.serving.watching import Watching

ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "the request is wrong"},
    "5XX": {"model": ErrorBody, "description": "the server cannot answer"},
}
"""Errors of every route, for the schema."""


@dataclass
class Context:
    """One server's parts.

    Attributes:
        engine: watches and answers.
        store: keeps files and records.
        settings: what is allowed.
        closing: whether the server ends.
        metrics: what is counted.
        signed: addresses for players.
        watching: memories of the clients' videos.
        fetching: addresses that were fetched lately.
        fetcher: fetches videos.
        drawing: makes filmstrips and frames.
        model, context_tokens: of the engine, from the start of the server on.
        responses: answers of `/v1/responses`, each a `responding.Run`.
        num_uploads: uploads and fetches that are coming in.
        num_streams: streams of events that are open.
        questions: number of questions of each client that are being answered.
    """

    engine: Engine
    store: Store
    settings: ServeSettings
    closing: Closing
    metrics: Metrics
    signed: SignedAddresses
    watching: Watching
    fetching: Fetching
    fetcher: Fetcher
    drawing: Drawing
    responses: Kept[Any]
    model: str = ""
    context_tokens: int = 0
    num_streams: int = 0
    num_uploads: int = 0
    questions: dict[str, int] = field(default_factory=dict)


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _owner(request: Request) -> str:
    owner: str = request.scope["state"]["owner"]
    return owner


async def _get_context(request: Request) -> Context:
    return _context(request)


async def _get_owner(request: Request) -> str:
    return _owner(request)


Here = Annotated[Context, Depends(_get_context)]
Owner = Annotated[str, Depends(_get_owner)]


def base_url(request: Request, context: Context) -> str:
    """Address of the server as its clients see it, without a slash at the end."""
    return context.settings.public_url or str(request.base_url).rstrip("/")
