"""How bodies are read, and the parameters that completions and chat completions share, with OpenAI's names, ranges and
defaults."""

import difflib
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Set
from typing import Annotated, Any, ClassVar, Literal, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model, model_validator
from pydantic_core import PydanticCustomError

from bluejay.fields import settings_of
from bluejay.infer.params import SamplingParams
from bluejay.serve.api import other_servers
from bluejay.serve.errors import APIError

MAX_N = 128
MAX_STOP = 64
MAX_LOGPROBS = 20
"""OpenAI's limit for chat completions; its limit for completions is 5."""


class JSONRequest(Request):
    """A request whose body is JSON as RFC 8259 has it, with each name once in an object. Python's parser would take
    NaN, and the last value of a name that occurs twice."""

    async def json(self) -> Any:
        """The body. Raises APIError, ValueError and RecursionError."""
        return json.loads(await self.body(), parse_constant=refuse_constant, object_pairs_hook=unique)


class JSONRoute(APIRoute):
    """A route that reads the bodies of its requests as `JSONRequest` does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(JSONRequest(request.scope, request.receive))

        return handle


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities."""
    raise APIError(400, f"the body is not valid JSON: it holds {name}", code="invalid_json")


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object from its names and values. Raises APIError for a name that occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise APIError(400, f"the body holds {twice[:100]} twice", code="invalid_json")
    return found


def nullable(schema: dict[str, Any], body: type["Body"]) -> None:
    """Declare in the JSON schema of a body that every parameter with a default, or of an unknown name, accepts null,
    and which parameters and values of other servers there are."""
    schema["additionalProperties"] = {"type": "null"}
    if names := "|".join(sorted(body.foreign)):
        others = {"description": "Of other servers; accepted where it changes no answer of this one."}
        schema["patternProperties"] = {f"^({names})$": others}
    for name, value in schema.get("properties", {}).items():
        if name not in schema.get("required", ()):
            notes = {key: value.pop(key) for key in ("title", "description", "default") if key in value}
            kinds = [value.copy(), {"type": "null"}]
            if body.foreign and name in other_servers.ABSENT:
                kinds.append({"const": other_servers.ABSENT[name]})
            schema["properties"][name] = {"anyOf": kinds, **notes}


def unsupported(*neutral: Any) -> Any:
    """A parameter that is not implemented: only `neutral` values, which ask for nothing, are accepted."""
    return Field(neutral[0], description="Not supported.", json_schema_extra={"enum": [*neutral]})


