"""The parameters that completions and chat completions share, with OpenAI's names, ranges and defaults."""

import difflib
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from bluejay.infer.sampling import SamplingParams
from bluejay.serve.api.errors import APIError

MAX_N = 128
MAX_STOP = 4
MAX_LOGPROBS = 20
"""OpenAI's limit for chat completions; for completions it is 5 there."""
INT64 = 2**63


def nullable(schema: dict[str, Any]) -> None:
    """Say in a body's JSON schema that null is accepted wherever there is a default."""
    for name, value in schema.get("properties", {}).items():
        if name not in schema.get("required", ()):
            notes = {key: value.pop(key) for key in ("title", "description", "default") if key in value}
            schema["properties"][name] = {"anyOf": [value.copy(), {"type": "null"}], **notes}


def unsupported(*neutral: Any) -> Any:
    """A parameter that is not there: values that ask for nothing are taken, all others refused clearly."""
    return Field(neutral[0], description="Not supported.", json_schema_extra={"enum": [*neutral]})


class Body(BaseModel):
    """A JSON object of a request. null means the default; a name that is not known is refused, with the nearest one."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra=nullable)

    @model_validator(mode="before")
    @classmethod
    def known(cls, body: Any) -> Any:
        """Drop nulls and refuse unknown names."""
        if not isinstance(body, dict):
            return body
        fields = {field.alias or name: field for name, field in cls.model_fields.items()}
        for name, value in body.items():
            if name not in fields:
                near = difflib.get_close_matches(name[:100], fields, n=1)
                hint = f"did you mean {near[0]}?" if near else "leave it out"
                raise PydanticCustomError("unknown_parameter", "{hint}", {"name": name[:100], "hint": hint})
            extra = fields[name].json_schema_extra
            neutral = extra["enum"] if isinstance(extra, dict) else None
            if isinstance(neutral, list) and value is not None and value not in neutral:
                message = f"{name} is not supported by this server; leave it out"
                raise APIError(400, message, param=name, code="unsupported")
        return {name: value for name, value in body.items() if value is not None}


def parse_stop(value: Any) -> tuple[str, ...]:
    """Stop sequences: a string or a list of up to four."""
    stop = [value] if isinstance(value, str) else value
    if not (isinstance(stop, list) and len(stop) <= MAX_STOP and all(isinstance(item, str) for item in stop)):
        raise APIError(400, f"stop must be a string or a list of at most {MAX_STOP} strings", param="stop")
    return tuple(stop)


def parse_logit_bias(value: Any) -> dict[int, float]:
    """Biases by token id; JSON's names are strings."""
    if not isinstance(value, dict) or not all(
        token.isascii() and token.isdecimal() and len(token) < 10 for token in value
    ):
        message = "logit_bias must be an object with token ids as names, such as 50256"
        raise APIError(400, message, param="logit_bias")
    if not all(type(bias) in (int, float) and -100 <= bias <= 100 for bias in value.values()):
        raise APIError(400, "logit_bias must have numbers between -100 and 100 as values", param="logit_bias")
    return {int(token): float(bias) for token, bias in value.items()}


STRING: dict[str, Any] = {"type": "string", "minLength": 1}
STOP = {"anyOf": [STRING, {"type": "array", "items": STRING, "maxItems": MAX_STOP}]}
LOGIT_BIAS = {
    "type": "object",
    "propertyNames": {"pattern": "^[0-9]{1,9}$"},
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
}


class StreamOptions(Body):
    """How a stream ends."""

    include_usage: bool = Field(False, description="One more event at the end, without choices, holds the usage.")


class NamedSchema(Body):
    """A JSON schema under a name."""

    name: str = "answer"
    description: str = ""
    definition: dict[str, Any] = Field(alias="schema", description="The JSON schema.")
    strict: bool = Field(True, description="The answer has the schema either way.")


class ResponseFormat(Body):
    """What an answer is: any text, any JSON object, or JSON of one schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class Parameters(Body):
    """What both kinds of completion can be asked for."""

    model: str | None = Field(None, description="The id that /v1/models gives, or nothing.")
    temperature: float = Field(1.0, ge=0, le=2, description="Divides the logits; 0 is greedy.")
    top_p: float = Field(1.0, ge=0, le=1, description="Keep the likeliest tokens that make up this probability.")
    n: int = Field(1, ge=1, le=MAX_N, description="Samples of each prompt; sample i is drawn with seed + i.")
    stream: bool = Field(False, description="Send each token as a server-sent event; [DONE] ends the stream.")
    stream_options: StreamOptions | None = None
    stop: Annotated[tuple[str, ...], BeforeValidator(parse_stop), WithJsonSchema(STOP)] = Field(
        (), description="The answer ends before the first of these."
    )
    presence_penalty: float = Field(0.0, ge=-2, le=2, description="Taken from the logits of tokens already generated,")
    frequency_penalty: float = Field(0.0, ge=-2, le=2, description="and this for each time that they were.")
    logit_bias: Annotated[dict[int, float], BeforeValidator(parse_logit_bias), WithJsonSchema(LOGIT_BIAS)] = Field(
        {}, description="Added to the logits of tokens, by their ids."
    )
    seed: int | None = Field(
        None, ge=-INT64, lt=INT64, description="The same seed gives the same text, whoever else is served."
    )
    user: str | None = Field(None, description="Accepted and not used.")
    response_format: ResponseFormat | None = None
    # What follows is not OpenAI's; the names are those that other servers have.
    top_k: int = Field(0, ge=0, description="Keep so many of the likeliest tokens; 0 keeps all.")
    min_p: float = Field(
        0.0, ge=0, le=1, description="Keep tokens at least this many times as likely as the likeliest."
    )
    typical_p: float = Field(1.0, ge=0, le=1, description="Keep the tokens of most typical surprise up to this.")
    repetition_penalty: float = Field(
        1.0, ge=0.01, le=100, description="Divides the positive logits of tokens seen before, multiplies the others."
    )
    regex: str | None = Field(None, description="The answer matches this regular expression, as a whole.")

    passed_on: ClassVar = (
        *("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty", "logit_bias"),
        *("top_k", "min_p", "typical_p", "repetition_penalty"),
    )
    """What the engine knows by the same name."""

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def engine_params(self, **others: Any) -> SamplingParams:
        """What the engine needs. Raises APIError for what does not go together."""
        if self.stream_options is not None and not self.stream:
            raise APIError(400, "stream_options goes with stream only", param="stream_options")
        try:
            return SamplingParams(**{name: getattr(self, name) for name in self.passed_on}, **others)
        except ValueError as error:  # the sentence begins with the parameter's name
            raise APIError(400, str(error), param=str(error).split()[0]) from None
