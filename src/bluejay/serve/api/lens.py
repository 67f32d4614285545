"""`/v1/lens`: what is inside the model when it reads a text.

Each question costs a run of the model in torch, apart from the engine, and some cost one for each token: strangers are
not answered, and so a server on the open web has no such route.
"""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import Field, WithJsonSchema

from bluejay.lens.activations import Lens
from bluejay.lens.logit_lens import TunedLens
from bluejay.lens.look import look
from bluejay.lens.patching import pair_of, patch, without_tokens
from bluejay.serve.api.parameters import Body
from bluejay.serve.api.respond import Service
from bluejay.serve.errors import ERRORS, APIError, json_response
from bluejay.serve.settings import ServeSettings

MAX_TOKENS = 512
"""Tokens of a text that is looked at."""
TOKEN_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "null"}]}
ONE_TEXT = [{"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}}]
TEXT_SCHEMA = {"anyOf": [*ONE_TEXT, {"type": "array", "items": {"anyOf": ONE_TEXT}, "minItems": 1, "maxItems": 1}]}
Token = Annotated[Any, WithJsonSchema(TOKEN_SCHEMA)]
Text = Annotated[Any, WithJsonSchema(TEXT_SCHEMA)]


class LensRequest(Body):
    """The text to look at, and what is asked about it."""

    input: Text = Field(description="A text, or its token ids, or a list of one such.")
    model: str | None = Field(None, description="The name of the served model, which may be left out.")
    position: int = Field(-1, description="The position whose prediction is explained, from the end if negative.")
    target: Token = Field(None, description="The token whose logit is explained; the likeliest when it is left out.")
    against: Token = Field(None, description="A token whose logit is subtracted.")
    without: bool = Field(False, description="Whether to say what happens to the prediction without each token.")
    tuned: bool = Field(False, description="Whether to read the layers through the model's tuned lens.")
    corrupt: Text = Field(None, description="A text of equal length that activations of the first are patched into.")
    part: Literal["residual", "attention", "mlp", "heads"] = Field("heads", description="What is patched.")


def router(service: Service, settings: ServeSettings) -> APIRouter:
    """The route; none where strangers use the server."""
    routes, turn, opened = APIRouter(), asyncio.Lock(), []
    if settings.public is not None:
        return routes

    def answer(body: LensRequest) -> dict[str, Any]:
        if not opened:
            opened.append(service.model.lens())
        return found(opened[0], body)

    @routes.post("/v1/lens", responses=ERRORS)
    async def lens(body: LensRequest) -> Response:
        """What each layer would have said, what made a prediction, where attention looked; what happens without each
        token; and with a second text, what each activation of the first brings back."""
        service.check_name(body.model)
        texts = [text for text in (body.input, body.corrupt) if isinstance(text, str)]
        with service.reading(texts, "input"):
            async with turn:
                try:
                    values = await asyncio.to_thread(answer, body)
                except (ValueError, FileNotFoundError) as error:
                    raise APIError(400, str(error), param="input") from None
        return json_response({"object": "lens", "model": service.model.name, **values})

    return routes


def found(lens: Lens, body: LensRequest) -> dict[str, Any]:
    """The answer to a request. Raises ValueError: a user's mistake."""
    tokens = lens.one(body.input)
    if tokens.shape[1] > MAX_TOKENS:
        raise ValueError(f"input has {tokens.shape[1]:,} tokens; at most {MAX_TOKENS} are looked at")
    ids = tokens[0].tolist()
    target, against = (None if one is None else lens.token(one) for one in (body.target, body.against))
    if body.corrupt is not None:
        pair = pair_of(lens, ids, body.corrupt, target, against, (body.part,))
        return {"tokens": lens.texts(ids), "ids": ids, "patched": patch(lens, pair, body.part).as_dict()}
    tuned = TunedLens.load(lens) if body.tuned else None
    values = look(lens, ids, body.position, target, against, tuned).as_dict() | {"ids": ids}
    if body.without:
        values["without"] = without_tokens(lens, ids, body.position, target).as_dict()
    return values
