"""The recipe of the mini-pile builds the same corpus for everyone."""

import re
from pathlib import Path

from bluejay.pile.recipe import PileRecipe
from bluejay.pile.sources.packages.package import Package
from bluejay.recipe import load

RECIPES = Path(__file__).parents[2] / "recipes/pile"


def test_every_package_is_pinned() -> None:
    recipe = load(PileRecipe, RECIPES / "mini-pile.toml")
    packages = [source for component in recipe.component for source in component.source if isinstance(source, Package)]
    assert len(packages) > 40
    for package in packages:
        assert package.version, package.name
        assert re.fullmatch("[0-9a-f]{64}", package.sha256 or ""), package.name
        assert package.optional == (package.kind == "deb"), package.name
