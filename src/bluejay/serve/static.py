"""Serve the page. All files but the first have a hash of the page in their address, so that browsers keep them for
ever: a second visit requests one file, however far away the server is."""

import hashlib
import json
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request, Response

from bluejay.fields import settings_of
from bluejay.infer.params import SamplingParams

MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
IMMUTABLE = "public, max-age=31536000, immutable"


def add_page(app: FastAPI) -> None:
    """Serve the page at / and its other files in a folder named after their hash."""
    files = page_files()
    folder = hashlib.sha256(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()[:8]
    page = files.pop("index.html").decode()
    for name, content in files.items():
        page = page.replace(f'"{name}"', f'"{folder}/{name}"')
        app.add_route(f"/{folder}/{name}", endpoint(name, content, {"Cache-Control": IMMUTABLE}))
    for name, setting in settings_of(SamplingParams).items():
        page = page.replace(f'type="range" id="{name}"', f'type="range" id="{name}" value="{setting.default}"')
    # The browser requests these modules at once, not after the module that imports them; those in on_demand/ later.
    first = (name for name in sorted(files) if name.endswith(".js") and "/" not in name)
    modules = ", ".join(f"<{folder}/{name}>; rel=modulepreload" for name in first)
    app.add_route("/", endpoint("index.html", page.encode(), {"Cache-Control": "no-cache", "Link": modules}))


def page_files() -> dict[str, bytes]:
    """Path -> content: the folder `page`, the data shared with the terminal editor, and the sampling parameters."""
    files, package = {}, resources.files("bluejay")
    for folder, prefix in (("serve/page", ""), ("serve/page/on_demand", "on_demand/")):
        files |= {prefix + file.name: file.read_bytes() for file in (package / folder).iterdir() if file.is_file()}
    data = {name: json.loads((package / "assets" / f"{name}.json").read_bytes()) for name in ("editor", "examples")}
    data |= {"on_demand/limits": data["editor"].pop("limits"), "on_demand/sampling": sampling_settings()}
    # As scripts, because older browsers cannot import JSON.
    scripts = {name: json.dumps(value, ensure_ascii=False, separators=(",", ":")) for name, value in data.items()}
    return files | {f"{name}.js": f"export default {script};".encode() for name, script in scripts.items()}


def sampling_settings() -> list[dict[str, Any]]:
    """The sampling parameters for which the page makes controls; it always asks for log-probabilities."""
    return [
        {"name": one.name, "type": one.type.__name__, "low": one.low, "high": one.high, "help": one.help}
        | ({} if one.container else {"default": one.default})
        for one in settings_of(SamplingParams).values()
        if one.name not in ("logprobs", "prompt_logprobs")
    ]


def endpoint(name: str, content: bytes, headers: dict[str, str]) -> Any:
    """The handler that answers with one file. There is no path to look up, so no other file can be read."""
    media_type = MEDIA_TYPES[name.rpartition(".")[2]]

    async def answer(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=headers)

    return answer
