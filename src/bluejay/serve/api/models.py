"""The served models and their tokenizers: `/v1/models`, and vLLM's `/tokenize` and `/detokenize`."""

import asyncio
from typing import Annotated, NotRequired

from fastapi import APIRouter, Request, Response
from pydantic import FailFast, Field
from typing_extensions import TypedDict

from bluejay.infer.needs import MODEL
from bluejay.serve.api.logprobs import token_name
from bluejay.serve.api.model_catalogue import Catalogue
from bluejay.serve.api.offered import Offered
from bluejay.serve.api.parameters import Body, JSONRoute
from bluejay.serve.errors import ERRORS, APIError, json_response


class ModelObject(TypedDict):
    """A model in OpenAI's form, with more fields: the context length, under vLLM's name, and those below it."""

    id: str
    object: str
    created: int
    owned_by: str
    max_model_len: int
    n_parameters: int
    good_for: str
    """A sentence from its card."""
    loaded: bool
    """Whether it is in memory; else the first request for it has it loaded."""
    memory_bytes: int | None
    """Memory that it takes while it is loaded, at most; null where the server does not count it."""


class ModelList(TypedDict):
    """The list of served models."""

    object: str
    data: list[ModelObject]


class TokenizeRequest(Body):
    """A text to tokenize."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool = Field(
        True, description="Begin with the token that the model expects there, if any, as for a completion."
    )
    return_token_strs: bool = Field(False, description="Return the tokens as strings, too.")


class Tokens(TypedDict):
    """The tokens of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: NotRequired[list[str]]


class DetokenizeRequest(Body):
    """Tokens to convert to text."""

    model: str | None = None
    tokens: Annotated[list[Annotated[int, Field(ge=0)]], FailFast()]


class Detokenized(TypedDict):
    """The text of tokens."""

    prompt: str


def router(models: Catalogue) -> APIRouter:
    """The routes of the endpoints."""
    routes = APIRouter(route_class=JSONRoute, responses=ERRORS)

    def described(one: Offered) -> ModelObject:
        return {
            "id": one.name,
            "object": "model",
            "created": models.created,
            "owned_by": "bluejay",
            "max_model_len": models.context(one),
            "n_parameters": one.config.n_parameters,
            "good_for": one.good_for,
            "loaded": one.service is not None,
            "memory_bytes": one.needs.get(MODEL),
        }

    @routes.get("/v1/models", response_model=ModelList)
    async def all_models() -> Response:
        """List the served models, the first of which answers requests that name none."""
        return json_response({"object": "list", "data": [described(one) for one in models.offered.values()]})

    @routes.get("/v1/models/{name:path}", response_model=ModelObject)
    async def model_of_name(name: str) -> Response:
        """Describe one model."""
        return json_response(described(models.find(name)))

    @routes.post("/tokenize", response_model=Tokens)
    async def tokenize(body: TokenizeRequest, request: Request) -> Response:
        """Return the token ids of a text. The names of special tokens are plain text, as in a prompt."""
        service = await models.use(request, body.model)
        tokenizer, n_ctx = service.tokenizer, service.n_ctx
        with service.reading([body.prompt], "prompt", in_context=False):
            found = await asyncio.to_thread(tokenizer.encode, body.prompt)
        tokens = tokenizer.begin + found if body.add_special_tokens else found
        answer: Tokens = {"count": len(tokens), "max_model_len": n_ctx, "tokens": tokens}
        if body.return_token_strs:
            answer["token_strs"] = [token_name(tokenizer, token) for token in tokens]
        return json_response(answer)

    @routes.post("/detokenize", response_model=Detokenized)
    async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
        """Return the text of token ids; special tokens have no text."""
        tokenizer = (await models.use(request, body.model)).tokenizer
        if max(body.tokens, default=0) >= tokenizer.vocab_size:
            raise APIError(400, f"tokens holds an id outside 0..{tokenizer.vocab_size - 1}", param="tokens")
        return json_response({"prompt": tokenizer.decode(body.tokens)})

    return routes
