"""The page's files. The URLs of all but index.html contain a hash of their content, so that browsers cache them forever
and a second visit requests a single file."""

import hashlib
from importlib import resources
from pathlib import PurePath
from typing import Any

from fastapi import FastAPI, Request, Response

MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
CACHE_FOREVER = "public, max-age=31536000, immutable"


def add_page(app: FastAPI) -> None:
    """Serve index.html at / and the other files in one folder, so that their imports of each other work."""
    files = {file.name: file.read_bytes() for file in (resources.files("bluejay.serve") / "page").iterdir()}
    folder = hashlib.sha256(b"".join(content for _, content in sorted(files.items()))).hexdigest()[:12]
    page = files.pop("index.html").decode()
    for name, content in files.items():
        page = page.replace(f'"{name}"', f'"{folder}/{name}"')
        app.add_route(f"/{folder}/{name}", endpoint(name, content, {"Cache-Control": CACHE_FOREVER}))
    # The browser requests all modules at once, not only after it has read the module that imports them.
    modules = ", ".join(f"<{folder}/{name}>; rel=modulepreload" for name in sorted(files) if name.endswith(".js"))
    app.add_route("/", endpoint("index.html", page.encode(), {"Cache-Control": "no-cache", "Link": modules}))


def endpoint(name: str, content: bytes, headers: dict[str, str]) -> Any:
    """A handler that serves one file from memory; no request can name any other file."""
    media_type = MEDIA_TYPES[PurePath(name).suffix]

    async def answer(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=headers)

    return answer
