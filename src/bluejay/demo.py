"""`bluejay demo`: serve the model that comes with the checkout, or else make the quickstart model and serve that."""

from pathlib import Path

from bluejay import recipe as recipes
from bluejay.infer.model import load
from bluejay.pile.build import build
from bluejay.pile.recipe import PileRecipe
from bluejay.serve.server import listen, serve
from bluejay.serve.settings import ServeSettings
from bluejay.train.loop import train
from bluejay.train.recipe import TrainRecipe

CORPUS, TRAINING = Path("recipes/pile/quickstart.toml"), Path("recipes/train/quickstart.toml")
RELEASED = Path("models/bluejay-nano")
"""The model that comes with a checkout."""


def demo(settings: ServeSettings) -> None:
    """Serve the released model where it lies in the checkout; else the quickstart model, after building its corpus and
    training it where that has not been done.

    Raises OSError when the port is in use: before the minutes of training, not after them.
    """
    listen(settings.host, settings.port).close()
    if (RELEASED / "config.json").exists():
        return serve(load(RELEASED), settings)
    recipe = recipes.load(TrainRecipe, TRAINING)
    model = recipe.directory / "model"
    if not (model / "config.json").exists():
        build(recipes.load(PileRecipe, CORPUS))
        train(recipe)
    return serve(load(model), settings)
