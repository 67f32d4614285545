"""A hub on this machine, which breaks off, lies and refuses as the real one may."""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub

COMMIT, OLD_COMMIT = "c" * 40, "d" * 40
EXPIRED = "hf_expired"
"""A token that the hub refuses."""
LARGE = ("safetensors", "bin", "h5", "msgpack")
"""Endings of files that lie in large-file storage."""


@dataclass
class Hub:
    """What the server has and what it was asked for."""

    url: str = ""
    storage: str = ""
    """Where large files are, by another name, as with the real one."""
    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """Repository -> commit -> file -> content."""
    branches: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, "old": OLD_COMMIT})
    """Branch -> commit, in all repositories."""
    sent: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """File -> first byte and number of bytes of each answer."""
    cuts: list[int] = field(default_factory=list)
    """After so many bytes the connection is closed, once each."""
    corrupt: dict[str, int] = field(default_factory=dict)
    """File -> how many of its next answers have a bit changed."""
    ranges: bool = True
    stall: threading.Event | None = None
    """Half an answer is held back until this is set."""
    refusal: tuple[int, str] | None = None
    """Status and X-Error-Code of every answer about a file."""
    metadata: dict[str, object] = field(default_factory=dict)
    """What is said of every file instead of the truth."""

    def add(self, repo: str, files: dict[str, bytes], commit: str = COMMIT) -> None:
        self.repos.setdefault(repo, {})[commit] = files

    def fetched(self) -> set[str]:
        return set(self.sent)


def digest_of(name: str, content: bytes) -> str:
    """What the hub calls a file by."""
    if name.rpartition(".")[2] in LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    """The paths and headers that the hub's client knows."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def reply(self, status: int, body: bytes = b"", **headers: object) -> None:
            self.send_response(status)
            for key, value in ({"Content-Length": len(body)} | headers).items():
                self.send_header(key.replace("_", "-"), str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if found := re.fullmatch(r"/api/models/(.+)/revision/([^/]+)", path):
                self.describe(*found.groups())
            elif found := re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", path):
                self.redirect(*found.groups())
            elif found := re.fullmatch(r"/storage/(.+)/([^/]+)/([^/]+)", path):
                self.send(found[3], hub.repos[found[1]][found[2]][found[3]])
            else:
                self.reply(404)

        def commit(self, repo: str, revision: str) -> str | None:
            """The commit of a revision; answers where there is none."""
            if repo not in hub.repos:
                self.reply(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            elif revision in hub.repos[repo] or revision in hub.branches:
                return hub.branches.get(revision, revision)
            else:
                self.reply(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
            return None

        def describe(self, repo: str, revision: str) -> None:
            if self.headers.get("Authorization") == f"Bearer {EXPIRED}":
                return self.reply(401, X_Error_Message="Invalid credentials in Authorization header")
            if (commit := self.commit(repo, revision)) is None:
                return None
            siblings = []
            for name, content in hub.repos[repo][commit].items():
                sibling = {"rfilename": name, "size": len(content), "blobId": digest_of("", content)}
                if name.rpartition(".")[2] in LARGE:
                    sibling["lfs"] = {"sha256": digest_of(name, content), "size": len(content), "pointerSize": 134}
                siblings.append(sibling | hub.metadata)
            about = {"_id": "1", "id": repo, "modelId": repo, "sha": commit, "private": False, "siblings": siblings}
            return self.reply(200, json.dumps(about).encode(), Content_Type="application/json")

        def redirect(self, repo: str, revision: str, name: str) -> None:
            """Small files are sent, large ones lie elsewhere."""
            if hub.refusal is not None:
                status, code = hub.refusal
                return self.reply(status, X_Error_Code=code)
            if (commit := self.commit(repo, revision)) is None:
                return None
            if name not in hub.repos[repo][commit]:
                return self.reply(404, X_Error_Code="EntryNotFound")
            content = hub.repos[repo][commit][name]
            digest = f'"{digest_of(name, content)}"'
            if name.rpartition(".")[2] not in LARGE:
                return self.send(name, content, X_Repo_Commit=commit, ETag=digest)
            place = f"{hub.storage}/storage/{repo}/{commit}/{name}"
            linked = {"X_Linked_Size": len(content), "X_Linked_ETag": digest}
            return self.reply(302, Location=place, X_Repo_Commit=commit, **linked)

        def send(self, name: str, content: bytes, **headers: object) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            start = int(asked[1]) if asked and hub.ranges else 0
            part = content[start:]
            self.send_response(206 if asked and hub.ranges else 200)
            headers |= {"Content-Length": len(part), "Accept-Ranges": "bytes"}
            if asked:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), str(value))
            self.end_headers()
            if self.command == "HEAD":
                return
            if hub.corrupt.get(name, 0) > 0:
                hub.corrupt[name] -= 1
                part = part[:-1] + bytes([part[-1] ^ 1])
            cut = hub.cuts.pop(0) if hub.cuts else len(part)
            answer = part[:cut]
            hub.sent.setdefault(name, []).append((start, len(answer)))
            with contextlib.suppress(ConnectionError):
                if hub.stall is not None:
                    self.wfile.write(answer[: len(answer) // 2])
                    self.wfile.flush()
                    hub.stall.wait(300)
                    answer = answer[len(answer) // 2 :]
                self.wfile.write(answer)
            self.close_connection = cut < len(part)

    return Handler


@contextlib.contextmanager
def serving(handler: Callable[[Hub], type[BaseHTTPRequestHandler]] = handler) -> Iterator[Hub]:
    """A hub on a port of this machine."""
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(hub)) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        hub.storage = f"http://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield hub
        huggingface_hub.close_session()
        server.shutdown()
        thread.join()
