"""A server that really listens, with its worker and clock, in threads of the test's process."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import uvicorn

from broker.database import Database
from web import compose
from web.app import make_app
from web.client.place import Place
from web.clock import Clock
from web.settings import load_settings
from web.worker import Worker, register


@contextlib.contextmanager
def live_server(database: Database, data_dir: Path) -> Iterator[Place]:
    """Serve this database; `data_dir` gets the files by which commands find the server."""
    settings = load_settings(
        data_dir=data_dir,
        port=0,
        sweep_interval=1,
        listing_interval=1,
        full_listing_interval=0,
        first_look=0.05,
        last_look=0.5,
        settle_time=0.3,
    )
    with compose.services(settings, replace(database, is_embedded=False)) as services:
        register(services.queue, services)
        with Worker(services.queue, size=4) as working, Clock(services) as ticking:
            app = make_app(services, is_working=lambda: working.is_alive, is_ticking=lambda: ticking.is_alive)
            with _listening(uvicorn.Config(app, port=0, lifespan="off", log_config=None, ws="none")) as port:
                place = Place(f"http://127.0.0.1:{port}", settings.token_file.read_text().strip())
                settings.address_file.write_text(f"{place.url}\n")
                yield place


@contextlib.contextmanager
def _listening(config: uvicorn.Config) -> Iterator[int]:
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the server ended while starting"
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.02)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
