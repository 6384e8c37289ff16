"""The server as an ASGI app.

    app = create_app(engine, Store(Path("store")), ServeSettings())

It knows an engine by its protocol only, and its clients by the HTTP API only; the page is such a client.
"""

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from hourllava import __version__
from hourllava.serving.access import SignedAddresses
from hourllava.serving.closing import Closing
from hourllava.serving.context import Context
from hourllava.serving.download import Fetcher
from hourllava.serving.drawing import Drawing
from hourllava.serving.errors import install_errors
from hourllava.serving.fetching import Fetching
from hourllava.serving.guards import Guard
from hourllava.serving.kept import Kept
from hourllava.serving.metrics import Metrics
from hourllava.serving.protocol import Engine
from hourllava.serving.routes import chat, files, memories, models, moments, responses, server
from hourllava.serving.settings import ServeSettings
from hourllava.serving.store import Store
from hourllava.serving.watching import Watching

THREADS = 32
"""For what waits for a disk."""


def create_app(engine: Engine, store: Store, settings: ServeSettings) -> FastAPI:
    """An app that serves an engine; its end closes the engine.

    Args:
        engine: watches and answers; the app closes it.
        store: keeps files and records.
        settings: what is allowed, and limits.
    """
    metrics = Metrics()
    context = Context(
        engine=engine,
        store=store,
        settings=settings,
        closing=Closing(),
        metrics=metrics,
        signed=SignedAddresses(settings.token_seconds),
        watching=Watching(engine, store, settings, metrics),
        fetching=Fetching(),
        fetcher=Fetcher(settings.allow_url_hosts, settings.max_upload_bytes, settings.fetch_seconds),
        drawing=Drawing(store.folder / "filmstrips", settings.video_limits),
        responses=Kept(settings.max_responses),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "hourllava-serving"))
        status = await engine.status()
        context.model, context.context_tokens = status.model, status.context_tokens
        await context.watching.resume()
        try:
            async with contextlib.nullcontext() if mcp is None else mcp.session_manager.run():
                yield
        finally:
            context.closing.end()
            await context.responses.close()
            await context.watching.close()
            await context.drawing.close()
            await engine.close()

    app = FastAPI(
        title="hourllava",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # they load scripts from another host
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    app.state.context = context
    install_errors(app)
    for routes in (models, files, chat, responses, memories, moments, server):
        app.include_router(routes.router)
    mcp = _mount_mcp(app, context)
    server.mount_page(app)
    app.add_middleware(Guard, context=context)
    return app


def _mount_mcp(app: FastAPI, context: Context) -> Any:
    """Add `/mcp`, the tools of agents; None without the package `mcp`. The result's session manager must run."""
    if importlib.util.find_spec("mcp") is None:
        return None
    from hourllava.serving.mcp_server import create_mcp, mcp_routes

    async def get_context() -> Context:
        return context

    tools = create_mcp(get_context)
    app.router.routes += mcp_routes(tools)
    return tools


def _operation_id(route: APIRoute) -> str:
    words: list[Any] = [route.path.strip("/").replace("v1/", "", 1).translate(str.maketrans("/{}", "_  ")), route.name]
    return "-".join("".join(str(word).split()) for word in words)
