"""Constrained decoding: a regular expression or a JSON schema determines, token by token, what may be drawn."""

import asyncio
import hashlib
import json
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from bluejay.infer.engine import QueueFull
from bluejay.infer.sampling import LogitsProcessor
from bluejay.serve.api.grammars import MAX_CHARACTERS, MAX_SECONDS, Vocabulary, compile_grammar, error_of
from bluejay.serve.middleware.access_log import RequestRecord
from bluejay.tokenizer import Tokenizer

MAX_QUEUED = 32
"""Grammars that may wait to be compiled, one at a time."""
MAX_CACHED = 128
MAX_CACHED_BYTES = 1_000_000
"""Memory above which a compiled grammar is not kept."""
TOKENS_PER_SECOND = 1000
"""The charge for compiling a grammar: a millisecond of a processor costs as much as a token."""


class Constraints:
    """Creates constraints for one tokenizer, in a thread of their own, after a trial in a process of their own."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.executor = ThreadPoolExecutor(1, "grammars")
        self.n_queued = 0
        self.lock = threading.Lock()
        self.process: subprocess.Popen[str] | None = None
        self.cache: OrderedDict[bytes, LLMatcher | str] = OrderedDict()
        """Hash of a grammar -> its matcher, or why it is refused; the most recently used one is last."""

    @cached_property
    def vocabulary(self) -> LLTokenizer:
        """llguidance's view of the vocabulary."""
        spelled = self.tokenizer.token_bytes()
        return Vocabulary(spelled, self.tokenizer.eot, self.tokenizer.encode).for_grammars(self.tokenizer.ends)

    def start(self) -> None:
        """Begin to load what the first constraint needs, so that its request does not pay for it."""
        self.executor.submit(self._prepare)

    def close(self) -> None:
        """End the process and the thread."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        with self.lock:
            self._end_process()

    async def compile(self, kind: str, source: str, record: RequestRecord | None = None) -> "Constraint":
        """The constraint of a `regex` or a `json` schema, charged to the client of a request.

        Raises ValueError with one sentence, QueueFull, and APIError if the client has used up its tokens.
        """
        if len(source) > MAX_CHARACTERS:
            raise ValueError(f"it is longer than {MAX_CHARACTERS:,} characters")
        key = hashlib.sha256(f"{kind} {source}".encode("utf-8", "surrogatepass")).digest()
        if key not in self.cache:
            if self.n_queued >= MAX_QUEUED:
                raise QueueFull("too many constraints wait to be compiled")
            reserved = int(MAX_SECONDS * TOKENS_PER_SECOND)
            if record is not None:
                record.reserve(reserved)
            self.n_queued += 1
            try:
                loop = asyncio.get_running_loop()
                found, seconds, kept = await loop.run_in_executor(self.executor, self.compile_now, kind, source)
            finally:
                self.n_queued -= 1
            if record is not None:
                record.refund(reserved - int(seconds * TOKENS_PER_SECOND) - 1)
            if not kept:
                return self._constraint(found)
            self.cache[key] = found
            while len(self.cache) > MAX_CACHED:
                self.cache.popitem(last=False)
        self.cache.move_to_end(key)
        return self._constraint(self.cache[key])

    def regex(self, pattern: str) -> "Constraint":
        """The constraint that a whole answer matches a regular expression in Rust's syntax. Raises ValueError."""
        return self._constraint(self.compile_now("regex", pattern)[0])

    def json(self, schema: dict[str, Any]) -> "Constraint":
        """The constraint that answers follow a JSON schema. Raises ValueError if it is invalid or not supported."""
        return self._constraint(self.compile_now("json", json.dumps(schema))[0])

    def compile_now(self, kind: str, source: str) -> tuple[LLMatcher | str, float, bool]:
        """A matcher or why there is none, the seconds that the trial took, and whether to keep the result."""
        with self.lock:
            result = self._try(kind, source)
        if result["error"] is not None:
            return result["error"], result["seconds"], True
        small = result["bytes"] <= MAX_CACHED_BYTES
        return compile_grammar(self.vocabulary, kind, source), result["seconds"], small

    def _constraint(self, found: LLMatcher | str) -> "Constraint":
        if isinstance(found, str):
            raise ValueError(found)
        return Constraint(found, self.tokenizer.ends)

    def _prepare(self) -> None:
        assert self.vocabulary
        with self.lock:
            self._process()

    def _try(self, kind: str, source: str) -> dict[str, Any]:
        """The result of `bluejay.serve.api.grammars.trial`, in that module's process."""
        for _ in range(2):
            process = self._process()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps([kind, source]) + "\n")
                process.stdin.flush()
                if answer := process.stdout.readline():
                    return json.loads(answer)
            except BrokenPipeError:
                pass
            self._end_process()  # the system killed it, perhaps because memory ran out; another takes its place
        return {"error": "it could not be compiled now; try again", "seconds": MAX_SECONDS, "bytes": 0}

    def _process(self) -> subprocess.Popen[str]:
        if self.process is None:
            command = [sys.executable, "-P", "-m", "bluejay.serve.api.grammars"]
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
            assert self.process.stdin is not None
            tokens = [spelled.decode("latin-1") for spelled in self.tokenizer.token_bytes()]
            self.process.stdin.write(json.dumps([tokens, self.tokenizer.eot, list(self.tokenizer.ends)]) + "\n")
        return self.process

    def _end_process(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


class Constraint:
    """A constraint on the answers to one request. The engine calls it for the logits processor of each sample."""

    def __init__(self, matcher: LLMatcher, ends: Sequence[int]) -> None:
        self.matcher = matcher
        self.ends = list(ends)
        self.error: str | None = None
        """Why a sample could not be constrained to its end, which may become known only during generation."""

    def __call__(self) -> LogitsProcessor:
        """The logits processor of a new sample."""
        matcher = self.matcher.deep_copy()

        def constrain(generated: list[int], logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
            if generated:
                matcher.consume_token(generated[-1])
            bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
            allowed = torch.from_numpy(np.unpackbits(bits, count=len(logits), bitorder="little").astype(bool))
            if matcher.is_error():
                self.error = error_of(matcher)
                allowed[self.ends] = True
            return logits.masked_fill(~allowed.to(logits.device), -torch.inf)

        return constrain
