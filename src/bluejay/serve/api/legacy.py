"""The APIs of 2021 and 2022, for clients written at that time.

`POST /complete` is the API of mesh-transformer-jax's `device_serve.py`, which served api.eleuther.ai; `POST
/completion` is the API that replaced it there. `POST /model/predict` and `/model/get_prediction` are the API of the
variant in its `docker/`. As they did then, all of them read only the end of a context that is too long. Errors have
OpenAI's form. Their bodies cannot name a model; a query can, as in `/complete?model=NAME`.
"""

import asyncio
import secrets
import time
from collections import OrderedDict

from fastapi import APIRouter, Request, Response
from pydantic import Field
from typing_extensions import TypedDict

from bluejay.infer.params import SamplingParams
from bluejay.infer.prompts import end_of
from bluejay.infer.samples import Chunk
from bluejay.serve.api.model_catalogue import Catalogue
from bluejay.serve.api.parameters import Body, JSONRoute
from bluejay.serve.api.respond import ENGINE_ERRORS, Service, to_api_error
from bluejay.serve.engine_thread import Job
from bluejay.serve.errors import ERRORS, APIError, json_response
from bluejay.serve.middleware.access_log import current_request

MAX_PREDICTIONS = 256
"""Predictions that are kept until they are fetched; the oldest finished one makes room for a new one."""
MAX_PREDICTED_CHARACTERS = 16_000_000
"""Characters that the contexts of all of them may have."""
PREDICTION_SECONDS = 600.0
"""How long a finished prediction is kept."""
DEFAULT_LENGTH = 256


class CompleteRequest(Body):
    """The body of /complete: a context to continue."""

    context: str
    temp: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(0.9, ge=0, le=1)


class CompleteAnswer(TypedDict):
    """The response of /complete."""

    completion: str


class LegacyCompletionRequest(CompleteRequest):
    """The body of /completion."""

    response_length: int = Field(128, ge=1)
    remove_input: bool = Field(True, description="Leave the context out of the answer.")


class LegacyCompletion(TypedDict):
    """One item of the response of /completion."""

    generated_text: str


class PredictRequest(CompleteRequest):
    """The body of /model/predict."""

    top_k: int = Field(50, ge=0)
    length: int = Field(DEFAULT_LENGTH, ge=1)


class PredictionId(TypedDict):
    """The response of /model/predict."""

    qid: int


class PredictionRequest(Body):
    """The body of /model/get_prediction, with an id that /model/predict returned."""

    qid: int


class PredictionAnswer(TypedDict):
    """The response of /model/get_prediction."""

    context: str
    completion: str
    time: float


