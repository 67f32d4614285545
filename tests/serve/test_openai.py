"""Whatever a body holds, it becomes a request or a refusal in OpenAI's form."""

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bluejay.infer.sampling import SamplingParams
from bluejay.serve.openai import NEUTRAL, APIError, CompletionRequest, invalid_body

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from([*CompletionRequest.model_fields, *NEUTRAL]) | st.text(max_size=5)


@given(st.dictionaries(names, json_values, max_size=5))
def test_any_object_is_taken_or_refused(body):
    try:
        request = CompletionRequest.model_validate(body)
        assert isinstance(request.sampling(), SamplingParams)
    except ValidationError as error:
        check(invalid_body(error.errors()), body)
    except APIError as error:
        check(error, body)
    else:
        assert all(isinstance(prompt, str | list) for prompt in request.prompt)


def check(error: APIError, body: dict) -> None:
    assert error.status_code == 400
    assert set(error.body["error"]) == {"message", "type", "param", "code"}
    # A body that is an object is refused for one of its parameters, which the answer names.
    param = error.body["error"]["param"]
    assert param in body or param.split(".")[0] in body or "" in body
