"""CTranslate2, GPT-J in int8: its own specification of the model, filled with random weights."""

import os
import sys
from pathlib import Path

import ctranslate2
import numpy as np
from ctranslate2.specs import common_spec, transformer_spec
from timing import report

D, F, V, HEADS = 4096, 16384, 50400, 16


def write(path: Path, n_layer: int) -> None:
    """The model, every matrix in int8 with a scale for each row."""
    rng = np.random.default_rng(0)
    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        n_layer,
        HEADS,
        pre_norm=True,
        activation=common_spec.Activation.GELUTanh,
        rotary_dim=64,
        rotary_interleave=True,
        parallel_residual=True,
        shared_layer_norm=True,
    )

    def matrix(linear, rows: int, columns: int, bias: bool) -> None:
        linear.weight = rng.integers(-127, 128, (rows, columns), np.int8)
        linear.weight_scale = np.full(rows, 127 / 0.05, np.float32)
        if bias:
            linear.bias = np.zeros(rows, np.float32)

    def norm(spec) -> None:
        spec.gamma, spec.beta = np.ones(D, np.float32), np.zeros(D, np.float32)

    decoder = spec.decoder
    decoder.embeddings.weight = rng.integers(-127, 128, (V, D), np.int8)
    decoder.embeddings.weight_scale = np.full(V, 127 / 0.05, np.float32)
    decoder.scale_embeddings = False
    norm(decoder.layer_norm)
    matrix(decoder.projection, V, D, bias=True)
    for layer in decoder.layer:
        norm(layer.shared_layer_norm)
        matrix(layer.self_attention.linear[0], 3 * D, D, bias=False)
        matrix(layer.self_attention.linear[1], D, D, bias=False)
        matrix(layer.ffn.linear_0, F, D, bias=True)
        matrix(layer.ffn.linear_1, D, F, bias=True)
    spec.register_vocabulary([f"t{i}" for i in range(V)])
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = "t0"
    spec.validate()
    path.mkdir(exist_ok=True)
    spec.save(str(path))


def main() -> None:
    path = Path(sys.argv[3]) / "ctranslate2"
    write(path, int(sys.argv[2]))
    threads = len(os.sched_getaffinity(0))
    model = ctranslate2.Generator(str(path), compute_type="int8", intra_threads=threads)

    def decode(n: int) -> None:
        prompt = [["t100", "t101", "t102", "t103"]]
        model.generate_batch(prompt, min_length=n, max_length=n, include_prompt_in_result=False, end_token="t0")

    def prefill(n: int) -> None:
        prompt = [[f"t{i}" for i in range(1, n + 1)]]
        model.generate_batch(prompt, min_length=1, max_length=1, include_prompt_in_result=False, end_token="t0")

    report(decode, prefill)


if __name__ == "__main__":
    main()
