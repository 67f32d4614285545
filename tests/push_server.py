"""The half of the loopback hub that takes files: large-file storage and commits, as the hub's client sends them."""

import base64
import contextlib
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler

from tests.gpt.hub_server import COMMIT, LARGE, Hub
from tests.gpt.hub_server import handler as giving


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    """A hub to push to. `hub.stored` are the blobs by hash, `hub.received` the bytes of each upload."""
    hub.stored, hub.received, hub.posted = {}, [], []  # type: ignore[attr-defined]

    class Handler(giving(hub)):  # type: ignore[misc]
        def answer(self, values: object, status: int = 200) -> None:
            self.reply(status, json.dumps(values).encode(), Content_Type="application/json")

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].replace("/api/datasets/", "/api/models/")
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
                return self.describe(found[1], found[2] or "main")
            return super().do_GET()

        def do_PUT(self) -> None:
            oid, length = self.path.rpartition("/")[2], int(self.headers["Content-Length"])
            cut = hub.cuts.pop(0) if hub.cuts else length
            with contextlib.suppress(ConnectionError):
                content = self.rfile.read(cut)
                hub.received.append((oid, len(content)))  # type: ignore[attr-defined]
                if cut < length:
                    self.close_connection = True
                    self.connection.close()
                    return
                if hashlib.sha256(content).hexdigest() == oid:
                    hub.stored[oid] = content  # type: ignore[attr-defined]
                self.reply(200)

        def do_POST(self) -> None:
            body, path = self.body(), self.path.partition("?")[0].replace("/api/datasets/", "/api/models/")
            hub.posted.append(path)  # type: ignore[attr-defined]
            if hub.refusal is not None:
                return self.reply(hub.refusal[0], X_Error_Message="You have no right to write")
            if path == "/api/validate-yaml":  # the front matter of a card
                return self.answer({"errors": [], "warnings": []})
            if path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                hub.metadata.setdefault("created", asked)
                status = 409 if name in hub.repos else 200
                hub.repos.setdefault(name, {COMMIT: {}})
                return self.answer({"url": f"{hub.url}/{name}"}, status)
            if re.fullmatch(r"/api/models/.+/preupload/main", path):
                names = [file["path"] for file in json.loads(body)["files"]]
                modes = {name: "lfs" if name.endswith((*LARGE, ".parquet", ".png")) else "regular" for name in names}
                return self.answer(
                    {"files": [{"path": n, "uploadMode": mode, "shouldIgnore": False} for n, mode in modes.items()]}
                )
            if path.endswith("/info/lfs/objects/batch"):
                return self.answer(
                    {"transfer": "basic", "objects": list(map(self.action, json.loads(body)["objects"]))}
                )
            if found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
                return self.commit_files(found[1], [json.loads(line) for line in body.splitlines()])
            return self.reply(404)

        def action(self, asked: dict) -> dict:
            """Where a blob is to be sent; nowhere if it is here."""
            upload = {"upload": {"href": f"{hub.url}/upload/{asked['oid']}"}}
            return asked | ({} if asked["oid"] in hub.stored else {"actions": upload})  # type: ignore[attr-defined]

        def commit_files(self, repo: str, lines: list[dict]) -> None:
            files = dict(hub.repos[repo][COMMIT])
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.stored[value["oid"]]  # type: ignore[attr-defined]
            for name in [name for name, times in hub.corrupt.items() if times]:
                hub.corrupt[name] -= 1
                files[name] = files[name] + b"!"
            hub.repos[repo][COMMIT] = files
            self.answer({"commitUrl": f"{hub.url}/{repo}/commit/{COMMIT}", "commitOid": COMMIT, "pullRequestUrl": ""})

    return Handler
