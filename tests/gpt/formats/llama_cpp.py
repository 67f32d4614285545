"""llama.cpp run on a GGUF file in a process of its own, which an assertion in it would end.

Usage: python llama_cpp.py FILE FOLDER. Reads `ids.json` and `text.txt` in the folder; writes `log_probabilities.npy`,
those of every token after each position, and `text.json`, the ids that llama.cpp gives to the text.
"""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import xllamacpp


def served(path: str, n_ctx: int) -> xllamacpp.Server:
    """llama.cpp's server with a model; keys and values are float32, on one thread."""
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.warmup = path, n_ctx, 1, False
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    return xllamacpp.Server(params)


def post(server: xllamacpp.Server, path: str, request: dict[str, Any]) -> Any:
    """What the server answers."""
    body, headers = json.dumps(request).encode(), {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{server.listening_address}{path}", body, headers)
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)


def log_probabilities(server: xllamacpp.Server, ids: list[int], n_vocab: int) -> np.ndarray:
    """(positions, vocabulary): one request for the token after each beginning of the text.

    The token drawn is always the same letter: llama.cpp answers with the probabilities, which are those before the
    bias, only where the drawn token's text is whole characters.
    """
    found = np.full((len(ids), n_vocab), -np.inf, np.float32)
    *_, letter = post(server, "/tokenize", {"content": "a", "add_special": False})["tokens"]
    request = {"n_predict": 1, "n_probs": n_vocab, "temperature": 0.0, "cache_prompt": True}
    request["logit_bias"] = [[letter, 1000.0]]
    for n in range(1, len(ids) + 1):
        (token,) = post(server, "/completion", request | {"prompt": ids[:n]})["completion_probabilities"]
        for one in token["top_logprobs"]:
            found[n - 1, one["id"]] = one["logprob"]
    return found


def main() -> None:
    path, folder = sys.argv[1], Path(sys.argv[2])
    ids, n_vocab = json.loads((folder / "ids.json").read_text())
    server = served(path, max(256, len(ids) + 8))
    np.save(folder / "log_probabilities.npy", log_probabilities(server, ids, n_vocab))
    text = (folder / "text.txt").read_text(encoding="utf-8")
    tokens = post(server, "/tokenize", {"content": text, "add_special": True, "parse_special": False})["tokens"]
    (folder / "text.json").write_text(json.dumps(tokens))


if __name__ == "__main__":
    main()
