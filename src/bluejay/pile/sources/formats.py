"""Every format of files that hold documents; package sources hand their members to these, too."""

from typing import Annotated

from pydantic import Field

from bluejay.pile.sources.epub import Epub
from bluejay.pile.sources.grants import Grants
from bluejay.pile.sources.gutenberg import Gutenberg
from bluejay.pile.sources.hackernews import HackerNews
from bluejay.pile.sources.html import Html
from bluejay.pile.sources.irc import Irc
from bluejay.pile.sources.jats import Jats
from bluejay.pile.sources.latex import Latex
from bluejay.pile.sources.mail import Mail
from bluejay.pile.sources.mediawiki import MediaWiki
from bluejay.pile.sources.opinions import Opinions
from bluejay.pile.sources.parallel import Parallel
from bluejay.pile.sources.patents import Patents
from bluejay.pile.sources.pdf import Pdf
from bluejay.pile.sources.pubmed import PubMed
from bluejay.pile.sources.stackexchange import StackExchange
from bluejay.pile.sources.subtitles import Subtitles
from bluejay.pile.sources.warc import Warc

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
"""Any of them; a recipe tells which by `kind`."""
