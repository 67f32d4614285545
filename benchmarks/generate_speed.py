"""How fast are tokens generated, against transformers' `generate` on the same directory?"""

import torch
from report import MODEL, interleaved, report, result
from transformers import AutoModelForCausalLM

import bluejay

PROMPT, N_TOKENS = "def ", 100


def main() -> None:
    model = bluejay.load(MODEL)
    peer = AutoModelForCausalLM.from_pretrained(MODEL)
    prompt = torch.tensor([model.tokenizer.encode(PROMPT)])
    results = []
    for n in (1, 8):
        # Both always make every token: ours has no end-of-text in a greedy answer of this model, theirs is forced.
        params = bluejay.SamplingParams(max_tokens=N_TOKENS, temperature=0.0, n=n)
        ids = prompt.repeat(n, 1)

        def ours(params=params) -> None:
            made = sum(1 for chunk in model.stream(PROMPT, params) if chunk.token is not None)
            assert made == N_TOKENS * params.n, made

        def theirs(ids=ids) -> None:
            peer.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=N_TOKENS,
                max_new_tokens=N_TOKENS,
                pad_token_id=model.tokenizer.eot,
            )

        ours_rate, peer_rate = (n * N_TOKENS / taken for taken in interleaved(ours, theirs))
        results.append(result(f"generation, {n} at once, vs transformers", ours_rate, peer_rate, "tokens/s", 1.0))
    report("generate_speed", results)


if __name__ == "__main__":
    main()
