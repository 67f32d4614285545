"""Every format of files that hold documents; package sources hand their members to these, too."""

from typing import Annotated

from pydantic import Field

from bluejay.pile.sources.html import Html
from bluejay.pile.sources.warc import Warc

Format = Annotated[Html | Warc, Field(discriminator="kind")]
"""Any of them; a recipe tells which by `kind`."""
