"""`/v1/trace`: the documents that a text stands in, with their licences and the steps that read them.

A corpus can be private, so a server on the open web answers only where `trace` is switched on. A client is charged for
the tokens of its text before any work, and the work is bounded by limits on the text, the spans and the documents.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field, WithJsonSchema

from bluejay.serve.api.model_catalogue import Catalogue
from bluejay.serve.api.parameters import Body, JSONRoute, is_token_ids
from bluejay.serve.errors import ERRORS, APIError, json_response
from bluejay.serve.middleware.access_log import current_request
from bluejay.serve.settings import ServeSettings
from bluejay.trace.corpora import open_tracer
from bluejay.trace.index import NotIndexed
from bluejay.trace.indexing import index, needs_of
from bluejay.trace.spans import Quoted
from bluejay.trace.tracing import Traced, Tracer, TraceSettings

MAX_TOKENS = 4096
"""Tokens of a text that is traced."""
MAX_DOCUMENTS, MAX_SPANS = 10, 200
MAX_AROUND = 200
"""Tokens of a snippet on each side of a match."""
MAX_LOGPROB = 1e6
"""Nats of a token, far more than a model gives one; sums of larger numbers would not be finite."""
INPUT_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}}]}


Logprob = Annotated[float, Field(ge=-MAX_LOGPROB, le=MAX_LOGPROB)]


class TraceRequest(Body):
    """The text to trace."""

    input: Annotated[Any, WithJsonSchema(INPUT_SCHEMA)] = Field(description="A text, or its token ids.")
    model: str | None = Field(None, description="The name of the served model, which may be left out.")
    min_tokens: int = Field(5, ge=1, le=MAX_TOKENS, description="Tokens that a match has at least.")
    documents: int = Field(MAX_DOCUMENTS, ge=1, le=MAX_DOCUMENTS, description="Documents of each match, at most.")
    spans: int = Field(50, ge=1, le=MAX_SPANS, description="At most this many matches are returned.")
    logprobs: list[Logprob | None] | None = Field(
        None,
        max_length=MAX_TOKENS,
        description="What the model gave each token, as completions answer it; unlikely matches then come first.",
    )
    infinigram: bool = Field(False, description="Whether to say for each token how often the corpus continues so.")


class SnippetRequest(Body):
    """A match whose surroundings are asked for, by the values of one document of an answer."""

    corpus: str = Field(description="The corpus of the document.")
    model: str | None = Field(None, description="The name of the model whose answer it is, which may be left out.")
    split: str = Field(description="The split of the document.")
    position: int = Field(ge=0, lt=2**62, description="The position of the match.")
    length: int = Field(ge=1, le=MAX_TOKENS, description="Tokens of the match.")
    around: int = Field(40, ge=0, le=MAX_AROUND, description="Tokens on each side of it.")


class Opened:
    """The tracer of the served model, opened when it is first asked for, and what makes an index that it lacks."""

    def __init__(self, model: Path | None, corpora: Sequence[str]) -> None:
        self.model, self.corpora = model, [Path(corpus) for corpus in corpora]
        self.tracer: Tracer | None = None
        self.lock = asyncio.Lock()
        self.making: asyncio.Task[None] | None = None
        self.done = self.total = 0
        self.failed = ""

    async def get(self) -> Tracer:
        """The tracer. Raises ValueError or OSError where nothing can be traced, which is tried again each time."""
        async with self.lock:
            if self.tracer is None:
                self.tracer = await asyncio.to_thread(self.open)
            return self.tracer

    def open(self) -> Tracer:
        """Open the corpora of the model. Raises ValueError or OSError."""
        if self.model is None:
            raise ValueError("the served model has no folder, so its corpus is not known")
        return open_tracer(str(self.model), self.corpora)

    def make(self, corpora: Sequence[Path]) -> None:
        """Begin to index corpora, unless that is under way."""
        if self.making is None or self.making.done():
            self.done, self.total, self.failed = 0, sum(needs_of(corpus).tokens for corpus in corpora), ""
            self.making = asyncio.create_task(self.index(corpora))

    async def index(self, corpora: Sequence[Path]) -> None:
        """Index corpora; the error of a failure is in the next answer."""
        try:
            for corpus in corpora:
                await asyncio.to_thread(index, corpus, advance=self.advance)
        except (ValueError, OSError) as error:
            self.failed = str(error)

    def advance(self, tokens: int) -> None:
        """Count tokens that are indexed."""
        self.done += tokens

    def missing(self, error: Exception) -> dict[str, Any] | None:
        """What making the index that is missing takes, or how far it is; None where making one does not help."""
        if not isinstance(error, NotIndexed):
            return None
        try:
            needed = [needs_of(corpus) for corpus in error.corpora]
        except (ValueError, OSError) as reason:
            return {"error": str(reason)}
        total = {name: sum(getattr(one, name) for one in needed) for name in ("tokens", "bytes", "seconds")}
        under_way = self.making is not None and not self.making.done()
        names = [corpus.name for corpus in error.corpora]
        return {"corpora": names, **total, "done": self.done if under_way else None, "error": self.failed or None}


def router(models: Catalogue, settings: ServeSettings) -> APIRouter:
    """The routes; none where strangers use the server and tracing is not switched on."""
    routes, turn = APIRouter(route_class=JSONRoute), asyncio.Lock()
    of_each: dict[str, Opened] = {}
    is_public = settings.public is not None
    if settings.public is not None and not settings.public.trace:
        return routes

    def opened(request: Request, name: str | None) -> Opened:
        """The tracer of the model that a request names, which need not be loaded. Raises APIError."""
        one = models.named(request, name)
        return of_each.setdefault(one.name, Opened(one.path, settings.corpus))

    async def tracer(request: Request, name: str | None) -> Tracer:
        try:
            return await opened(request, name).get()
        except (ValueError, OSError) as reason:
            message = "texts cannot be traced here" if is_public else str(reason)
            raise APIError(404, message, code="no_corpus") from None

    @routes.get("/v1/trace", responses=ERRORS)
    async def sources(request: Request, model: str | None = None) -> Response:
        """Whether texts can be traced, in what, and whether a client is charged for it."""
        own = opened(request, model)
        try:
            found = await own.get()
        except (ValueError, OSError) as reason:
            why = {"available": False, "reason": "" if is_public else str(reason), "charged": is_public, "corpora": []}
            missing = None if is_public else await asyncio.to_thread(own.missing, reason)
            return json_response({**why, "index": missing})
        named = zip(found.short_names.values(), found.searchers, strict=True)
        corpora = [{"name": name, "tokens": one.n_tokens} for name, one in named]
        return json_response({"available": True, "reason": None, "charged": is_public, "corpora": corpora})

    @routes.post("/v1/trace/index", status_code=202, responses=ERRORS)
    async def make_index(request: Request, model: str | None = None) -> Response:
        """Begin to make the index that is missing; `GET /v1/trace` says how far it is."""
        if is_public:
            raise APIError(403, "an index is made by whoever runs the server: bluejay index CORPUS", code="forbidden")
        own = opened(request, model)
        try:
            await own.get()
        except NotIndexed as missing:
            try:
                own.make(missing.corpora)
            except (ValueError, OSError) as reason:
                raise APIError(409, str(reason), code="cannot_index") from None
            return json_response({"object": "trace.index", "making": True}, status=202)
        except (ValueError, OSError) as reason:
            raise APIError(404, str(reason), code="no_corpus") from None
        return json_response({"object": "trace.index", "making": False}, status=202)

    @routes.post("/v1/trace", responses=ERRORS)
    async def trace(body: TraceRequest, request: Request) -> Response:
        """The matches of a text in what the model was trained on, the most telling first, with their documents."""
        service = await models.use(request, body.model)
        text = body.input
        if not isinstance(text, str) and not is_token_ids(text):
            raise APIError(400, "input must be a text or a list of token ids", param="input")
        found = await tracer(request, body.model)
        try:
            with service.reading([text] if isinstance(text, str) else [], "input", in_context=False):
                ids = await asyncio.to_thread(found.ids, text)
        except ValueError as error:
            raise APIError(400, str(error), param="input") from None
        if len(ids) > MAX_TOKENS:
            message = f"input has {len(ids):,} tokens; at most {MAX_TOKENS:,} are traced"
            raise APIError(400, message, param="input", code="text_too_long")
        if body.logprobs is not None and len(body.logprobs) != len(ids):
            message = f"logprobs has {len(body.logprobs)} values, and input has {len(ids)} tokens"
            raise APIError(400, message, param="logprobs")
        if (record := current_request.get()) is not None:
            record.reserve(len(ids))
        wanted = TraceSettings(body.min_tokens, body.documents, body.spans)
        async with turn:
            traced = await asyncio.to_thread(found.trace, text, wanted, body.logprobs)
            rows = await asyncio.to_thread(found.infinigram, ids) if body.infinigram else None
        return json_response(answer(traced, found.short_names, rows, service.model.name, is_public))

    @routes.post("/v1/trace/snippet", responses=ERRORS)
    async def snippet(body: SnippetRequest, request: Request) -> Response:
        """The text before, in and after a match."""
        found = await tracer(request, body.model)
        if (record := current_request.get()) is not None:
            record.reserve(body.length + 2 * body.around)
        place = (body.corpus, body.split, body.position)
        try:
            return json_response(await asyncio.to_thread(found.snippet, *place, body.length, body.around))
        except ValueError as error:
            raise APIError(404, str(error), param="position", code="not_found") from None

    return routes


def answer(
    traced: Traced, names: Mapping[str, str], rows: list[dict[str, Any]] | None, model: str, is_public: bool
) -> dict[str, Any]:
    """The body of an answer: corpora by their short `names`, and for strangers no address that is not of the web, such
    as the path of a file of examples."""

    def described(document: Quoted) -> dict[str, Any]:
        hidden = is_public and not document.url.startswith(("http://", "https://"))
        return {**vars(document), "corpus": names[document.corpus], "url": "" if hidden else document.url}

    # `asdict` would take as long as the search, while the engine waits.
    spans = [{**vars(span), "documents": [described(document) for document in span.documents]} for span in traced.spans]
    values = {**vars(traced), "spans": spans, "segments": [vars(segment) for segment in traced.segments]}
    return {"object": "trace", "model": model, **values, "notes": [] if is_public else traced.notes, "infinigram": rows}