class Body(BaseModel):
    """A JSON object in a request. A parameter that is null has its default. An unknown name is refused, with the
    nearest known one, unless its value is null, because the `openai` package sends such names."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra=nullable)
    foreign: ClassVar[Set[str]] = frozenset()
    """The parameters of other servers that are accepted where they change no answer."""

    @model_validator(mode="before")
    @classmethod
    def known(cls, body: Any) -> Any:
        """Drop nulls and refuse unknown names."""
        if not isinstance(body, dict):
            return body
        fields = {field.alias or name: field for name, field in cls.model_fields.items()}
        for name, value in body.items():
            if value is None:
                continue
            if name in cls.foreign:
                if (hint := other_servers.remedy(name, body)) is not None:
                    raise PydanticCustomError("unsupported", "{hint}", {"name": name, "hint": hint})
                continue
            if name not in fields:
                near = difflib.get_close_matches(name[:100], fields, n=1)
                hint = f"did you mean {near[0]}?" if near else "leave it out"
                raise PydanticCustomError("unknown_parameter", "{hint}", {"name": name[:100], "hint": hint})
            extra = fields[name].json_schema_extra
            neutral = extra["enum"] if isinstance(extra, dict) else None
            if isinstance(neutral, list) and not any(value == one and type(value) is type(one) for one in neutral):
                allowed = " or ".join(json.dumps(one) for one in neutral if one is not None)
                hint = "leave it out" + (allowed and f" or send {allowed}")
                raise PydanticCustomError("unsupported", "{hint}", {"name": name, "hint": hint})
        absent = other_servers.ABSENT if cls.foreign else {}
        return {
            name: value
            for name, value in body.items()
            if value is not None and name not in cls.foreign and (name not in absent or value != absent[name])
        }


def parse_stop(value: Any) -> tuple[str, ...]:
    """Convert stop sequences, a string or a list of up to `MAX_STOP`, to a tuple. Raises APIError."""
    stop = [value] if isinstance(value, str) else value
    if not (isinstance(stop, list) and len(stop) <= MAX_STOP and all(isinstance(item, str) for item in stop)):
        raise APIError(400, f"stop must be a string or a list of at most {MAX_STOP} strings", param="stop")
    return tuple(stop)


def parse_logit_bias(value: Any) -> dict[int, float]:
    """Convert biases by token id, whose names are strings in JSON. Raises APIError."""
    if not isinstance(value, dict) or not all(
        token.isascii() and token.isdecimal() and len(token) < 10 for token in value
    ):
        message = "logit_bias must be an object with token ids as names, such as 50256"
        raise APIError(400, message, param="logit_bias")
    if not all(type(bias) in (int, float) and -100 <= bias <= 100 for bias in value.values()):
        raise APIError(400, "logit_bias must have numbers between -100 and 100 as values", param="logit_bias")
    return {int(token): float(bias) for token, bias in value.items()}


def check_texts(value: Any, param: str) -> None:
    """Raise APIError unless the value of a parameter is a text, token ids, or a list of these."""
    if isinstance(value, str) or is_token_ids(value):
        return
    if not isinstance(value, list):
        raise APIError(400, f"{param} must be a string, a list of token ids, or a list of these", param=param)
    for number, item in enumerate(value):
        if not isinstance(item, str) and not is_token_ids(item):
            raise APIError(400, f"{param}.{number} must be a string or a list of token ids", param=param)


def is_token_ids(value: Any) -> bool:
    """Whether a JSON value is a list of whole numbers; true and false are none."""
    return isinstance(value, list) and all(type(item) is int for item in value)


STRING_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1}
STOP_SCHEMA = {"anyOf": [STRING_SCHEMA, {"type": "array", "items": STRING_SCHEMA, "maxItems": MAX_STOP}]}
LOGIT_BIAS_SCHEMA = {
    "type": "object",
    "propertyNames": {"pattern": "^[0-9]{1,9}$"},
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
}


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool = Field(
        False, description="Send one more event at the end, without choices but with the usage."
    )
    include_obfuscation: Any = unsupported(False)


class NamedSchema(Body):
    """A JSON schema with a name."""

    name: str = "answer"
    description: str = ""
    definition: dict[str, Any] = Field(alias="schema", description="The JSON schema.")
    strict: bool = Field(True, description="Accepted and ignored: the answer always follows the schema.")


class ResponseFormat(Body):
    """The format of an answer: any text, any JSON object, or JSON that follows a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


SAMPLING = settings_of(SamplingParams)
OPENAI_DEFAULTS = {"temperature": 1.0, "top_p": 1.0}
DECLARED_BELOW = ("max_tokens", "n", "stop", "logit_bias", "logprobs", "prompt_logprobs")
"""Sampling parameters whose form differs in OpenAI's APIs; their fields are in the classes of the request bodies."""

COMMON: dict[str, Any] = {
    name: (one.annotation, Field(OPENAI_DEFAULTS.get(name, one.default), ge=one.low, le=one.high, description=one.help))
    for name, one in SAMPLING.items()
    if name not in DECLARED_BELOW
}
"""The fields for all other sampling parameters."""
SamplingBody: Any = create_model("SamplingBody", __base__=Body, **COMMON)


class Parameters(SamplingBody):
    """The parameters that both kinds of completion have."""

    foreign = other_servers.NAMES

    model: str | None = Field(None, description="The id from /v1/models; may be left out.")
    n: int = Field(1, ge=1, le=MAX_N, description=SAMPLING["n"].help)
    stream: bool = Field(False, description="Send each token as a server-sent event; [DONE] ends the stream.")
    stream_options: StreamOptions | None = None
    stop: Annotated[tuple[str, ...], BeforeValidator(parse_stop), WithJsonSchema(STOP_SCHEMA)] = Field(
        (), description=SAMPLING["stop"].help
    )
    logit_bias: Annotated[dict[int, float], BeforeValidator(parse_logit_bias), WithJsonSchema(LOGIT_BIAS_SCHEMA)] = (
        Field({}, description=SAMPLING["logit_bias"].help)
    )
    user: str | None = Field(None, description="Accepted and ignored.")
    reasoning_effort: Any = unsupported("none")
    response_format: ResponseFormat | None = None
    regex: str | None = Field(None, description="A regular expression that the whole answer matches.")

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def engine_params(self, **others: Any) -> SamplingParams:
        """The engine's parameters: the fields with the same name, and `others`. Raises APIError."""
        if self.stream_options is not None and not self.stream:
            raise APIError(400, "stream_options needs stream", param="stream_options")
        same = {name: getattr(self, name) for name in SAMPLING if hasattr(self, name)}
        try:
            return SamplingParams(**(same | others))
        except ValueError as error:  # the sentence begins with the parameter's name
            raise APIError(400, str(error), param=str(error).split()[0]) from None
