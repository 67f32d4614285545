"""The served model and its tokenizer: `/v1/models`, and vLLM's `/tokenize` and `/detokenize`."""

import asyncio
import time
from typing import Annotated, NotRequired

from fastapi import APIRouter, Response
from pydantic import FailFast, Field
from typing_extensions import TypedDict

from bluejay.serve.api.logprobs import token_name
from bluejay.serve.api.parameters import Body
from bluejay.serve.api.respond import Service
from bluejay.serve.errors import ERRORS, APIError, json_response


class ModelObject(TypedDict):
    """A model in OpenAI's form, with two more fields: the context length, under vLLM's name, and the size."""

    id: str
    object: str
    created: int
    owned_by: str
    max_model_len: int
    n_parameters: int


class ModelList(TypedDict):
    """The list of served models, which has one item."""

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


def router(service: Service) -> APIRouter:
    """The routes of the endpoints."""
    routes, model, tokenizer = APIRouter(responses=ERRORS), service.model, service.tokenizer
    n_ctx = model.config.n_ctx
    description: ModelObject = {
        "id": model.name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "bluejay",
        "max_model_len": n_ctx,
        "n_parameters": model.config.n_parameters,
    }

    @routes.get("/v1/models", response_model=ModelList)
    async def models() -> Response:
        """List the served models, of which there is one."""
        return json_response({"object": "list", "data": [description]})

    @routes.get("/v1/models/{name:path}", response_model=ModelObject)
    async def model_of_name(name: str) -> Response:
        """Describe one model."""
        service.check_name(name)
        return json_response(description)

    @routes.post("/tokenize", response_model=Tokens)
    async def tokenize(body: TokenizeRequest) -> Response:
        """Return the token ids of a text. The names of special tokens are plain text, as in a prompt."""
        service.check_name(body.model)
        with service.reading([body.prompt], "prompt", in_context=False):
            found = await asyncio.to_thread(tokenizer.encode, body.prompt)
        tokens = tokenizer.begin + found if body.add_special_tokens else found
        answer: Tokens = {"count": len(tokens), "max_model_len": n_ctx, "tokens": tokens}
        if body.return_token_strs:
            answer["token_strs"] = [token_name(tokenizer, token) for token in tokens]
        return json_response(answer)

    @routes.post("/detokenize", response_model=Detokenized)
    async def detokenize(body: DetokenizeRequest) -> Response:
        """Return the text of token ids; special tokens have no text."""
        service.check_name(body.model)
        if max(body.tokens, default=0) >= tokenizer.vocab_size:
            raise APIError(400, f"tokens holds an id outside 0..{tokenizer.vocab_size - 1}", param="tokens")
        return json_response({"prompt": tokenizer.decode(body.tokens)})

    return routes
