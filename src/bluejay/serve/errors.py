"""The elements that OpenAI's APIs share: errors, usage, events.

https://platform.openai.com/docs/api-reference
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Response
from starlette.exceptions import HTTPException
from typing_extensions import TypedDict


class ErrorDetail(TypedDict):
    """The content of an error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(TypedDict):
    """The body of every response that is not a success."""

    error: ErrorDetail


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request is invalid or cannot be served now; the message says why."},
    "5XX": {"model": ErrorBody, "description": "The server cannot serve any request now."},
}
"""The error responses in the OpenAPI description of an endpoint."""


class APIError(HTTPException):
    """An error that is sent to the client in OpenAI's form."""

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
        self.body: ErrorBody = {"error": {"message": message, "type": type, "param": param, "code": code}}

    def response(self) -> Response:
        """The HTTP response."""
        return json_response(self.body, self.status_code, self.headers)


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response in ASCII: a text in it may contain half a surrogate pair, which UTF-8 cannot encode."""
    return Response(json.dumps(body), status, headers, media_type="application/json")


def too_many_at_once(message: str) -> APIError:
    """The error for a client that asks for too much at a time."""
    return APIError(429, message, type="rate_limit_error", code="too_many_at_once", headers={"Retry-After": "1"})


PLAIN = {
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "int_type": "must be a whole number, written without a decimal point",
    "bool_type": "must be true or false",
    "too_short": "must have {min_length} or more items",
    "too_long": "must have at most {max_length} items",
}
"""Kind of a problem -> what is said of it, where pydantic speaks of Python."""


def invalid_body(errors: Sequence[Any]) -> APIError:
    """An error with one sentence about the first problem that pydantic found in a body."""
    error = errors[0]
    path = [str(part)[:100] for part in error["loc"] if part != "body"]
    param, context, given = ".".join(path), error.get("ctx", {}), error.get("input")
    match error["type"]:
        case "json_invalid":
            reason = context.get("error", "it cannot be read").removesuffix(" at")
            return APIError(400, f"the body is not valid JSON: {reason} at character {param}", code="invalid_json")
        case "unknown_parameter":
            name = ".".join([*path, context["name"]])
            message = f"there is no parameter {name}; {context['hint']}"
            return APIError(400, message, param=name, code="unknown_parameter")
        case "unsupported":
            name = ".".join([*path, context["name"]])
            message = f"{name} is not supported by this server; {context['hint']}"
            return APIError(400, message, param=name, code="unsupported")
        case "missing" if path:
            return APIError(400, f"{param} is missing", param=param, code="missing_parameter")
    if not path:
        return APIError(400, "the body must be a JSON object, with the header Content-Type: application/json")
    value = f" is {str(given)[:40]}; it" if type(given) in (int, float) else ""
    plain = PLAIN.get(error["type"])
    told = error["msg"].replace("Input should", "must") if plain is None else plain.format(**context)
    return APIError(400, f"{param}{value} {told}", param=param)


class Usage(TypedDict):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


def usage(n_prompt: int, n_generated: int) -> Usage:
    """The numbers of tokens over all prompts and samples."""
    return {"prompt_tokens": n_prompt, "completion_tokens": n_generated, "total_tokens": n_prompt + n_generated}


def event(body: Any) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(body)}\n\n"


DONE = "data: [DONE]\n\n"
WAITING = ": waiting\n\n"
"""A comment between events."""
