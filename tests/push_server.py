"""The half of the loopback hub that takes files: large-file storage and commits, as the hub's client sends them."""

import base64
import contextlib
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote

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
            if path.startswith("/datasets/"):
                self.path = self.path.removeprefix("/datasets")
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?(.*)", path):
                return self.tree(found[1], unquote(found[3]))
            return super().do_GET()

        def entry(self, repo: str, name: str) -> dict[str, object]:
            """What the hub says of a path in a repository."""
            files = hub.repos[repo][COMMIT]
            if name not in files:
                return {"type": "directory", "path": name, "size": 0, "oid": COMMIT}
            blob = {"oid": hashlib.sha1(files[name]).hexdigest(), "size": len(files[name])}
            return {"type": "file", "path": name} | blob

        def tree(self, repo: str, folder: str) -> None:
            """The files and folders in a folder; below it, too, if that was asked for."""
            begin, deep = f"{folder}/" if folder else "", "recursive=true" in self.path.lower()
            found = set()
            for name in hub.repos[repo][COMMIT]:
                parts = name.removeprefix(begin).split("/")
                if name.startswith(begin):
                    found |= {begin + "/".join(parts[: i + 1]) for i in range(len(parts) if deep else 1)}
            if not found:
                return self.reply(404, X_Error_Code="EntryNotFound")
            return self.answer([self.entry(repo, name) for name in sorted(found)])

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
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/paths-info/[^/]+", path):
                return self.paths_info(found[1], body.decode())
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

        def paths_info(self, repo: str, asked: str) -> None:
            """What the hub says of some paths; nothing of those that it lacks."""
            names = json.loads(asked)["paths"] if asked.startswith("{") else parse_qs(asked)["paths"]
            there = hub.repos[repo][COMMIT]
            here = [name for name in names if any(f"{one}/".startswith(f"{name}/") for one in there)]
            self.answer([self.entry(repo, name) for name in here])

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
