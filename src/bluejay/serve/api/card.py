"""`GET /card`: the model card, with figures about the model and the README of its makers."""

from fastapi import APIRouter, Request, Response
from typing_extensions import TypedDict

from bluejay.evals.evaluation_file import Summary, find_summary
from bluejay.serve.api.offered import Catalogue
from bluejay.serve.errors import ERRORS, json_response

MAX_CARD_CHARACTERS = 20_000
"""Characters of the README that are served."""


class Card(TypedDict):
    """A model card."""

    facts: dict[str, str]
    text: str
    evaluation: Summary | None
    """What `bluejay eval --report` found, where that lies beside the model."""


def router(models: Catalogue) -> APIRouter:
    """The route of the endpoint."""
    routes = APIRouter()

    @routes.get("/card", response_model=Card, responses=ERRORS)
    async def card(request: Request, model: str | None = None) -> Response:
        """Figures about a model by name, its README as text without the front matter, and its evaluation."""
        one, evaluation = models.named(request, model), None
        config = one.config
        facts = {
            "Family": config.family,
            "Layers": f"{config.n_layer}, each {config.d_model:,} wide",
            "Vocabulary": f"{one.vocab_size:,} tokens",
            "Licence": one.licence or "not stated",
        }
        try:
            evaluation = find_summary(one.path, one.name)
        except ValueError as error:
            facts["Evaluation"] = str(error)
        text = without_front_matter(one.card)[:MAX_CARD_CHARACTERS]
        return json_response({"facts": facts, "text": text, "evaluation": evaluation})

    return routes


def without_front_matter(readme: str) -> str:
    """A README without the YAML metadata between its first two lines of three dashes."""
    _, _, rest = readme.removeprefix("---\n").partition("\n---\n")
    return rest.strip() if readme.startswith("---\n") and rest else readme.strip()
