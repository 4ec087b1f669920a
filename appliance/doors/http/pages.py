"""The console's files, read once at start from the package, and the pages that tell why there is no console."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Final

from aiohttp import web

__all__ = ["SECURITY_HEADERS", "Pages"]

_TYPES: Final[Mapping[str, str]] = {
    "html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml",
}

SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self'; worker-src 'self'; manifest-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    "Permissions-Policy": "camera=(self), microphone=(self), autoplay=(self), geolocation=(), payment=(), usb=()",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    content_type: str
    etag: str


class Pages:
    """Static files by name, with strong ETags; the browser asks again each time and mostly gets a 304."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}

    def load(self) -> None:
        """Read the package's files. Blocking: call it off the loop."""
        for entry in resources.files("appliance.console").iterdir():
            kind = _TYPES.get(entry.name.rpartition(".")[2])
            if kind is not None:
                body = entry.read_bytes()
                self._files[entry.name] = _File(body, kind, hashlib.sha256(body).hexdigest()[:32])

    def serve(self, request: web.Request, name: str) -> web.StreamResponse:
        """The file; raises HTTPNotFound."""
        file = self._files.get(name)
        if file is None:
            raise web.HTTPNotFound
        headers = {"ETag": f'"{file.etag}"', "Cache-Control": "no-cache"}
        known = request.if_none_match or ()
        if any(tag.value in (file.etag, "*") for tag in known):
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.body, content_type=file.content_type, charset="utf-8", headers=headers)

    def notice(self, status: int, title: str, text: str, command: str = "") -> web.Response:
        """A page with a reason, and the command that helps where there is one."""
        template = Template(self._files["notice.html"].body.decode())
        shown = f'<pre class="command"><code>{html.escape(command)}</code></pre>' if command else ""
        page = template.safe_substitute(title=html.escape(title), text=html.escape(text), command=shown)
        return web.Response(text=page, status=status, content_type="text/html", headers={"Cache-Control": "no-store"})

    def arrived(self, target: str) -> web.Response:
        """Go on from here by the page itself: a SameSite=Strict cookie set on a redirect that another site began
        would not be sent with it."""
        template = Template(self._files["arrived.html"].body.decode())
        return web.Response(text=template.safe_substitute(target=html.escape(target)), content_type="text/html",
                            headers={"Cache-Control": "no-store"})
