"""`GET /card`: what a model is, for the people who use it: its figures, and what its makers say about it."""

from fastapi import APIRouter, Response
from typing_extensions import TypedDict

from bluejay.serve.api.errors import json_response
from bluejay.serve.respond import Service

MAX_CARD_CHARACTERS = 20_000
"""Characters of the makers' text that are shown."""


class Card(TypedDict):
    """A model card."""

    facts: dict[str, str]
    text: str


def router(service: Service) -> APIRouter:
    """The endpoint."""
    routes, model = APIRouter(), service.model
    config = model.config
    facts = {
        "Family": config.family,
        "Layers": f"{config.n_layer}, each {config.d_model:,} wide",
        "Vocabulary": f"{model.tokenizer.vocab_size:,} tokens",
        "Licence": model.licence or "not stated",
    }
    described: Card = {"facts": facts, "text": without_front_matter(model.card)[:MAX_CARD_CHARACTERS]}

    @routes.get("/card", response_model=Card)
    async def card() -> Response:
        """Figures by name, and the model's README as text, without its front matter."""
        return json_response(dict(described))

    return routes


def without_front_matter(readme: str) -> str:
    """A README without the YAML between its first two lines of three dashes, which is for machines."""
    _, _, rest = readme.removeprefix("---\n").partition("\n---\n")
    return rest.strip() if readme.startswith("---\n") and rest else readme.strip()
