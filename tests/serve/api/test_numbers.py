"""No number in a request, however large, fails the server: it is taken, or refused in one sentence."""

import httpx
import pytest

from bluejay.serve.api.completions import CompletionRequest
from bluejay.serve.api.embeddings import EmbeddingRequest
from bluejay.serve.api.legacy import CompleteRequest, LegacyCompletionRequest, PredictionRequest, PredictRequest
from bluejay.serve.api.lens import LensRequest
from bluejay.serve.api.models import DetokenizeRequest
from bluejay.serve.api.steered import SteeredRequest

PROMPT = {"prompt": "a", "max_tokens": 1}
STEERING = {"toward": ["the cat"], "away": ["cat the"]}
BODIES = {
    "/v1/completions": (CompletionRequest, PROMPT),
    "/v1/embeddings": (EmbeddingRequest, {"input": "a"}),
    "/v1/lens": (LensRequest, {"input": "a"}),
    "/v1/lens/completions": (SteeredRequest, {**PROMPT, "steering": STEERING}),
    "/complete": (CompleteRequest, {"context": "a"}),
    "/completion": (LegacyCompletionRequest, {"context": "a"}),
    "/model/predict": (PredictRequest, {"context": "a"}),
    "/model/get_prediction": (PredictionRequest, {}),
    "/detokenize": (DetokenizeRequest, {}),
}


@pytest.fixture(scope="module")
def small(running, tiny_model):
    with running(tiny_model) as server:
        yield server


@pytest.mark.parametrize("path", BODIES)
def test_no_number_fails_the_server(small, path):
    kind, base = BODIES[path]
    changes = [{name: value} for name in kind.model_fields for value in (10**400, -(10**400), [10**400], [[10**400]])]
    changes += [{"logit_bias": {"1": 10**400}}, {"steering": STEERING | {"layer": 10**400}}]
    changes += [{"steering": STEERING | {"strength": 10**400}}, {"corrupt": [10**400]}]
    for change in changes:
        answer = httpx.post(f"{small.url}{path}", json=base | change)
        assert answer.status_code in (200, 400, 404), (change, answer.text)
        if answer.status_code == 200 and "qid" in answer.json():
            assert httpx.post(f"{small.url}/model/get_prediction", json=answer.json()).status_code == 200, change
