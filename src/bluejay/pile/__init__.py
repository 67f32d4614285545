"""From text to token shards: `bluejay.pile.build.build` does what a `bluejay.pile.recipe.PileRecipe` says."""
