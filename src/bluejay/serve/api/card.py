"""`GET /card`: the model card, with figures about the model and the README of its makers."""

import asyncio
from functools import cache

from fastapi import APIRouter, Request, Response
from typing_extensions import TypedDict

from bluejay.evals.evaluation_file import Summary, find_summary
from bluejay.serve.api.model_catalogue import Catalogue
from bluejay.serve.api.offered import Offered
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
    # Strangers could have the file read again and again; who evaluates a model of their own sees the result at once.
    evaluated = evaluation_of if models.settings.public is None else cache(evaluation_for_strangers)

    @routes.get("/card", response_model=Card, responses=ERRORS)
    async def card(request: Request, model: str | None = None) -> Response:
        """Figures about a model by name, its README as text without the front matter, and its evaluation."""
        one = models.named(request, model)
        config = one.config
        facts = {
            "Family": config.family,
            "Layers": f"{config.n_layer}, each {config.d_model:,} wide",
            "Vocabulary": f"{one.vocab_size:,} tokens",
            "Licence": one.licence or "not stated",
        }
        evaluation = await asyncio.to_thread(evaluated, one)
        if isinstance(evaluation, str):
            facts["Evaluation"] = evaluation
            evaluation = None
        text = without_front_matter(one.card)[:MAX_CARD_CHARACTERS]
        return json_response({"facts": facts, "text": text, "evaluation": evaluation})

    return routes


def evaluation_of(one: Offered) -> Summary | str | None:
    """What `bluejay eval` found about a model, or why that cannot be read."""
    try:
        return find_summary(one.path, one.name)
    except ValueError as error:
        return str(error)


def evaluation_for_strangers(one: Offered) -> Summary | None:
    """The same without commands, in which there are paths of the machine."""
    found = evaluation_of(one)
    return None if found is None or isinstance(found, str) else {**found, "command": ""}


def without_front_matter(readme: str) -> str:
    """A README without the YAML metadata between its first two lines of three dashes."""
    _, _, rest = readme.removeprefix("---\n").partition("\n---\n")
    return rest.strip() if readme.startswith("---\n") and rest else readme.strip()
