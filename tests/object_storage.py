"""A server of S3 on the loopback address, with what Bluejay asks of one (Amazon's API of 2006-03-01)."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5
from itertools import count
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

PAGE = 5
"""Keys of a page of a listing; Amazon's pages have 1,000."""


class ObjectServer(http.server.ThreadingHTTPServer):
    """One bucket for each name that is asked for, but for `missing`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.numbers = count(1)
        self.requests: list[str] = []
        self.refuses = ""
        """Writing keys that hold this text is forbidden, if it is not empty."""

    @property
    def environment(self) -> dict[str, str]:
        """What makes clients use this server."""
        return {
            "AWS_ENDPOINT": f"http://127.0.0.1:{self.server_port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REGION": "us-east-1",
        }


class Handler(http.server.BaseHTTPRequestHandler):
    server: ObjectServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        key, query = self.asked()
        if key.startswith("missing/") or key == "missing":
            return self.fail(404, "NoSuchBucket")
        if "list-type" in query:
            return self.listing(key, query.get("prefix", [""])[0], query.get("continuation-token", [""])[0])
        data = self.server.objects.get(key)
        if data is None:
            return self.fail(404, "NoSuchKey")
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            part = data[int(first) : int(last or len(data) - 1) + 1]
            span = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
            return self.answer(206, part, {"Content-Range": span, **describe(data)})
        self.answer(200, data, describe(data))

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        key, query = self.asked()
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if key.startswith("missing/"):
            return self.fail(404, "NoSuchBucket")
        if self.server.refuses and self.server.refuses in key:
            return self.fail(403, "AccessDenied")
        if "uploadId" in query:
            self.server.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = data
        else:
            self.server.objects[key] = data
        self.answer(200, b"", describe(data))

    def do_POST(self) -> None:
        key, query = self.asked()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "delete" in query:
            names = [found.text or "" for found in ElementTree.fromstring(body).iter() if found.tag.endswith("Key")]
            for name in names:
                self.server.objects.pop(f"{key}/{name}", None)
            rows = "".join(f"<Deleted><Key>{escape(name)}</Key></Deleted>" for name in names)
            return self.answer(200, f"<DeleteResult>{rows}</DeleteResult>".encode())
        if "uploads" in query:
            upload = str(next(self.server.numbers))
            self.server.uploads[upload] = {}
            bucket, _, name = key.partition("/")
            names = f"<Bucket>{bucket}</Bucket><Key>{escape(name)}</Key><UploadId>{upload}</UploadId>"
            root = "InitiateMultipartUploadResult"
            return self.answer(200, f"<{root}>{names}</{root}>".encode())
        parts = self.server.uploads.pop(query["uploadId"][0])
        self.server.objects[key] = b"".join(parts[number] for number in sorted(parts))
        root = "CompleteMultipartUploadResult"
        self.answer(200, f'<{root}><ETag>"1"</ETag></{root}>'.encode())

    def do_DELETE(self) -> None:
        _, query = self.asked()
        self.server.uploads.pop(query["uploadId"][0], None)
        self.answer(204, b"")

    def listing(self, bucket: str, prefix: str, after: str) -> None:
        """A page of ListObjectsV2."""
        keys = sorted(key.removeprefix(f"{bucket}/") for key in self.server.objects if key.startswith(f"{bucket}/"))
        keys = [key for key in keys if key.startswith(prefix) and key > after]
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.server.objects[f'{bucket}/{key}'])}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in keys[:PAGE]
        )
        more = len(keys) > PAGE
        token = f"<NextContinuationToken>{escape(keys[PAGE - 1])}</NextContinuationToken>" if more else ""
        cut = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        self.answer(200, f"<ListBucketResult>{cut}{token}{rows}</ListBucketResult>".encode())

    def asked(self) -> tuple[str, dict[str, list[str]]]:
        """Bucket and key, and the query."""
        self.server.requests.append(f"{self.command} {self.path}")
        parts = urlsplit(self.path)
        return unquote(parts.path).strip("/"), parse_qs(parts.query, keep_blank_values=True)

    def fail(self, status: int, code: str) -> None:
        self.answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def describe(data: bytes) -> dict[str, str]:
    """The headers of an object."""
    return {"ETag": f'"{md5(data).hexdigest()}"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}


@contextmanager
def object_server() -> Iterator[ObjectServer]:
    """A server that runs while the block does."""
    with ObjectServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
