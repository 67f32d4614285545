"""Where documents come from: one file per kind, each with its fields in a recipe and its generator of documents."""

from typing import Annotated

from pydantic import Field

from bluejay.pile.sources.package_docs import PackageDocs
from bluejay.pile.sources.stdlib import Stdlib
from bluejay.pile.sources.text import Text

Source = Annotated[Stdlib | PackageDocs | Text, Field(discriminator="kind")]
"""Any of them; a recipe tells which by `kind`. `documents()` yields what it has, in an order that does not change."""
