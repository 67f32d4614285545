"""`GET /card`: the model card, with figures about the model and the README of its makers."""

from fastapi import APIRouter, Response
from typing_extensions import TypedDict

from bluejay.evals.beside import Summary, summary_beside
from bluejay.serve.api.respond import Service
from bluejay.serve.errors import json_response

MAX_CARD_CHARACTERS = 20_000
"""Characters of the README that are served."""


class Card(TypedDict):
    """A model card."""

    facts: dict[str, str]
    text: str
    evaluation: Summary | None
    """What `bluejay eval --report` found, where that lies beside the model."""


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
    text = without_front_matter(model.card)[:MAX_CARD_CHARACTERS]

    @routes.get("/card", response_model=Card)
    async def card() -> Response:
        """Figures about the model by name, its README as text without the front matter, and its evaluation."""
        said, evaluation = dict(facts), None
        try:
            evaluation = summary_beside(model.path, model.name)
        except ValueError as error:
            said["Evaluation"] = str(error)
        return json_response({"facts": said, "text": text, "evaluation": evaluation})

    return routes


def without_front_matter(readme: str) -> str:
    """A README without the YAML metadata between its first two lines of three dashes."""
    _, _, rest = readme.removeprefix("---\n").partition("\n---\n")
    return rest.strip() if readme.startswith("---\n") and rest else readme.strip()
