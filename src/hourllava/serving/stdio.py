"""The MCP tools over stdin and stdout, for an agent that starts this process."""

import asyncio
import contextlib
import os
import sys
import traceback
from pathlib import Path

from hourllava.errors import HourLlavaError
from hourllava.inference.engine import HourLlava
from hourllava.serving.app import create_app
from hourllava.serving.context import Context
from hourllava.serving.local import LocalEngine
from hourllava.serving.mcp_server import create_mcp
from hourllava.serving.protocol import Engine
from hourllava.serving.settings import ServeSettings
from hourllava.serving.start import engine_settings
from hourllava.serving.store import Store


def serve_stdio(
    model_name: str, store_folder: Path, media_root: Path, *, device: str | None = None, dtype: str | None = None
) -> None:
    """Serve the tools until stdin ends.

    The tools are listed at once; the first call waits until the model is loaded. (Hosts do not wait long for a list.)
    A model that cannot be loaded ends the process, as the command would end: with a line on stderr and an exit code.

    Args:
        model_name, device, dtype: see `HourLlava.from_pretrained`.
        store_folder: for memories; a running server may use it too.
        media_root: folder whose videos may be watched.

    Raises:
        StorageError: the store cannot be written to.
    """
    store = Store(store_folder)
    settings = ServeSettings.model_validate({"media_root": media_root})

    def load() -> Context:
        model = HourLlava.from_pretrained(model_name, device=device, dtype=dtype)
        engine: Engine = LocalEngine(model, store.memories_folder, engine_settings(model_name, settings))
        context: Context = create_app(engine, store, settings).state.context
        return context

    async def run() -> None:
        loading = asyncio.ensure_future(asyncio.to_thread(load))
        serving = asyncio.ensure_future(create_mcp(lambda: asyncio.shield(loading)).run_stdio_async())
        try:
            await asyncio.wait((loading, serving), return_when=asyncio.FIRST_COMPLETED)
            if loading.done() and (error := loading.exception()) is not None:
                _end_process(error)
            await serving
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await serving
            with contextlib.suppress(Exception):
                await close(await loading)

    asyncio.run(run())


def _end_process(error: BaseException) -> None:
    """End at once: a thread waits for stdin, and nothing wakes it as long as the host keeps that open."""
    if isinstance(error, HourLlavaError):
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(HourLlavaError.exit_code)


async def close(context: Context) -> None:
    """End what runs."""
    await context.watching.close()
    await context.drawing.close()
    await context.engine.close()
