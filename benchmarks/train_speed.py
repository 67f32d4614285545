"""How fast does a training step run, against transformers' GPT-J of the same shape with the same optimizer?"""

from pathlib import Path

import torch
from report import interleaved, report, result
from transformers import GPTJConfig, GPTJForCausalLM

from bluejay import recipe as recipes
from bluejay.gpt.families import to_hugging_face
from bluejay.gpt.init import new_model
from bluejay.train.batches import Batch
from bluejay.train.evaluate import loss_of
from bluejay.train.optimizer import adamw
from bluejay.train.recipe import TrainRecipe

VOCABULARY = 8192


def main() -> None:
    recipe = recipes.load(TrainRecipe, Path("recipes/train/quickstart.toml"))
    config = recipe.gpt_config(VOCABULARY)
    rows = recipe.train.batch_tokens // recipe.data.sequence_length
    tokens = torch.randint(0, VOCABULARY - 1, (rows, recipe.data.sequence_length + 1))
    batch = Batch(tokens[:, :-1], tokens[:, 1:])
    ours = new_model(config, seed=0)
    peer = GPTJForCausalLM(GPTJConfig(**to_hugging_face(config, VOCABULARY - 1, VOCABULARY - 1, "float32")))
    our_optimizer, peer_optimizer = adamw(ours, recipe.train.optimizer), adamw(peer, recipe.train.optimizer)

    def our_step() -> None:
        loss_of(ours, batch, VOCABULARY - 1, 1 / recipe.train.batch_tokens).backward()
        our_optimizer.step()
        our_optimizer.zero_grad()

    def peer_step() -> None:
        peer(batch.inputs, labels=batch.inputs).loss.backward()
        peer_optimizer.step()
        peer_optimizer.zero_grad()

    seconds = interleaved(our_step, peer_step, rounds=15)
    ours_rate, peer_rate = (recipe.train.batch_tokens / taken for taken in seconds)
    report("train_speed", [result("training, float32, vs transformers", ours_rate, peer_rate, "tokens/s", 1.0)])


if __name__ == "__main__":
    main()
