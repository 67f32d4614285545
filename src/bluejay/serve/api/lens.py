"""`/v1/lens`: what is inside the model when it reads a text.

Each question costs a run of the model in torch, apart from the engine, and some cost one for each token: strangers are
not answered, and so a server on the open web has no such route.
"""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field, WithJsonSchema

from bluejay.infer.exceptions import ContextLengthError
from bluejay.infer.model import load
from bluejay.infer.needs import INSIDE
from bluejay.infer.prompts import encode_prompts, end_of
from bluejay.lens.ablation import without_tokens
from bluejay.lens.activations import Lens
from bluejay.lens.heads import history, kept_models, scored
from bluejay.lens.layers import TunedLens
from bluejay.lens.patching import pair_of, patch
from bluejay.lens.prediction import look
from bluejay.serve.api.completions import STREAM_CONTENT, CompletionAnswer
from bluejay.serve.api.model_catalogue import Catalogue
from bluejay.serve.api.parameters import Body, JSONRoute, check_texts
from bluejay.serve.api.respond import to_api_error, unless_gone
from bluejay.serve.api.steered import Direction, SteeredRequest, cost, direction, respond
from bluejay.serve.engine_thread import TimeLimitExceeded
from bluejay.serve.errors import ERRORS, APIError, json_response
from bluejay.serve.settings import ServeSettings
from bluejay.trace.spans import char_offsets

