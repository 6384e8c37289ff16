"""Starts a server: model, store, app, and what it says when it is up."""

import threading
from collections.abc import Callable
from pathlib import Path

from hourllava.errors import ConfigError
from hourllava.inference.engine import HourLlava
from hourllava.serving.app import create_app
from hourllava.serving.local import EngineSettings, LocalEngine
from hourllava.serving.protocol import Engine
from hourllava.serving.ray_start import start_replicas
from hourllava.serving.server import Server
from hourllava.serving.settings import ServeSettings
from hourllava.serving.store import Store

POLL_SECONDS = 0.05


def serve(
    model_name: str,
    store_folder: Path,
    settings: ServeSettings,
    *,
    host: str,
    port: int,
    num_replicas: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    say: Callable[[str], None],
) -> None:
    """Serve a model until SIGTERM or Ctrl-C.

    Args:
        model_name, device, dtype: see `HourLlava.from_pretrained`.
        store_folder: for files and memories.
        settings: what is allowed, and limits.
        host, port: where to listen; port 0 takes a free one.
        num_replicas: processes of a Ray cluster that hold the model; None: this process holds it.
        say: gets the address once the server is up.

    Raises:
        ConfigError: nobody can listen there.
        HourLlavaError: the model cannot be loaded, or the store cannot be written to.
    """
    store = Store(store_folder, min_free_bytes=settings.min_free_bytes)
    limits = engine_settings(model_name, settings)
    engine: Engine
    if num_replicas is None:
        model = HourLlava.from_pretrained(model_name, device=device, dtype=dtype)
        engine = LocalEngine(model, store.memories_folder, limits)
    else:
        engine = start_replicas(model_name, store.memories_folder, limits, num_replicas, device=device, dtype=dtype)
    server = Server(create_app(engine, store, settings), host, port)

    def announce() -> None:
        while not server.started and not server.should_exit:
            if ended.wait(POLL_SECONDS):
                return
        say(f"{server.address}  (model {shown_model(model_name)}, files and memories in {store.folder})")

    ended = threading.Event()
    announcer = threading.Thread(target=announce, daemon=True)
    announcer.start()
    try:
        server.run()
    except SystemExit as error:  # uvicorn's, when it cannot listen
        raise ConfigError(f"{host}:{port} cannot be listened at: it is in use, or not of this machine") from error
    finally:
        ended.set()
        announcer.join()


def engine_settings(model_name: str, settings: ServeSettings) -> EngineSettings:
    """Settings of the engine behind a server."""
    return EngineSettings(
        name=shown_model(model_name), max_waiting_watches=settings.max_watches_waiting, limits=settings.video_limits
    )


def shown_model(name: str) -> str:
    """The name that clients use: that of a model on the hub without its owner, or that of a folder."""
    last = Path(name).name or "model"
    return last if last.startswith("hourllava") else f"hourllava-{last}"
