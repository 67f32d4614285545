"""The formats of files that hold documents. Members of archives and packages are read by them, too."""

from typing import Annotated

from pydantic import Field

from bluejay.pile.sources.formats.epub import Epub
from bluejay.pile.sources.formats.grants import Grants
from bluejay.pile.sources.formats.gutenberg import Gutenberg
from bluejay.pile.sources.formats.hackernews import HackerNews
from bluejay.pile.sources.formats.html import Html
from bluejay.pile.sources.formats.irc import Irc
from bluejay.pile.sources.formats.jats import Jats
from bluejay.pile.sources.formats.jupyter import Notebook
from bluejay.pile.sources.formats.latex import Latex
from bluejay.pile.sources.formats.mail import Mail
from bluejay.pile.sources.formats.mediawiki import MediaWiki
from bluejay.pile.sources.formats.office import Office
from bluejay.pile.sources.formats.opinions import Opinions
from bluejay.pile.sources.formats.parallel import Parallel
from bluejay.pile.sources.formats.patents import Patents
from bluejay.pile.sources.formats.pdf import Pdf
from bluejay.pile.sources.formats.pubmed import PubMed
from bluejay.pile.sources.formats.stackexchange import StackExchange
from bluejay.pile.sources.formats.subtitles import Subtitles
from bluejay.pile.sources.formats.warc import Warc

Format = Annotated[
    Epub
    | Grants
    | Gutenberg
    | HackerNews
    | Html
    | Irc
    | Jats
    | Latex
    | Mail
    | MediaWiki
    | Notebook
    | Office
    | Opinions
    | Parallel
    | Patents
    | Pdf
    | PubMed
    | StackExchange
    | Subtitles
    | Warc,
    Field(discriminator="kind"),
]
"""A file of any format; the key `kind` of a recipe selects the class."""
