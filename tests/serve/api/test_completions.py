"""The completions API over HTTP, mostly with the official client."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
import torch
import transformers

from bluejay.gpt.formats.layouts import save_model
from bluejay.infer.params import SamplingParams
from bluejay.serve.api import completions

PROMPT = "the cat"


def complete(client: openai.OpenAI, prompt=PROMPT, **params):
    return client.completions.create(model="tiny", prompt=prompt, **params)


def test_streamed_text_equals_whole_text_and_the_library(client, model):
    params = {"max_tokens": 60, "temperature": 0.9, "top_p": 0.95, "seed": 5}
    whole = complete(client, **params)
    parts = list(complete(client, **params, stream=True, stream_options={"include_usage": True}))
    expected = model.generate(PROMPT, SamplingParams(**params))[0]
    assert whole.choices[0].text == "".join(part.choices[0].text for part in parts[:-1]) == expected
    assert parts[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert parts[-1].choices == [] and parts[-1].usage == whole.usage
    assert whole.usage.completion_tokens == 60 == len(parts) - 1
    assert whole.usage.prompt_tokens == len(model.tokenizer.encode(PROMPT))
    assert whole.id.startswith("cmpl-") and whole.object == "text_completion" and whole.model == "tiny"


def test_stream_ends_with_done(server):
    response = httpx.post(f"{server.url}/v1/completions", json={"prompt": PROMPT, "stream": True, "max_tokens": 2})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.strip().split("\n\n")
    assert events[-1] == "data: [DONE]" and all(event.startswith("data: {") for event in events[:-1])


def test_equal_seeds_give_equal_texts(client):
    texts = [complete(client, seed=seed, max_tokens=20).choices[0].text for seed in (1, 1, 2, None, None)]
    assert texts[0] == texts[1]
    assert len(set(texts[1:])) == 4


def test_choices_are_prompt_major(client, model):
    prompts = ["one", "another"]
    params = {"n": 3, "seed": 9, "max_tokens": 12}
    whole = complete(client, prompts, **params)
    expected = [
        text
        for prompt in prompts
        for text in model.generate(prompt, SamplingParams(temperature=1.0, top_p=1.0, **params))
    ]
    assert [choice.text for choice in whole.choices] == expected
    assert [choice.index for choice in whole.choices] == list(range(6))
    streamed = [""] * 6
    for part in complete(client, prompts, **params, stream=True):
        streamed[part.choices[0].index] += part.choices[0].text
    assert streamed == expected


PASSED_ON = [
    {"top_k": 3, "temperature": 1.5},
    {"min_p": 0.3},
    {"typical_p": 0.5},
    {"repetition_penalty": 1.8},
    {"presence_penalty": 2.0, "frequency_penalty": -1.5},
    {"logit_bias": {"65": 30, "66": 30.5}},
    {"temperature": 0.0, "stop": ["t", "q"]},
]


@pytest.mark.parametrize("params", PASSED_ON, ids=lambda params: next(iter(params)))
def test_every_parameter_means_the_same_as_in_the_library(client, model, params):
    """Each parameter changes the text, so that a parameter that is ignored would be noticed."""
    plain = {"max_tokens": 24, "temperature": 1.0, "top_p": 1.0, "seed": 4}
    library = plain | params
    library |= {"stop": tuple(library["stop"])} if "stop" in params else {}
    library |= {"logit_bias": {int(id): float(bias) for id, bias in params.get("logit_bias", {}).items()}}
    [expected] = model.generate(PROMPT, SamplingParams(**library))
    assert complete(client, extra_body=plain | params).choices[0].text == expected
    assert expected != model.generate(PROMPT, SamplingParams(**plain))[0]


@pytest.fixture(scope="module")
def reference(model, tmp_path_factory):
    """The same model as transformers reads it."""
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_model(model.gpt, model.tokenizer, path)
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def test_echo_scores_the_prompt_as_transformers_does(client, model, reference):
    prompts = ["the cat sat on the the mat, naïve", "x", ""]
    answer = complete(client, prompts, max_tokens=3, temperature=0, echo=True, logprobs=4)
    for prompt, choice in zip(prompts, answer.choices, strict=True):
        n_prompt = len(tokens := model.tokenizer.encode_prompt(prompt))
        tokens = reference.generate(torch.tensor([tokens]), max_new_tokens=3, do_sample=False, pad_token_id=0)
        expected = reference(tokens).logits[0].log_softmax(-1)
        found = choice.logprobs
        assert found.token_logprobs[0] is None and found.top_logprobs[0] is None
        chosen = expected[:-1].gather(1, tokens[0, 1:, None])[:, 0]
        assert found.token_logprobs[1:] == pytest.approx(chosen.tolist(), abs=1e-4)
        for top, row, token in zip(found.top_logprobs[1:], expected[:-1], tokens[0, 1:], strict=True):
            likeliest = row.topk(4).values.tolist()
            assert sorted(top.values(), reverse=True)[:4] == pytest.approx(likeliest, abs=1e-4)
            assert len(top) == 4 + (row[token] < likeliest[-1])
        assert len(found.tokens) == n_prompt + 3
        assert choice.text.startswith(prompt)


def test_a_prompt_can_be_scored_alone(client):
    choice = complete(client, max_tokens=0, echo=True, logprobs=0).choices[0]
    longer = complete(client, max_tokens=1, echo=True, logprobs=0).choices[0]
    assert choice.text == PROMPT and choice.finish_reason == "length"
    assert choice.logprobs.token_logprobs == longer.logprobs.token_logprobs[:-1]
    assert complete(client, max_tokens=0).choices[0].text == ""


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/lens/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_does_not_repeat_more_of_its_prompts_than_a_limit(server, monkeypatch, stream, path):
    """Scoring a prompt once is cheap; writing it out for each of n samples with its alternatives is not."""
    monkeypatch.setattr(completions, "MAX_ECHOED", 600)
    steering = {"steering": {"toward": ["ab"], "away": ["cd"]}} if "lens" in path else {}
    body = {"prompt": [[65] * 50] * 2, "n": 2, "max_tokens": 0, "echo": True, "stream": stream, **steering}
    address = f"{server.url}{path}"
    assert httpx.post(address, json=body | {"logprobs": 2}).status_code == 200
    error = check_error(httpx.post(address, json=body | {"logprobs": 3}), 400)
    assert error["param"] == "echo" and error["message"].startswith("echo would repeat 800 values")
    assert httpx.post(address, json=body | {"logprobs": 3, "echo": False}).status_code == 200


def test_a_streams_logprobs_are_those_of_the_whole(client):
    params = {"max_tokens": 30, "seed": 2, "logprobs": 3, "echo": True, "stop": ["zq"]}
    whole = complete(client, **params).choices[0]
    parts = [part.choices[0] for part in complete(client, **params, stream=True)]
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [entry for part in parts for entry in getattr(part.logprobs, name)] == getattr(whole.logprobs, name)
    assert "".join(part.text for part in parts) == whole.text
    assert all(len(part.logprobs.tokens) == 1 for part in parts[1:])


@pytest.mark.parametrize("echo", [False, True])
def test_offsets_cut_the_text_at_its_tokens(client, echo):
    """Only letters, so that the text of each token lies between two offsets."""
    letters = {str(id): 100 for id in range(32, 90)}
    prompt = "naïve 日本 the cat"
    choice = complete(client, prompt, max_tokens=12, logprobs=0, echo=echo, logit_bias=letters).choices[0]
    found = choice.logprobs
    ends = [*found.text_offset[1:], len(choice.text)]
    pieces = [choice.text[begin:end] for begin, end in zip(found.text_offset, ends, strict=True)]
    assert "".join(pieces) == choice.text
    for token, piece in zip(found.tokens, pieces, strict=True):
        assert piece == token or (token.startswith("bytes:\\x") and len(piece) <= 1)


def test_best_of_returns_the_likeliest_samples(client):
    params = {"max_tokens": 10, "seed": 11}
    samples = complete(client, ["a", "b"], n=6, logprobs=0, **params).choices
    best = complete(client, ["a", "b"], n=2, best_of=6, **params)
    for first, prompt in ((0, samples[:6]), (2, samples[6:])):
        ranked = sorted(prompt, key=lambda choice: -sum(choice.logprobs.token_logprobs) / 10)
        assert [choice.text for choice in best.choices[first : first + 2]] == [choice.text for choice in ranked[:2]]
    assert [choice.index for choice in best.choices] == [0, 1, 2, 3]
    assert best.choices[0].logprobs is None
    assert best.usage.completion_tokens == 2 * 6 * 10


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_matches_its_regular_expression(client, stream):
    pattern = r"[a-c]{4}-(yes|no)"
    answer = complete(client, n=3, seed=1, max_tokens=40, extra_body={"regex": pattern}, stream=stream)
    texts, reasons = [""] * 3, [None] * 3
    for part in answer if stream else [answer]:
        for choice in part.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason
    assert all(re.fullmatch(pattern, text) for text in texts) and len(set(texts)) > 1
    assert reasons == ["stop"] * 3


def test_a_constraint_that_becomes_too_complex_fails_only_its_request(client):
    form = {"regex": r"(a|aa){500}$"}
    with pytest.raises(openai.BadRequestError, match="too complex"):
        complete(client, max_tokens=40, extra_body=form)
    with pytest.raises(openai.APIError, match="too complex"):
        list(complete(client, max_tokens=40, extra_body=form, stream=True))
    assert complete(client).choices[0].text


def test_the_fingerprint_belongs_to_the_model(client, running, tiny_model):
    ours = {complete(client, max_tokens=1).system_fingerprint for _ in range(2)}
    assert len(ours) == 1 and ours.pop().startswith("fp_")
    with running(tiny_model) as other:
        theirs = httpx.post(f"{other.url}/v1/completions", json={"prompt": "x", "max_tokens": 1}).json()
    assert theirs["system_fingerprint"] != complete(client, max_tokens=1).system_fingerprint


def test_token_ids_are_prompts(client, model):
    tokens = model.tokenizer.encode(PROMPT)
    texts = [complete(client, prompt, temperature=0).choices[0].text for prompt in (PROMPT, tokens, [tokens], [PROMPT])]
    assert len(set(texts)) == 1


def test_stop_and_echo_apply_together(client):
    text = complete(client, temperature=0, max_tokens=40).choices[0].text
    stop = text[10:13]
    stopped = complete(client, temperature=0, max_tokens=40, stop=stop, echo=True).choices[0]
    assert stopped.text == PROMPT + text[: text.index(stop)] and stopped.finish_reason == "stop"


def test_answer_that_does_not_fit_ends_with_length(client, model):
    choice = complete(client, list(range(65, 75)) * 102, max_tokens=500).choices[0]
    assert choice.finish_reason == "length"


def test_concurrent_answers_equal_lone_ones(client):
    prompts = [f"{i} times the cat" for i in range(12)]
    alone = [complete(client, prompt, temperature=0, max_tokens=16).choices[0].text for prompt in prompts]
    with ThreadPoolExecutor(len(prompts)) as pool:
        together = pool.map(
            lambda prompt: complete(client, prompt, temperature=0, max_tokens=16).choices[0].text, prompts
        )
        assert list(together) == alone


CODE = ["\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```", "<file_sep>"]
"""Where the harnesses of HumanEval end a function."""


@pytest.mark.parametrize("stop", CODE)
def test_an_answer_ends_at_any_of_the_strings_that_benchmarks_of_code_send(client, stop):
    choice = complete(client, max_tokens=30, stop=CODE, extra_body={"regex": f"abc{re.escape(stop)}x*"}).choices[0]
    assert (choice.text, choice.finish_reason) == ("abc", "stop")


def post(server, body) -> httpx.Response:
    content = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return httpx.post(f"{server.url}/v1/completions", content=content, headers={"Content-Type": "application/json"})


def check_error(response: httpx.Response, status: int) -> dict:
    """The error object of a response, which must be complete."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and "\n" not in error["message"] and "/src/" not in error["message"]
    return error


