"""OpenAI's completions API on the wire: what a request may hold, what an answer and an error look like.

https://platform.openai.com/docs/api-reference/completions
"""

import difflib
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from starlette.exceptions import HTTPException

from bluejay.infer.engine import Chunk
from bluejay.infer.sampling import SamplingParams

MAX_N = 128
MAX_STOP = 4
MAX_PROMPTS = 64

NEUTRAL = {
    "best_of": 1,
    "frequency_penalty": 0,
    "logit_bias": {},
    "logprobs": None,
    "presence_penalty": 0,
    "suffix": "",
}
"""Parameters of the API that are not there yet, with the values that ask for nothing."""


class APIError(HTTPException):
    """A refusal, in OpenAI's words."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.body = {"error": {"message": message, "type": type, "param": param, "code": code}}

    def response(self) -> Response:
        """The whole HTTP answer."""
        return json_response(self.body, self.status_code, self.headers)


def json_response(body: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON in ASCII: a request's text may hold half a surrogate pair, which UTF-8 cannot carry back."""
    return Response(json.dumps(body), status, headers, media_type="application/json")


def parse_prompt(value: Any) -> list[str | list[int]]:
    """A prompt in any of its four forms, as a list of texts and token lists."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if is_tokens(value):
            return [value]
        if all(isinstance(item, str) for item in value) or all(is_tokens(item) for item in value):
            if len(value) > MAX_PROMPTS:
                message = f"prompt holds {len(value)} prompts; at most {MAX_PROMPTS} go in one request"
                raise APIError(400, message, param="prompt")
            return value
    forms = "a string, a list of strings, a list of token ids or a list of such lists, and not empty"
    raise APIError(400, f"prompt must be {forms}", param="prompt")


def is_tokens(value: Any) -> bool:
    """Whether a JSON value is a list of token ids (JSON's true and false are not)."""
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


def parse_stop(value: Any) -> tuple[str, ...]:
    """Stop sequences: a string or a list of up to four."""
    stop = [value] if isinstance(value, str) else value
    if not (isinstance(stop, list) and len(stop) <= MAX_STOP and all(isinstance(item, str) for item in stop)):
        raise APIError(400, f"stop must be a string or a list of at most {MAX_STOP} strings", param="stop")
    return tuple(stop)


class StreamOptions(BaseModel):
    """How a stream ends."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False


class CompletionRequest(BaseModel):
    """The body of `POST /v1/completions`, with OpenAI's defaults. null means the default."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None
    prompt: Annotated[list[Any], BeforeValidator(parse_prompt)] = [""]
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """Not OpenAI's; the name that other servers have for it."""
    n: int = 1
    seed: int | None = None
    stop: Annotated[tuple[str, ...], BeforeValidator(parse_stop)] = ()
    echo: bool = False
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def without_neutral_values(cls, body: Any) -> Any:
        """Drop nulls and parameters that are not there yet but ask for nothing; refuse those that ask for something."""
        if not isinstance(body, dict):
            return body
        for name in NEUTRAL.keys() & body.keys():
            if body[name] is not None and body[name] != NEUTRAL[name]:
                message = f"{name} is not supported by this server; leave it out"
                raise APIError(400, message, param=name, code="unsupported")
        return {name: value for name, value in body.items() if value is not None and name not in NEUTRAL}

    def sampling(self) -> SamplingParams:
        """What the engine needs. Raises APIError for values outside their range."""
        if self.n > MAX_N:
            raise APIError(400, f"n is {self.n}; it must be at most {MAX_N}", param="n")
        names = ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "n")
        try:
            return SamplingParams(**{name: getattr(self, name) for name in names})
        except ValueError as error:  # the sentence begins with the parameter's name
            raise APIError(400, str(error), param=str(error).split()[0]) from None


def invalid_body(errors: Sequence[Any]) -> APIError:
    """One sentence about the first thing that pydantic found wrong in a body."""
    error = errors[0]
    path = [str(part) for part in error["loc"] if part != "body"]
    param = ".".join(path)
    match error["type"]:
        case "json_invalid":
            reason = error.get("ctx", {}).get("error", "it cannot be read")
            return APIError(400, f"the body is not valid JSON: {reason}", code="invalid_json")
        case "extra_forbidden":
            options = list(StreamOptions.model_fields if len(path) > 1 else CompletionRequest.model_fields)
            near = difflib.get_close_matches(path[-1], options, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; leave it out"
            message = f"there is no parameter {param[:100]}{hint}"
            return APIError(400, message, param=param[:100], code="unknown_parameter")
    if not path:
        return APIError(400, "the body must be a JSON object, with the header Content-Type: application/json")
    return APIError(400, f"{param} {error['msg'].replace('Input should', 'must')}", param=param)


@dataclass(frozen=True)
class Answer:
    """What all parts of one answer share."""

    model: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""

    def body(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """A text_completion object; one part of a stream has the same shape."""
        common = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}
        return {**common, "choices": choices, **more}


def choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    """One sample, or a piece of one."""
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}


def usage(n_prompt: int, n_generated: int) -> dict[str, int]:
    """Tokens read and written."""
    return {"prompt_tokens": n_prompt, "completion_tokens": n_generated, "total_tokens": n_prompt + n_generated}


def event(body: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(body)}\n\n"


DONE = "data: [DONE]\n\n"


def gather(parts: Sequence[tuple[int, Chunk]], prefixes: Sequence[str]) -> list[dict[str, Any]]:
    """Whole choices from their chunks, each after its prefix."""
    texts = [[prefix] for prefix in prefixes]
    reasons: list[str | None] = [None] * len(texts)
    for index, chunk in parts:
        texts[index].append(chunk.text)
        reasons[index] = chunk.finish_reason
    return [choice(index, "".join(texts[index]), reasons[index]) for index in range(len(texts))]
