"""Parameters of other servers, which programs such as SillyTavern send to every server. Each is accepted where it
changes no answer of this one, and refused by name where it would."""

import json
from collections.abc import Mapping
from typing import Any

SETTINGS_OF_WHAT_IS_OFF = frozenset(
    {
        *("dry_allowed_length", "dry_base", "dry_penalty_last_n", "dry_sequence_breakers"),
        *("dynatemp_exponent", "dynatemp_high", "dynatemp_low", "dynatemp_max", "dynatemp_min", "dynatemp_range"),
        *("adaptive_decay", "mirostat_eta", "mirostat_tau", "smoothing_curve", "xtc_threshold"),
        *("early_stopping", "length_penalty", "negative_prompt", "rep_pen_slope"),
    }
)
"""Settings of methods that are off, because the parameter that turns each of them on is one of those in `OFF`."""
READ_OVER = SETTINGS_OF_WHAT_IS_OFF | {
    *("api_server", "api_type", "cache_prompt", "include_reasoning"),
    *("num_ctx", "truncation_length"),  # to which others cut a prompt; here one that is too long is refused
}
"""Parameters that change no answer here, whatever their value."""
OFF: Mapping[str, tuple[Any, ...]] = {
    "adaptive_target": (-0.01, -1),
    "add_bos_token": (True,),
    "ban_eos_token": (False,),
    "banned_strings": ([],),
    "custom_token_bans": ("", []),
    "do_sample": (True,),
    "dry_multiplier": (0,),
    "dynamic_temperature": (False,),
    "encoder_repetition_penalty": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "grammar": ("",),
    "grammar_string": ("",),
    "guidance_scale": (1,),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "max_tokens_second": (0,),
    "min_keep": (0,),
    "min_length": (0,),
    "min_tokens": (0,),
    "mirostat": (0,),
    "mirostat_mode": (0,),
    "no_repeat_ngram_size": (0,),
    "nsigma": (0,),
    "num_beams": (1,),
    "penalty_alpha": (0,),
    "repetition_decay": (0,),
    "skew": (0,),
    "skip_special_tokens": (True,),
    "smoothing_factor": (0,),
    "spaces_between_special_tokens": (True,),
    "speculative_ngram": (False, True),
    "tfs": (1,),
    "tfs_z": (1,),
    "top_a": (0,),
    "top_n_sigma": (0, -1),
    "use_beam_search": (False,),
    "xtc_probability": (0,),
}
"""Parameter -> the values with which it asks for nothing, the usual one first."""
SAME: Mapping[str, str] = {
    "max_new_tokens": "max_tokens",
    "n_predict": "max_tokens",
    "n_probs": "logprobs",
    "num_predict": "max_tokens",
    "rep_pen": "repetition_penalty",
    "rep_pen_range": "repetition_penalty_range",
    "repeat_last_n": "repetition_penalty_range",
    "repeat_penalty": "repetition_penalty",
    "sampler_seed": "seed",
    "stopping_strings": "stop",
    "typical": "typical_p",
}
"""Another name for a parameter -> that parameter; accepted beside it with the same value."""
INSTEAD: Mapping[str, str] = {
    "guided_choice": "send a regex",
    "guided_json": "send a response_format",
    "guided_regex": "send a regex",
    "json_schema": "send a response_format",
    "structured_outputs": "send a response_format or a regex",
}
"""Parameter -> what this server has for the same purpose."""
STEPS: Mapping[str, float] = {
    "repetition_penalty": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "temperature": 1,
    "top_k": 0,
    "top_p": 1,
    "min_p": 0,
    "typical_p": 1,
}
"""What is done to logits before a token is drawn, in the order in which it is done -> the value that does nothing."""
ABSENT: Mapping[str, Any] = {"top_k": -1}
"""A parameter of this server -> the value with which others are told what its absence says."""
ORDERS = ("repetition_penalty_range", "sampler_priority", "temperature_last")
"""Parameters whose effect depends on those in `STEPS`."""
NAMES = READ_OVER | OFF.keys() | SAME.keys() | INSTEAD.keys() | {*ORDERS}


def remedy(name: str, body: Mapping[str, Any]) -> str | None:
    """What to do about a parameter in `NAMES` that would change the answer to a body; None where it would not."""
    value = body[name]
    if name in READ_OVER:
        return None
    if name in INSTEAD:
        return INSTEAD[name]
    if name == "do_sample" and value is False:
        return "send temperature 0"
    if name in OFF:
        off = any(value == one and (type(value) is bool) == (type(one) is bool) for one in OFF[name])
        return None if off else f"leave it out or send {json.dumps(OFF[name][0])}"
    if name in SAME:
        return None if value == body.get(SAME[name]) else f"send {SAME[name]} alone"
    steps = [step for step, nothing in STEPS.items() if body.get(step) not in (None, nothing, ABSENT.get(step))]
    if name == "repetition_penalty_range":  # 0 is the whole text, as here
        return None if value == 0 or "repetition_penalty" not in steps else "leave it out or send 0"
    if body.get("temperature") == 0:  # the likeliest token passes every filter
        return None
    if name == "temperature_last":
        if value is False or "temperature" not in steps or steps[-1] == "temperature":
            return None
        return "leave it out or send false; filters follow the temperature here"
    wanted = value.splitlines() if isinstance(value, str) else value if isinstance(value, list) else []
    kept = [step for step in wanted if step in steps]
    return None if kept == steps else f"leave it out; the order here is {', '.join(STEPS)}"
