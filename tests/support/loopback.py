"""Servers of a test on loopback: pages and applications of aiohttp, and servers of the standard library on a thread."""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from aiohttp import web

__all__ = ["ThreadedServer", "served", "served_page"]


@asynccontextmanager
async def served(
    app: web.Application, *, tls: ssl.SSLContext | None = None, shutdown_s: float = 60.0,
) -> AsyncIterator[int]:
    """The port of 127.0.0.1. ``shutdown_s``: how long whoever is still being answered may hold the end up."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown_s)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def served_page(html: str, app: web.Application | None = None) -> AsyncIterator[str]:
    """The address of a page; ``app`` has what else is served beside it."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=html, content_type="text/html")

    app = web.Application() if app is None else app
    app.router.add_get("/", page)
    async with served(app) as port:
        yield f"http://127.0.0.1:{port}/"


class ThreadedServer:
    """``server`` answers from ``__enter__`` to ``__exit__``, which leaves neither thread nor socket."""

    def __init__(self, server: socketserver.BaseServer) -> None:
        self._served = server
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._served.shutdown()
        self._thread.join()
        self._served.server_close()
