"""What a model says while it learns."""

from bluejay.gpt.model import GPT
from bluejay.infer.backends.torch import TorchBackend
from bluejay.infer.engine import Engine
from bluejay.infer.params import SamplingParams
from bluejay.tokenizer import Tokenizer
from bluejay.train.recipe import Evaluate


def samples(model: GPT, tokenizer: Tokenizer, wanted: Evaluate) -> dict[str, str]:
    """How the model continues each prompt of a recipe; the same weights say the same."""
    prompts, length = wanted.prompts, wanted.sample_tokens
    if not prompts:
        return {}
    encoded = {prompt: tokenizer.encode_prompt(prompt)[-model.config.n_ctx // 2 :] for prompt in prompts}
    params = SamplingParams(max_tokens=length, temperature=0.8, top_p=0.9, seed=0)
    backend = TorchBackend.for_tokens(model, [len(tokens) + length for tokens in encoded.values()])
    engine = Engine(backend, tokenizer, len(prompts), len(prompts))
    asked = {id(engine.submit(tokens, params)): prompt for prompt, tokens in encoded.items()}
    said = dict.fromkeys(prompts, "")
    while not engine.idle:
        for request, chunk in engine.step():
            said[asked[id(request)]] += chunk.text
    return said
