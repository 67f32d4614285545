"""Speed of generation, compared with transformers' `generate` on the same directory."""

import argparse

import torch
from report import MODEL, interleaved, report, result
from transformers import AutoModelForCausalLM

import bluejay

PROMPT, N_TOKENS = "def ", 100
TEMPERATURE, TOP_P = 0.8, 0.9


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    model = bluejay.load(MODEL)
    peer = AutoModelForCausalLM.from_pretrained(MODEL)
    results = []
    for n in (1, 8):
        for name, temperature in (("greedy", 0.0), ("sampled", TEMPERATURE)):
            params = bluejay.SamplingParams(max_tokens=N_TOKENS, n=n, seed=1, temperature=temperature, top_p=TOP_P)
            ids = torch.tensor([model.tokenizer.encode(PROMPT)] * n)
            sampled = {"do_sample": True, "temperature": TEMPERATURE, "top_k": 0, "top_p": TOP_P}
            theirs = sampled if temperature else {"do_sample": False}

            def our_turn(params=params) -> int:
                return sum(1 for _ in model.stream(PROMPT, params))

            def peer_turn(ids=ids, theirs=theirs) -> None:
                lengths = {"min_new_tokens": N_TOKENS, "max_new_tokens": N_TOKENS}  # no end of text before
                mask = torch.ones_like(ids)
                peer.generate(ids, attention_mask=mask, pad_token_id=model.tokenizer.eot, **lengths, **theirs)

            # Our samples may end early, so only the tokens that were generated count.
            made = our_turn()
            seconds = interleaved(our_turn, peer_turn)
            rates = made / seconds[0], n * N_TOKENS / seconds[1]
            results.append(result(f"generation, {name}, {n} at once, vs transformers", *rates, "tokens/s", 1.0))
    report("generate_speed", results)


if __name__ == "__main__":
    main()
