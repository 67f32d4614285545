"""The HTTP application: OpenAI's completions API for one or several models, and the page that uses it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match

from bluejay.infer.model import Model
from bluejay.serve.api import card, chat, completions, embeddings, legacy, lens, trace
from bluejay.serve.api import models as listing
from bluejay.serve.api.model_catalogue import Catalogue, catalogue_of
from bluejay.serve.errors import APIError, invalid_body, json_response
from bluejay.serve.middleware.access_log import AccessLog
from bluejay.serve.middleware.limits_and_errors import LimitsAndErrors
from bluejay.serve.middleware.own_machine import OwnMachine, is_for_own_machine
from bluejay.serve.middleware.public import PublicAccess
from bluejay.serve.middleware.tolerance import Tolerance
from bluejay.serve.settings import ServeSettings
from bluejay.serve.static import add_page


def create_app(served: Model | Catalogue, settings: ServeSettings | None = None) -> FastAPI:
    """The application for one model or for several; their engines' threads run from its startup to its shutdown at
    most."""
    settings = settings or ServeSettings()
    models = served if isinstance(served, Catalogue) else catalogue_of(served, settings)
    models.open()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        models.start()
        yield
        await models.close()

    app = FastAPI(title="Bluejay", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.models, app.state.settings = models, settings
    if settings.public is not None:
        app.add_middleware(PublicAccess, settings=settings.public)
    if is_for_own_machine(settings):
        app.add_middleware(OwnMachine, host=settings.host)
    app.add_middleware(LimitsAndErrors, settings=settings, is_draining=lambda: models.draining)
    if settings.public is not None and settings.public.origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.public.origin,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),  # keys are sent in a header, never in a cookie
            expose_headers=("Retry-After", "X-Request-Id"),
        )
    app.add_middleware(AccessLog, metrics=models.metrics)
    app.add_middleware(Tolerance)
    app.add_exception_handler(HTTPException, error_response)
    app.add_exception_handler(RequestValidationError, error_response)
    app.add_exception_handler(UnicodeEncodeError, error_response)
    for endpoints in (completions, chat, embeddings, listing, legacy, card):
        app.include_router(endpoints.router(models))
    app.include_router(trace.router(models, settings))
    app.include_router(lens.router(models, settings))

    @app.get("/healthz")
    async def healthz() -> Response:
        """Whether the server works; one that does not should be restarted."""
        return json_response(
            {"status": "ok" if models.alive else "the engine has stopped"}, 200 if models.alive else 503
        )

    @app.get("/readyz")
    async def readyz() -> Response:
        """Whether to send requests here; not ready once the server has been told to stop."""
        return json_response({"status": "ready" if models.ready else "not ready"}, 200 if models.ready else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """Metrics for Prometheus."""
        return Response(models.metrics.text(), media_type="text/plain; version=0.0.4")

    add_page(app)
    return app


async def error_response(request: Request, error: Exception) -> Response:
    """OpenAI's error object for every client error."""
    if isinstance(error, RequestValidationError):
        return invalid_body(error.errors()).response()
    if isinstance(error, UnicodeEncodeError):  # pydantic raises it for the name of a parameter
        return APIError(400, "a name in the body holds half of a surrogate pair", code="invalid_json").response()
    assert isinstance(error, HTTPException)
    if not isinstance(error, APIError):
        where = f"{request.method} {request.url.path[:100]}"
        # FastAPI itself answers 400 only where it cannot parse the body.
        messages = {
            400: unreadable(error.__cause__),
            404: f"there is nothing at {where}{hint(request)}",
            405: f"{where} is not allowed",
        }
        codes = {404: "not_found", 405: "method_not_allowed"}
        message = messages.get(error.status_code, error.detail)
        headers = {"Allow": methods(request)} if error.status_code == 405 else error.headers
        error = APIError(error.status_code, message, code=codes.get(error.status_code), headers=headers)
    return error.response()


def hint(request: Request) -> str:
    """The path that was meant where a client's base URL lacks /v1, has it twice, or ends with a slash too many, and by
    clients that ask at /v1/responses unless they are told to chat."""
    parts = [part for part in request.url.path.split("/") if part not in ("", "api", "v1")]
    meant = "/v1/chat/completions" if parts == ["responses"] else "/v1/" + "/".join(parts)
    scope = {**request.scope, "path": meant}
    found = any(route.matches(scope)[0] != Match.NONE for route in request.app.routes)
    return f"; did you mean {meant[:100]}?" if found else ""


def methods(request: Request) -> str:
    """The methods that some route has at the path of a request. The router itself names those of the first route."""
    scopes = {method: {**request.scope, "method": method} for method in ("DELETE", "GET", "PATCH", "POST", "PUT")}
    routes = request.app.routes
    return ", ".join(one for one in scopes if any(route.matches(scopes[one])[0] == Match.FULL for route in routes))


def unreadable(reason: BaseException | None) -> str:
    """Why a body could not be parsed, from the exception that Python's JSON parser raised."""
    match reason:
        case RecursionError():
            return "the body is nested too deeply"
        case UnicodeDecodeError():
            return f"the body is not UTF-8: byte {reason.start} is {reason.object[reason.start]:#04x}"
        case ValueError() if "integer string conversion" in str(reason):
            return "the body holds a number of too many digits"
    return "the body is not valid JSON"
