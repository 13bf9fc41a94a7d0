"""The console's pages: static files of the package, read once, each with a hash by which a browser keeps it."""

from __future__ import annotations

import hashlib
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from headrace.gateway.problems import not_found

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """A file as it is served."""

    content: bytes
    media_type: str
    tag: str


@cache
def assets() -> dict[str, Asset]:
    """All files below pages/ that are served, by their path."""
    found: dict[str, Asset] = {}
    folders = [("", files(__package__).joinpath("pages"))]
    while folders:
        below, folder = folders.pop()
        for one in folder.iterdir():
            path = f"{below}{one.name}"
            if one.is_dir():
                folders.append((f"{path}/", one))
            elif (kind := _TYPES.get(path[path.rfind(".") :])) is not None:
                content = one.read_bytes()
                found[path] = Asset(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


async def page(request: Request) -> Response:
    """The one page; its modules show the rest."""
    return _served(request, "index.html")


async def asset(request: Request) -> Response:
    """A module, style sheet or picture of the page."""
    return _served(request, request.path_params["path"])


def _served(request: Request, path: str) -> Response:
    # From a table, so that no path leads anywhere else.
    found = assets().get(path)
    if found is None:
        raise not_found("The console has no such file.")
    # A browser asks each time and gets the file only if it changed: a page never runs with modules of another release.
    headers = {"etag": found.tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)