class Legacy:
    """The endpoints, and the predictions of all models."""

    def __init__(self, models: Catalogue) -> None:
        self.models = models
        self.predictions: OrderedDict[int, asyncio.Task[PredictionAnswer]] = OrderedDict()
        self.n_characters: dict[int, int] = {}
        """Lengths of their contexts."""

    async def submit(self, service: Service, body: CompleteRequest, length: int, top_k: int = 0) -> Job:
        """Submit the end of a context that fits beside `length` tokens of answer. Raises APIError."""
        n_ctx = service.n_ctx
        room = max(n_ctx - length, n_ctx // 2)
        end = body.context.encode("utf-8", "surrogatepass")[-service.max_text_bytes :]
        context = end.decode("utf-8", "ignore")
        with service.reading([context], "context"):
            encoded = await asyncio.to_thread(service.tokenizer.encode_prompt, context)
        prompt = end_of(service.tokenizer, encoded, room)
        params = SamplingParams(max_tokens=length, temperature=body.temp, top_p=body.top_p, top_k=top_k)
        return await service.submit([prompt], params, None, param="context")

    async def text(self, body: CompleteRequest, request: Request, length: int) -> str:
        """The continuation of a context. Raises APIError."""
        service = await self.models.use(request)
        job = await self.submit(service, body, length)
        return text_of(await service.collect(job, request))

    async def predict(self, body: PredictRequest, request: Request) -> int:
        """Start a prediction and return its id. Raises APIError."""
        service = await self.models.use(request)
        self._make_room(len(body.context))
        job = await self.submit(service, body, body.length, body.top_k)
        qid = secrets.randbelow(2**53)  # exact in JavaScript, and impossible to guess
        task = asyncio.create_task(self.prediction(service, body.context, job))
        task.add_done_callback(lambda task: self._finish(qid, task))
        self.predictions[qid] = task
        self.n_characters[qid] = len(body.context)
        if (record := current_request.get()) is not None:
            record.unfinished = task
        return qid

    def _make_room(self, n_characters: int) -> None:
        """Drop the oldest finished predictions until there is room for another. Raises APIError."""
        while (
            len(self.predictions) >= MAX_PREDICTIONS
            or sum(self.n_characters.values()) + n_characters > MAX_PREDICTED_CHARACTERS
        ):
            done = next((qid for qid, task in self.predictions.items() if task.done()), None)
            if done is None:
                message = f"{len(self.predictions)} predictions are running; try again later"
                raise APIError(429, message, type="rate_limit_error", code="queue_full", headers={"Retry-After": "5"})
            self._drop(done)

    def _finish(self, qid: int, task: asyncio.Task) -> None:
        """Have a finished prediction expire."""
        _ = task.cancelled() or task.exception()  # it may never be fetched
        asyncio.get_running_loop().call_later(PREDICTION_SECONDS, self._drop, qid)

    def _drop(self, qid: int) -> None:
        self.predictions.pop(qid, None)
        self.n_characters.pop(qid, None)

    async def prediction(self, service: Service, context: str, job: Job) -> PredictionAnswer:
        """The finished prediction. Raises APIError."""
        began = time.monotonic()
        try:
            text = text_of([part async for part in job.chunks()])
            return {"context": context, "completion": text, "time": time.monotonic() - began}
        except ENGINE_ERRORS as reason:
            raise to_api_error(reason) from None
        finally:
            service.engine_thread.release(job)

    async def fetch(self, qid: int) -> PredictionAnswer:
        """Wait for a prediction and return it. Raises APIError."""
        if qid not in self.predictions:
            raise APIError(404, f"there is no prediction {str(qid)[:40]} here", param="qid", code="not_found")
        return await asyncio.shield(self.predictions[qid])


def text_of(chunks: list[tuple[int, Chunk]]) -> str:
    """The text of a job with one sample."""
    return "".join(chunk.text for _, chunk in chunks)


def router(models: Catalogue) -> APIRouter:
    """The routes of the endpoints."""
    routes, legacy = APIRouter(route_class=JSONRoute, responses=ERRORS, deprecated=True), Legacy(models)

    @routes.post("/complete", response_model=CompleteAnswer)
    async def complete(body: CompleteRequest, request: Request) -> Response:
        """Continue a context by up to 256 tokens."""
        return json_response({"completion": await legacy.text(body, request, DEFAULT_LENGTH)})

    @routes.post("/completion", response_model=list[LegacyCompletion])
    async def completion(body: LegacyCompletionRequest, request: Request) -> Response:
        """Continue a context."""
        text = await legacy.text(body, request, body.response_length)
        return json_response([{"generated_text": text if body.remove_input else body.context + text}])

    @routes.post("/model/predict", response_model=PredictionId)
    async def predict(body: PredictRequest, request: Request) -> Response:
        """Start to continue a context."""
        return json_response({"qid": await legacy.predict(body, request)})

    @routes.post("/model/get_prediction", response_model=PredictionAnswer)
    async def get_prediction(body: PredictionRequest) -> Response:
        """Wait for a continuation that /model/predict started."""
        return json_response(await legacy.fetch(body.qid))

    return routes
