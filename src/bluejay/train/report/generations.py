"""Sample continuations that a model generates during training."""

from bluejay.gpt.model import GPT
from bluejay.infer.backends.torch import TorchBackend
from bluejay.infer.engine import Engine
from bluejay.infer.params import SamplingParams
from bluejay.tokenizer import Tokenizer
from bluejay.train.recipe import Evaluate


def continue_prompts(model: GPT, tokenizer: Tokenizer, settings: Evaluate) -> dict[str, str]:
    """Prompt -> continuation, for each prompt of a recipe. The seed is fixed: equal weights give equal texts."""
    prompts, length = settings.prompts, settings.sample_tokens
    if not prompts:
        return {}
    encoded = {prompt: tokenizer.encode_prompt(prompt)[-model.config.n_ctx // 2 :] for prompt in prompts}
    params = SamplingParams(max_tokens=length, temperature=0.8, top_p=0.9, seed=0)
    backend = TorchBackend.for_tokens(model, [len(tokens) + length for tokens in encoded.values()])
    engine = Engine(backend, tokenizer, len(prompts), len(prompts))
    prompt_of = {id(engine.submit(tokens, params)): prompt for prompt, tokens in encoded.items()}
    texts = dict.fromkeys(prompts, "")
    while not engine.idle:
        for request, chunk in engine.step():
            texts[prompt_of[id(request)]] += chunk.text
    return texts
