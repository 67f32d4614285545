"""The sources of documents: one dataclass per kind, whose fields are its keys in a recipe.

Each has `units()`, its independently readable parts in a fixed order, and `read(unit)`, which yields their documents.
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
"""A source of any kind; the key `kind` of a recipe selects the class."""
