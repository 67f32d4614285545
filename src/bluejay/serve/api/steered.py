"""A completion while a direction is added to the residual stream, by an engine of its own in torch."""

import asyncio
from copy import copy
from dataclasses import replace

from fastapi import Request, Response
from pydantic import Field

from bluejay.infer.backends.torch import TorchBackend
from bluejay.infer.engine import Engine
from bluejay.infer.prompts import most_tokens
from bluejay.lens.activations import Lens
from bluejay.lens.steering import Steering, bits_per_byte, steered_model, steering_vector
from bluejay.serve.api.completions import CompletionRequest, CompletionWriter, prompts_of
from bluejay.serve.api.parameters import Body
from bluejay.serve.api.respond import Service, to_api_error
from bluejay.serve.engine_thread import EngineThread, Job, ServerStopping
from bluejay.serve.errors import APIError
from bluejay.serve.metrics import EngineMetrics

MAX_TEXTS, MAX_SAMPLES = 32, 8
MAX_STRENGTH = 100.0


class Direction(Body):
    """A direction of the residual stream between two sets of texts, and how far to go."""

    toward: list[str] = Field(min_length=1, max_length=MAX_TEXTS, description="Texts that the direction leads to.")
    away: list[str] = Field(min_length=1, max_length=MAX_TEXTS, description="Texts that it leads away from.")
    layer: int | None = Field(None, description="The layer before which it is added; the middle one when left out.")
    strength: float = Field(1.0, ge=-MAX_STRENGTH, le=MAX_STRENGTH, description="What the direction is multiplied by.")


class SteeredRequest(CompletionRequest):
    """A prompt to continue, and the direction that is added meanwhile."""

    steering: Direction = Field(description="The direction that is added.")


def direction(lens: Lens, wanted: Direction) -> Steering:
    """The direction of a request. Raises ValueError for a layer that is not there and a text of one token."""
    layer = lens.config.n_layer // 2 if wanted.layer is None else wanted.layer
    return steering_vector(lens, wanted.toward, wanted.away, layer)


def cost(lens: Lens, steering: Steering, strength: float, text: str) -> dict[str, int | float]:
    """The layer, and the bits per byte of a text without and with a direction. Raises ValueError for an empty text."""
    plain, steered = (bits_per_byte(lens, [text], steering.write(factor)) for factor in (0.0, strength))
    return {"layer": steering.layer, "plain": plain, "steered": steered}


class Latencies(EngineMetrics):
    """The metrics of a second engine: its tokens count among the model's latencies, its gauges are nobody's."""

    def __init__(self, own: EngineMetrics) -> None:
        self.first_token, self.inter_token = own.first_token, own.inter_token

    def observe(self, engine: Engine) -> None:
        """Say nothing of this engine."""


class SteeredThread(EngineThread):
    """The engine of one answer, which ends with it."""

    def release(self, job: Job) -> None:
        """Drop the job and end the thread."""
        super().release(job)
        self.stop()


async def respond(service: Service, lens: Lens, body: SteeredRequest, request: Request) -> Response:
    """The response to a steered request. Raises APIError and ValueError."""
    params, constraint = body.sampling(), await service.constraint(body)
    if len(body.prompt) * params.n > MAX_SAMPLES:
        raise APIError(400, f"at most {MAX_SAMPLES} samples are steered at a time", param="n")
    prompts, own = await prompts_of(service, body), service.engine_thread
    n_ctx = own.engine.n_ctx
    steering = await asyncio.to_thread(direction, lens, body.steering)
    lengths = [min(n_ctx, most_tokens(ids, params, n_ctx)) for ids in prompts for _ in range(params.n)]
    backend = TorchBackend.for_tokens(steered_model(lens, steering, body.steering.strength), lengths)
    settings = replace(own.settings, max_sequences=len(lengths), max_waiting=len(lengths))
    thread = SteeredThread(own.model, settings, Latencies(own.metrics), backend)
    own.others.add(thread)
    if own.stopping:
        raise to_api_error(ServerStopping())
    thread.start()
    steered = copy(service)
    steered.engine_thread = thread
    try:
        job = await steered.submit(prompts, params, constraint)
    except BaseException:
        thread.stop()
        raise
    return await steered.respond(body, request, job, CompletionWriter(body, job, service.tokenizer))