MAX_TOKENS = 512
"""Tokens of a text that is looked at."""
MAX_WRITTEN = 256
"""Tokens that a model which a run kept writes."""
TOKEN_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "null"}]}
ONE_TEXT = [{"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}}]
TEXT_SCHEMA = {"anyOf": [*ONE_TEXT, {"type": "array", "items": {"anyOf": ONE_TEXT}, "minItems": 1, "maxItems": 1}]}
Token = Annotated[Any, WithJsonSchema(TOKEN_SCHEMA)]
Text = Annotated[Any, WithJsonSchema(TEXT_SCHEMA)]


class LensRequest(Body):
    """The body of `/v1/lens`: the text that the model reads, and the questions about what is inside the model then."""

    input: Text = Field(description="A text, or its token ids, or a list of one such.")
    model: str | None = Field(None, description="The name of the served model, which may be left out.")
    position: int = Field(-1, description="The position whose prediction is explained, from the end if negative.")
    target: Token = Field(None, description="The token whose logit is explained; the likeliest when it is left out.")
    against: Token = Field(None, description="A token whose logit is subtracted.")
    without: bool = Field(False, description="Whether to say what happens to the prediction without each token.")
    everywhere: bool = Field(True, description="Whether to read the layers at all positions, not at this one alone.")
    tuned: bool = Field(False, description="Whether to read the layers through the model's tuned lens.")
    corrupt: Text = Field(None, description="A text of equal length that activations of the first are patched into.")
    part: Literal["residual", "attention", "mlp", "heads"] = Field("heads", description="What is patched.")
    steering: Direction | None = Field(None, description="A direction whose cost in bits per byte is measured.")


READ = {
    "steering": {"input", "model", "steering"},
    "corrupt": {"input", "model", "corrupt", "part", "target", "against"},
    "a look": {"input", "model", "position", "target", "against", "without", "everywhere", "tuned"},
}
"""The fields of a request that each method reads; the first whose field is given is the one that is asked for."""


class KeptRequest(Body):
    """The text that a model which a run kept continues, and how it samples."""

    prompt: str = Field(description="The text to continue, of which the end is read where it is too long.")
    max_tokens: int = Field(64, ge=1, le=MAX_WRITTEN)
    temperature: float = Field(0.8, ge=0, le=2)
    top_p: float = Field(0.95, gt=0, le=1)
    seed: int | None = None


def router(models: Catalogue, settings: ServeSettings) -> APIRouter:
    """The routes; none where strangers use the server."""
    routes, turn = APIRouter(route_class=JSONRoute), asyncio.Lock()
    if settings.public is not None:
        return routes

    async def answered(request: Request, answer: Callable[..., Any], *arguments: Any) -> Any:
        """What a function answers in a thread, one at a time; of a client that goes away before its turn, nothing is
        computed. Raises APIError then, for a user's mistake, and when the time is over."""

        async def work() -> Any:
            async with turn:
                running = asyncio.ensure_future(asyncio.to_thread(answer, *arguments))
                try:
                    return await asyncio.shield(running)
                except asyncio.CancelledError:
                    await asyncio.wait([running])  # a thread cannot be stopped, and its turn ends with it
                    raise

        try:
            with blaming(None):
                async with asyncio.timeout(settings.time_limit):
                    return await unless_gone(request, work())
        except TimeoutError:
            raise to_api_error(TimeLimitExceeded()) from None

    @routes.post("/v1/lens", responses=ERRORS)
    async def look_inside(body: LensRequest, request: Request) -> Response:
        """What each layer would have said, what made a prediction, where attention looked; what happens without each
        token; with a second text, what each activation of the first brings back; and what steering costs."""
        require_fitting(body)
        service = await models.use(request, body.model, INSIDE)
        texts = [text for text in (body.input, body.corrupt) if isinstance(text, str)]
        with service.reading(texts, "input"):
            values = await answered(request, lambda: found(service.lens, body))
        return json_response({"object": "lens", "model": service.model.name, **values})

    @routes.post(
        "/v1/lens/completions", response_model=CompletionAnswer, responses={200: {"content": STREAM_CONTENT}, **ERRORS}
    )
    async def steered(body: SteeredRequest, request: Request) -> Response:
        """Continue prompts while a direction is added to the residual stream, in torch."""
        service = await models.use(request, body.model, INSIDE)
        opened_lens = await answered(request, lambda: service.lens)
        with blaming("steering"):
            return await respond(service, opened_lens, body, request)

    @routes.get("/v1/lens/checkpoints", responses=ERRORS)
    async def checkpoints(request: Request, model: str | None = None) -> Response:
        """The models that the run of the served one kept, with their losses."""
        run, kept = run_of(models.named(request, model).path)
        of_each = await asyncio.to_thread(history, run, kept) if run else []
        named = [{"name": name, **known} for name, known in zip(kept, of_each, strict=True)]
        return json_response({"object": "list", "run": run.name if run else None, "data": named})

    @routes.get("/v1/lens/checkpoints/{name}", responses=ERRORS)
    async def checkpoint(name: str, request: Request, model: str | None = None) -> Response:
        """The scores of the heads of one of them, and by how many bits repetition helps it."""
        path = kept_model(models.named(request, model).path, name)
        await models.use(request, model, INSIDE)
        scores, gain = await answered(request, scored, path)
        return json_response({"object": "lens.checkpoint", "name": name, "repeat_gain": gain, **scores.as_dict()})

    @routes.post("/v1/lens/checkpoints/{name}/completions", responses=ERRORS)
    async def written(name: str, body: KeptRequest, request: Request, model: str | None = None) -> Response:
        """What one of them writes after a text."""
        path = kept_model(models.named(request, model).path, name)
        service = await models.use(request, model, INSIDE)
        with service.reading([body.prompt], "prompt"):
            text = await answered(request, continued, path, body)
        return json_response({"object": "lens.checkpoint.completion", "name": name, "text": text})

    return routes


@contextmanager
def blaming(param: str | None) -> Generator[None]:
    """A context in which a user's mistake becomes an APIError that blames a field of the request, if it is known."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        code = "text_too_long" if isinstance(error, ContextLengthError) and param == "input" else None
        raise APIError(400, str(error), param=param, code=code) from None


def require_fitting(body: LensRequest) -> None:
    """Raise APIError for a field that the method which is asked for would not read."""
    method = next((name for name in READ if getattr(body, name, None) is not None), "a look")
    for name, field in LensRequest.model_fields.items():
        if name not in READ[method] and getattr(body, name) != field.default:
            why = "it goes with corrupt" if method == "a look" else "leave one of them out"
            raise APIError(400, f"{name} does not go with {method}; {why}", param=name)


def run_of(model: Path | None) -> tuple[Path | None, dict[str, Path]]:
    """The run that made a model and the models that it kept on its way, if it kept any."""
    kept = {} if model is None else kept_models(model.parent)
    known = model is not None and len(kept) > 1 and model in kept.values()
    return (model.parent, kept) if model is not None and known else (None, {})


def kept_model(model: Path | None, name: str) -> Path:
    """The model of a name that the run of the served one kept. Raises APIError where there is none."""
    _, kept = run_of(model)
    if name not in kept:
        raise APIError(404, f"the run kept no model {name[:100]!r}", param="name", code="not_found")
    return kept[name]


def continued(path: Path, body: KeptRequest) -> str:
    """What a model writes after a text. Raises ValueError: a user's mistake."""
    with load(path) as model:
        [ids] = encode_prompts(model.tokenizer, [body.prompt])
        ids = end_of(model.tokenizer, ids, max(1, model.config.n_ctx - body.max_tokens))
        return model.generate(ids, progress=False, **body.model_dump(exclude={"prompt"}))[0]


def found(lens: Lens, body: LensRequest) -> dict[str, Any]:
    """The answer to a request. Raises APIError and ValueError: a user's mistake."""
    with blaming("input"):
        check_texts(body.input, "input")
        tokens = lens.one(body.input)
        n_tokens = tokens.shape[1]
        if n_tokens > MAX_TOKENS:
            raise ContextLengthError(f"input has {n_tokens:,} tokens; at most {MAX_TOKENS} are looked at")
    ids = tokens[0].tolist()
    with blaming("target"):
        target = None if body.target is None else lens.token(body.target)
    with blaming("against"):
        against = None if body.against is None else lens.token(body.against)
    text, starts = places(lens, ids, body.input)
    known = {"ids": ids, "tokens": lens.texts(ids), "text": text, "starts": starts}
    if body.steering is not None:
        with blaming("steering"):
            added = direction(lens, body.steering)
        return known | {"steering": cost(lens, added, body.steering.strength, text)}
    if body.corrupt is not None:
        with blaming("corrupt"):
            check_texts(body.corrupt, "corrupt")
            corrupt = lens.one(body.corrupt)
        pair = pair_of(lens, ids, corrupt, target, against, (body.part,))
        return known | {"patched": patch(lens, pair, body.part).as_dict()}
    with blaming("position"):
        at = lens.position(body.position, n_tokens)
    with blaming("tuned"):
        tuned = TunedLens.load(lens) if body.tuned else None
    values = look(lens, ids, at, target, against, tuned, body.everywhere).as_dict() | known
    if body.without:
        values["without"] = without_tokens(lens, ids, at, target).as_dict()
    return values


def places(lens: Lens, ids: list[int], given: Any) -> tuple[str, list[int]]:
    """The text of tokens, and where each begins in it, in characters. What a tokenizer adds in front takes no
    place in it."""
    table = lens.tokenizer.token_bytes()
    pieces = [table[id] if id < len(table) else b"" for id in ids]
    if isinstance(given, str):
        n_begin = len(lens.tokenizer.begin) if given else len(ids)
        pieces[:n_begin] = [b""] * n_begin
        if b"".join(pieces) == b" " + given.encode("utf-8", "replace"):
            pieces[n_begin] = pieces[n_begin].removeprefix(b" ")
    return b"".join(pieces).decode("utf-8", errors="replace"), char_offsets(pieces)
