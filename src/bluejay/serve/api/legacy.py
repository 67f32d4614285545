"""The shapes of 2021, so that clients of that time live again.

`POST /complete` is mesh-transformer-jax's `device_serve.py`, which stood behind api.eleuther.ai; `POST /completion` is
what stood there later. `POST /model/predict` and `/model/get_prediction` are the variant in its `docker/`. All of them
read the end of a context that is too long, as they did then. Errors are OpenAI's.
"""

import asyncio
import secrets
import time
from collections import OrderedDict

from fastapi import APIRouter, Request, Response
from pydantic import Field
from typing_extensions import TypedDict

from bluejay.infer.engine import Chunk
from bluejay.infer.sampling import SamplingParams
from bluejay.serve.api.errors import ERRORS, APIError, json_response
from bluejay.serve.api.parameters import Body
from bluejay.serve.engine_thread import Completion
from bluejay.serve.respond import ENDINGS, Service, failure

MAX_PREDICTIONS = 256
"""Predictions that are kept for who asked for them; the oldest that are done give way."""
DEFAULT_LENGTH = 256


class Context(Body):
    """A text to continue."""

    context: str
    temp: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(0.9, ge=0, le=1)


class Completed(TypedDict):
    """Its continuation."""

    completion: str


class CompletionOf2022(Context):
    """The later shape."""

    response_length: int = Field(128, ge=1)
    remove_input: bool = Field(True, description="Leave the context out of the answer.")


class Generated(TypedDict):
    """Its answer."""

    generated_text: str


class Prediction(Context):
    """The shape of the variant, whose answer is fetched."""

    top_k: int = Field(50, ge=0)
    length: int = Field(DEFAULT_LENGTH, ge=1)


class Ticket(TypedDict):
    """What an answer is fetched with."""

    qid: int


class TicketRequest(Body):
    """A ticket that was given out."""

    qid: int


class Predicted(TypedDict):
    """The answer."""

    context: str
    completion: str
    time: float


class Legacy:
    """The old endpoints of one service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.predictions: OrderedDict[int, asyncio.Task[Predicted]] = OrderedDict()

    async def submit(self, body: Context, length: int, top_k: int = 0) -> Completion:
        """Hand a context to the engine. Raises APIError."""
        n_ctx = self.service.model.config.n_ctx
        room = max(n_ctx - length, n_ctx // 2)
        prompt = (await asyncio.to_thread(self.service.tokenizer.encode_prompt, body.context))[-room:]
        params = SamplingParams(max_tokens=length, temperature=body.temp, top_p=body.top_p, top_k=top_k)
        return await self.service.submit([prompt], params, param="context")

    async def text(self, body: Context, request: Request, length: int) -> str:
        """The continuation of a context. Raises APIError."""
        completion = await self.submit(body, length)
        return text_of(await self.service.collect(completion, request))

    async def predict(self, body: Prediction) -> int:
        """Begin a prediction. Raises APIError."""
        if len(self.predictions) >= MAX_PREDICTIONS:
            done = next((qid for qid, task in self.predictions.items() if task.done()), None)
            if done is None:
                message = f"{MAX_PREDICTIONS} predictions are being made already; try again later"
                raise APIError(429, message, type="rate_limit_error", code="queue_full", headers={"Retry-After": "5"})
            del self.predictions[done]
        completion = await self.submit(body, body.length, body.top_k)
        qid = secrets.randbelow(2**53)  # a number that JavaScript can hold and nobody can guess
        task = asyncio.create_task(self.prediction(body.context, completion))
        task.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may ever fetch it
        self.predictions[qid] = task
        return qid

    async def prediction(self, context: str, completion: Completion) -> Predicted:
        """What a prediction comes to."""
        began = time.monotonic()
        try:
            text = text_of([part async for part in completion.chunks()])
            return {"context": context, "completion": text, "time": time.monotonic() - began}
        except ENDINGS as reason:
            raise failure(reason) from None
        finally:
            self.service.worker.release(completion)

    async def fetch(self, qid: int) -> Predicted:
        """Wait for a prediction. Raises APIError."""
        if qid not in self.predictions:
            raise APIError(404, f"there is no prediction {str(qid)[:40]} here", param="qid", code="not_found")
        return await asyncio.shield(self.predictions[qid])


def text_of(chunks: list[tuple[int, Chunk]]) -> str:
    """The text of one sample."""
    return "".join(chunk.text for _, chunk in chunks)


def router(service: Service) -> APIRouter:
    """The endpoints."""
    routes, legacy = APIRouter(responses=ERRORS, deprecated=True), Legacy(service)

    @routes.post("/complete", response_model=Completed)
    async def complete(body: Context, request: Request) -> Response:
        """Continue a context by up to 256 tokens."""
        return json_response({"completion": await legacy.text(body, request, DEFAULT_LENGTH)})

    @routes.post("/completion", response_model=list[Generated])
    async def completion(body: CompletionOf2022, request: Request) -> Response:
        """Continue a context."""
        text = await legacy.text(body, request, body.response_length)
        return json_response([{"generated_text": text if body.remove_input else body.context + text}])

    @routes.post("/model/predict", response_model=Ticket)
    async def predict(body: Prediction) -> Response:
        """Begin to continue a context."""
        return json_response({"qid": await legacy.predict(body)})

    @routes.post("/model/get_prediction", response_model=Predicted)
    async def get_prediction(body: TicketRequest) -> Response:
        """Wait for what `/model/predict` began."""
        return json_response(await legacy.fetch(body.qid))

    return routes