REFUSED = [
    ({"top_p": 2}, "top_p", "top_p is 2; it must be less than or equal to 1"),
    ({"temperature": -1}, "temperature", "greater than or equal to 0"),
    ({"temperature": "hot"}, "temperature", "temperature must be a valid number"),
    ({"n": 0}, "n", "n is 0; it must be greater than or equal to 1"),
    ({"n": 129}, "n", "less than or equal to 128"),
    ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
    ({"max_tokens": True}, "max_tokens", "max_tokens must be a whole number"),
    ({"seed": 2**64}, "seed", "seed is 18446744073709551616; it must be less than"),
    ({"stop": ["a"] * 65}, "stop", "at most 64"),
    ({"stop": ""}, "stop", "empty string"),
    ({"logprobs": 21}, "logprobs", "less than or equal to 20"),
    ({"logit_bias": {"259": 1}}, "logit_bias", "outside 0..258"),
    ({"suffix": "x"}, "suffix", "not supported"),
    ({"best_of": 1, "n": 2}, "best_of", "at least n, which is 2"),
    ({"regex": "("}, "regex", "regex cannot be used: unclosed group"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "must be 'text'"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing"),
    ({"response_format": {"type": "json_object"}, "regex": "a"}, "regex", "exclude each other"),
    ({"response_format": "json"}, "response_format", "response_format must be an object"),
    (
        {"response_format": {"type": "json_object", "json_schema": {"schema": {"type": "integer"}}}},
        "response_format.json_schema",
        "response_format.json_schema needs the type json_schema; the type is json_object",
    ),
    ({"stream_options": True}, "stream_options", "stream_options must be an object"),
    ({"tempreature": 1}, "tempreature", "did you mean temperature?"),
    ({"stream_options": {"usage": True}}, "stream_options.usage", "no parameter"),
    ({"prompt": []}, "prompt", "prompt must be a string"),
    ({"prompt": ["a", 1]}, "prompt", "prompt must be a string"),
    ({"prompt": [1, 99999]}, "prompt", "outside 0..258"),
    ({"prompt": ["a"] * 65}, "prompt", "at most 64"),
    ({"prompt": "x" * 2000}, "prompt", "2000 tokens; this model's maximum context length is 1024"),
    ('{"top_p": 1e999}', "top_p", "finite number"),
    ('{"prompt": "a", "logit_bias": {"5": -Infinity}}', None, "not valid JSON: it holds -Infinity"),
    ('{"max_tokens": 1, "prompt": "a", "max_tokens": 2}', None, "the body holds max_tokens twice"),
    ('{"stream_options": {"a": NaN}, "top_p": null}', None, "it holds NaN"),
    ("[]", None, "JSON object"),
    ("", None, "JSON object"),
    ("{", None, "not valid JSON"),
    (b"\xff", None, "not UTF-8"),
    ("[" * 100_000, None, "nested too deeply"),
]


@pytest.mark.parametrize("body, param, message", REFUSED, ids=[str(body)[:30] for body, _, _ in REFUSED])
def test_bad_request_is_one_clear_sentence(server, body, param, message):
    error = check_error(post(server, body), 400)
    assert error["param"] == param and message in error["message"]
    assert error["type"] == "invalid_request_error"


def test_an_unknown_model_is_not_found(client, server):
    with pytest.raises(openai.NotFoundError) as refused:
        client.completions.create(model="gpt-5", prompt=PROMPT)
    assert refused.value.code == "model_not_found"
    check_error(post(server, '{"model": "\\ud800"}'), 404)


def test_body_that_is_not_declared_as_json_is_refused(server):
    # Browsers send such requests from any page without asking; JSON they must ask for.
    response = httpx.post(
        f"{server.url}/v1/completions", content='{"prompt": "x"}', headers={"Content-Type": "text/plain"}
    )
    assert "Content-Type: application/json" in check_error(response, 400)["message"]


@pytest.mark.parametrize("body", [b"x" * 1_000_001, iter([b"x" * 600_000] * 2)], ids=["length", "chunks"])
def test_a_body_over_the_limit_is_rejected(server, body):
    response = httpx.post(f"{server.url}/v1/completions", content=body, headers={"Content-Type": "application/json"})
    check_error(response, 413)
