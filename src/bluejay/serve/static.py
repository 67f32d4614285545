"""The page's files. All but the first have addresses that change with what is in them, so that a browser keeps them for
good: a second visit asks for one file, whatever the distance to the server."""

import hashlib
from importlib import resources
from pathlib import PurePath
from typing import Any

from fastapi import FastAPI, Request, Response

MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
CACHE_FOREVER = "public, max-age=31536000, immutable"


def add_page(app: FastAPI) -> None:
    """Serve the page at / and its other files beside each other, as their imports of each other want it."""
    files = {file.name: file.read_bytes() for file in (resources.files("bluejay.serve") / "page").iterdir()}
    folder = hashlib.sha256(b"".join(content for _, content in sorted(files.items()))).hexdigest()[:12]
    page = files.pop("index.html").decode()
    for name, content in files.items():
        page = page.replace(f'"{name}"', f'"{folder}/{name}"')
        app.add_route(f"/{folder}/{name}", endpoint(name, content, {"Cache-Control": CACHE_FOREVER}))
    # Modules are asked for at once, not when the one that imports them has come.
    modules = ", ".join(f"<{folder}/{name}>; rel=modulepreload" for name in sorted(files) if name.endswith(".js"))
    app.add_route("/", endpoint("index.html", page.encode(), {"Cache-Control": "no-cache", "Link": modules}))


def endpoint(name: str, content: bytes, headers: dict[str, str]) -> Any:
    """What answers with one file. Only these can ever be read: there is no path to look up."""
    media_type = MEDIA_TYPES[PurePath(name).suffix]

    async def answer(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=headers)

    return answer
