"""Where documents come from: one file per kind, each with its fields in a recipe and its generator of documents.

Each has `units()`, what can be read apart in an order that does not change, and `read(unit)`, the documents of one.
"""

from typing import Annotated

from pydantic import Field

from bluejay.pile.sources.code.git import Git
from bluejay.pile.sources.code.stdlib import Stdlib
from bluejay.pile.sources.code.tree import Tree
from bluejay.pile.sources.formats import Format
from bluejay.pile.sources.formats.tables import CSV, JSON, JSONLines, Parquet
from bluejay.pile.sources.formats.text import Text
from bluejay.pile.sources.mathematics import Mathematics
from bluejay.pile.sources.packages.archive import Archive
from bluejay.pile.sources.packages.deb import Deb
from bluejay.pile.sources.packages.npm import NPM
from bluejay.pile.sources.packages.package_docs import PackageDocs
from bluejay.pile.sources.packages.pypi import PyPI

Package = PyPI | NPM | Deb
Table = JSON | JSONLines | CSV | Parquet
Source = Annotated[
    Stdlib | PackageDocs | Text | Table | Format | Archive | Tree | Git | Package | Mathematics,
    Field(discriminator="kind"),
]
"""Any of them; a recipe tells which by `kind`."""
