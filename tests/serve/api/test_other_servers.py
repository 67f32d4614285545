"""Programs that send every server the parameters of all of them are served as far as their answers stay right."""

import json

import pytest
from pydantic import ValidationError

from bluejay.serve.api.chat import ChatRequest
from bluejay.serve.api.completions import CompletionRequest
from bluejay.serve.errors import invalid_body

OWN = json.loads(r"""{
    "prompt": "User: hi\nBot:", "model": "tiny", "max_tokens": 20, "temperature": 0.7, "top_p": 0.5, "typical_p": 1,
    "min_p": 0, "repetition_penalty": 1.2, "frequency_penalty": 0, "presence_penalty": 0, "top_k": 40,
    "stop": ["\nUser:"], "logprobs": 10
}""")
OTHERS = json.loads(r"""{
    "max_new_tokens": 20, "typical": 1, "skew": 0, "min_length": 0, "min_tokens": 0, "num_beams": 1,
    "length_penalty": 1, "early_stopping": false, "add_bos_token": true, "smoothing_factor": 0, "smoothing_curve": 1,
    "dry_allowed_length": 2, "dry_multiplier": 0, "dry_base": 1.75,
    "dry_sequence_breakers": "[\"\\n\", \":\", \"\\\"\", \"*\"]", "dry_penalty_last_n": 0, "max_tokens_second": 0,
    "sampler_priority": ["repetition_penalty", "presence_penalty", "frequency_penalty", "dry", "temperature",
    "dynamic_temperature", "quadratic_sampling", "top_n_sigma", "top_k", "top_p", "typical_p", "epsilon_cutoff",
    "eta_cutoff", "tfs", "top_a", "min_p", "adaptive_p", "mirostat", "xtc", "encoder_repetition_penalty",
    "no_repeat_ngram"], "stopping_strings": ["\nUser:"], "truncation_length": 2048, "ban_eos_token": false,
    "skip_special_tokens": true, "include_reasoning": true, "top_a": 0, "tfs": 1, "epsilon_cutoff": 0,
    "eta_cutoff": 0, "mirostat_mode": 0, "mirostat_tau": 5, "mirostat_eta": 0.1, "custom_token_bans": "",
    "banned_strings": [], "api_type": "ooba", "api_server": "http://127.0.0.1:8000", "xtc_threshold": 0.1,
    "xtc_probability": 0, "nsigma": 0, "top_n_sigma": 0, "min_keep": 0, "adaptive_target": -0.01,
    "adaptive_decay": 0.9, "rep_pen": 1.2, "rep_pen_range": 0, "repetition_penalty_range": 0,
    "encoder_repetition_penalty": 1, "no_repeat_ngram_size": 0, "penalty_alpha": 0, "temperature_last": false,
    "do_sample": true, "guidance_scale": 1, "negative_prompt": "", "repeat_penalty": 1.2, "repeat_last_n": 0,
    "n_predict": 20, "num_predict": 20, "num_ctx": 2048, "mirostat": 0, "ignore_eos": false, "rep_pen_slope": 1,
    "n_probs": 10
}""")
"""What SillyTavern 1.19 sends to text-generation-webui besides, with its setting Temperature Last off."""


def test_what_sillytavern_sends_to_every_server_changes_nothing():
    alone = CompletionRequest.model_validate(OWN)
    assert CompletionRequest.model_validate(OWN | OTHERS) == alone
    assert alone.sampling().stop == ("\nUser:",)
    chat = {"messages": [{"role": "user", "content": "x"}]}
    assert ChatRequest.model_validate(chat | {"tfs": 1.0, "top_k": -1}) == ChatRequest.model_validate(chat)


@pytest.mark.parametrize(
    ("values", "param", "told"),
    [
        ({"tfs": 0.9}, "tfs", "leave it out or send 1"),
        ({"ban_eos_token": 0}, "ban_eos_token", "leave it out or send false"),
        ({"banned_strings": ["cat"]}, "banned_strings", "leave it out or send []"),
        ({"max_new_tokens": 30}, "max_new_tokens", "send max_tokens alone"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs", "send a response_format or a regex"),
        ({"do_sample": False}, "do_sample", "send temperature 0"),
        ({"repetition_penalty_range": 512}, "repetition_penalty_range", "leave it out or send 0"),
        ({"repetition_penalty_range": 512, "repetition_penalty": 1, "rep_pen": 1, "repeat_penalty": 1}, None, None),
        ({"temperature_last": True}, "temperature_last", "leave it out or send false; filters follow the temperature"),
        ({"temperature_last": True, "temperature": 1}, None, None),
        ({"temperature_last": True, "temperature": 0}, None, None),
        ({"temperature_last": True, "top_p": 1, "top_k": -1}, None, None),
        ({"min_p": 0.1}, None, None),
        ({"min_p": 0.1, "typical_p": 0.9, "typical": 0.9}, "sampler_priority", "leave it out; the order here is"),
        ({"sampler_priority": "temperature\ntop_k"}, "sampler_priority", "leave it out; the order here is"),
        ({"sampler_priority": {}}, "sampler_priority", "leave it out; the order here is"),
    ],
)
def test_a_parameter_of_another_server_that_would_change_the_answer_is_refused_by_name(values, param, told):
    body = OWN | OTHERS | {"rep_pen_range": None, "repeat_last_n": None} | values
    if param is None:
        CompletionRequest.model_validate(body).sampling()
        return
    with pytest.raises(ValidationError) as refused:
        CompletionRequest.model_validate(body)
    error = invalid_body(refused.value.errors()).body["error"]
    assert (error["code"], error["param"]) == ("unsupported", param)
    assert error["message"].startswith(f"{param} is not supported by this server; {told}")
