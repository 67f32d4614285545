"""How the loss of small GPT-Js depends on their size, their data, the learning rate, the optimizer and the vocabulary.

    python experiments/scaling.py --list

The noise floor comes first: equal runs that differ in their seed alone. What differs by less is no finding. Compute is
6 N D floating-point operations for N weights of blocks and head and D tokens (Kaplan et al. 2020, section 2.1).
"""

from typing import Any

from study import VOCABULARY, Run, main, small, weights


def run(name: str, size: str, compute: float, vocabulary: int = VOCABULARY, **changed: Any) -> Run:
    """A run of a size for so much compute."""
    tokens = compute / (6 * weights(size, vocabulary))
    corpus = f"data/mini-pile-{vocabulary // 1024}k"
    return small(name, size, tokens, vocabulary=vocabulary, corpus=corpus, **changed)


NOISE = [run("noise", "5.2M", 1e14, seed=seed) for seed in range(5)]
RATES = [
    run(f"rate-{optimizer}-{rate:g}", "3.3M", 3e13, **{"train.lr": rate, "train.optimizer.kind": optimizer})
    for optimizer in ("muon", "adamw")
    for rate in (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
]
OPTIMIZERS = [
    run(f"optimizer-{kind}", "5.2M", 1e14, seed=seed, **{"train.optimizer.kind": kind})
    for kind in ("adamw",)  # Muon's runs are those of the noise floor
    for seed in range(3)
]
SCHEDULES = [
    run(
        "schedule-cosine",
        "5.2M",
        1e14,
        seed=seed,
        **{"train.schedule": '{ kind = "cosine", warmup = 0.02, final = 0.0 }'},
    )
    for seed in range(3)
]
VOCABULARIES = [run("vocabulary-16k", "5.2M", 1e14, seed=seed, vocabulary=16_384) for seed in range(3)]
SURFACE = [
    run(f"surface-{size}-{compute:.0e}", size, compute, seed=seed)
    for compute, sizes, seeds in (
        (3e13, ("1.6M", "3.3M", "5.2M", "8.8M"), 3),
        (1e14, ("1.6M", "3.3M", "8.8M"), 1),  # the runs of 5.2M are those of the noise floor
        (3e14, ("3.3M", "5.2M", "8.8M", "14M"), 1),
        (4e14, ("5.2M", "8.8M", "14M"), 1),
    )
    for size in sizes
    for seed in range(seeds)
]

if __name__ == "__main__":
    main("scaling", [*NOISE, *RATES, *OPTIMIZERS, *SCHEDULES, *VOCABULARIES, *SURFACE])
