# ruff: noqa: SIM905 - quoted one by one, these hundred words and paths would fill two pages
"""Hostile requests as bytes, and a client that sends them in hostile ways."""

import asyncio
import json
import random
import re
from dataclasses import dataclass, field

VALUES = [
    None, True, -1, 0, 1, 3, 129, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, "", "x", "\x00\x1b[2J\r\n", "\ud800",
    "the " * 300, "\u202e\ufeff\u0000", "9" * 5000, [], [[]], [1, "a"], [1, 99999], [-1], ["a"] * 65, {}, {"a": 1},
    {"50256": 1e9}, {"type": "json_schema"}, [None], [[1], ["a"]], {"": ""}, "(a+)+$", {"include_usage": 3},
]  # fmt: skip
LITERALS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "01", "'a'", "undefined", '"\\ud800"', '"\t"']
NAMES = """
prompt max_tokens temperature top_p n best_of stream stream_options logprobs echo stop presence_penalty logit_bias
frequency_penalty seed suffix user top_k min_p typical_p repetition_penalty regex response_format model messages context
temp tokens response_length remove_input add_special_tokens unknown __proto__
""".split()
PATHS = """
/v1/completions /v1/completions /v1/completions /v1/completions /v1/chat/completions /v1/chat/completions /tokenize
/detokenize /complete /completion /model/predict /model/get_prediction
/v1/models /v1/models/%00 /v1/models/..%2f..%2fetc%2fpasswd / /healthz /metrics /card /openapi.json /../../etc/passwd
/%ff%fe //// /v1/completions/ /page.js%00.html /*
""".split()
METHODS = ["POST"] * 30 + [
    "GET",
    "HEAD",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "CONNECT",
    "post",
    "\x01",
    "A" * 300,
]


def body(rng: random.Random) -> bytes:
    """Text similar to JSON."""
    kind = rng.randrange(10)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return rng.choice([b"", b"[" * 50_000, b'{"a":' * 20_000, b"null", b"[1]", b'"x"', b"\xef\xbb\xbf{}", b"{}{}"])
    if kind == 2:
        return json.dumps({"prompt": "x"}).encode(rng.choice(["utf-16", "utf-32", "utf-8-sig"]))
    names = rng.sample(NAMES, rng.choice([0, 1, 1, 2, 5])) + rng.choice(
        [[], [], [], ["prompt"], ["context"], ["messages"]]
    )
    parts = [f"{json.dumps(name)}: {value(rng)}" for name in names]
    text = "{" + ", ".join(['"max_tokens": 2', *parts]) + "}"
    if kind == 3:
        text = text[: rng.randrange(len(text))]
    encoded = text.encode("utf-8", "surrogatepass")
    if kind == 4:
        at = rng.randrange(len(encoded))
        encoded = encoded[:at] + rng.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\x00"]) + encoded[at:]
    return encoded


def value(rng: random.Random) -> str:
    """A value, JSON or almost JSON, that is invalid for nearly every parameter."""
    return rng.choice(LITERALS) if rng.random() < 0.2 else json.dumps(rng.choice(VALUES))


def request(rng: random.Random) -> bytes:
    """A whole request, more or less."""
    content, method, path = body(rng), rng.choice(METHODS), rng.choice(PATHS)
    length = [f"Content-Length: {len(content)}"]
    tricks: list[list[str]] = [
        [], [], [], [], [], [], [], [],
        ["Transfer-Encoding: chunked"],
        [f"Content-Length: {len(content) + 1}"],
        ["X: " + "a" * rng.choice([100, 20_000, 200_000])],
        [f"X-{i}: {i}" for i in range(rng.choice([50, 3000]))],
        ["Upgrade: websocket", "Connection: Upgrade"],
        ["Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__", "Connection: Upgrade, HTTP2-Settings"],
        ["Expect: 100-continue"],
        ["no colon"],
        [" folded: yes"],
        ["X-\x00: \x00"],
        ["X-Forwarded-For: 127.0.0.1, ::1, a, [", "Forwarded: for=_hidden"],
        ["Authorization: Bearer " + "\xff" * 50],
        ["Origin: null", "Access-Control-Request-Method: \x7f"],
        ["Content-Encoding: gzip"],
        ["Content-Type: application/json; charset=utf-7"],
        ["Content-Type: multipart/form-data; boundary=" + "x" * 100],
        ["Range: bytes=0-,0-,0-", "If-None-Match: *"],
        ["Connection: close, keep-alive, \x00"],
        ["Host: a", "Host: b"],
    ]  # fmt: skip
    extra = rng.choice(tricks)
    if rng.random() < 0.05:
        length = [rng.choice(["Content-Length: -1", "Content-Length: 9" + "9" * 30, "Content-Length: 0x10", ""])]
    version = rng.choice(["HTTP/1.1"] * 20 + ["HTTP/1.0", "HTTP/0.9", "HTTP/9.9", "", "HTTP/1.1 HTTP/1.1"])
    head = [f"{method} {path} {version}", "Host: localhost", "Content-Type: application/json", *length, *extra, "", ""]
    whole = "\r\n".join(head).encode("latin-1") + content
    strange = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\n" * 50,
        b"\x00",
    ]
    return rng.choice(strange) if rng.random() < 0.01 else whole


@dataclass
class Tally:
    """The outcomes of hostile requests."""

    n_sent: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    wrong: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Requests with the invalid responses that they got."""


async def attack(port: int, tally: Tally, rng: random.Random, seconds: float) -> None:
    """Send one hostile request in one of several ways; it must be answered or closed within `seconds`."""
    content = request(rng)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    manner, answer = rng.random(), b""
    tally.n_sent += 1
    try:
        async with asyncio.timeout(seconds):
            if manner < 0.01:  # half-open: says nothing, or only the beginning
                writer.write(content[: rng.choice([0, 1, 30])])
            elif manner < 0.02:  # a body that comes too slowly
                writer.write(content[:-5])
                await writer.drain()
            elif manner < 0.07:  # goes away at once, with or without a word
                writer.write(content)
                return writer.transport.abort() if rng.random() < 0.5 else writer.close()
            else:
                writer.write(content)
            if manner > 0.9 and writer.can_write_eof():
                writer.write_eof()
            answer = await read_answer(reader, content.split(b" ")[0])
    except TimeoutError:
        tally.wrong.append((content, b"no answer; so far: " + answer))
    except OSError:  # refused while still sending: what it should have sent was too much
        return
    finally:
        writer.transport.abort()
    if answer:
        check(content, answer, tally)


async def read_answer(reader: asyncio.StreamReader, method: bytes) -> bytes:
    """The first response on a connection, empty if it was closed before."""
    answer = b""
    while part := await reader.read(65536):
        answer = (answer + part).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        head, end, rest = answer.partition(b"\r\n\r\n")
        if not end:
            continue
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if method == b"HEAD":
            return head + end
        if length and len(rest) >= int(length[1]):
            return head + end + rest[: int(length[1])]
        if not length and rest.endswith(b"0\r\n\r\n"):
            return answer
    return answer


def check(content: bytes, answer: bytes, tally: Tally) -> None:
    """Record a response, and whether it is a valid one for a hostile request."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    tally.statuses[status] = tally.statuses.get(status, 0) + 1
    fine = status < 500
    if status >= 400 and rest:
        error = json.loads(rest).get("error", {})
        fine = fine and set(error) == {"message", "type", "param", "code"} and "/src/" not in error["message"]
    if not fine:
        tally.wrong.append((content, answer))
