"""`GET /card`: the model card, with figures about the model and the README of its makers."""

from fastapi import APIRouter, Response
from typing_extensions import TypedDict

from bluejay.serve.api.respond import Service
from bluejay.serve.errors import json_response

MAX_CARD_CHARACTERS = 20_000
"""Characters of the README that are served."""


class Card(TypedDict):
    """A model card."""

    facts: dict[str, str]
    text: str


def router(service: Service) -> APIRouter:
    """The route of the endpoint."""
    routes, model = APIRouter(), service.model
    config = model.config
    facts = {
        "Family": config.family,
        "Layers": f"{config.n_layer}, each {config.d_model:,} wide",
        "Vocabulary": f"{model.tokenizer.vocab_size:,} tokens",
        "Licence": model.licence or "not stated",
    }
    body: Card = {"facts": facts, "text": without_front_matter(model.card)[:MAX_CARD_CHARACTERS]}

    @routes.get("/card", response_model=Card)
    async def card() -> Response:
        """Figures about the model by name, and its README as text without the front matter."""
        return json_response(dict(body))

    return routes


def without_front_matter(readme: str) -> str:
    """A README without the YAML metadata between its first two lines of three dashes."""
    _, _, rest = readme.removeprefix("---\n").partition("\n---\n")
    return rest.strip() if readme.startswith("---\n") and rest else readme.strip()
