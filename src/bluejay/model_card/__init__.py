"""The card of a model, `bluejay card RUN`, written from the records that lie beside it.

They are the run's recipe, metrics and result, the report of its corpus, and, where they were made, the reports of
`bluejay eval` and `bluejay trace report` and the heads of `bluejay lens`. Where a record is missing, the card says
which command makes it.
"""

from bluejay.model_card.card import CARD as CARD
from bluejay.model_card.card import model_card as model_card
from bluejay.model_card.card import write_model_card as write_model_card
from bluejay.model_card.run_sections import CORPORA as CORPORA
