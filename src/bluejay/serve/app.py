"""The HTTP application: OpenAI's completions API for a model, and the page that uses it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match

from bluejay.infer.model import Model
from bluejay.serve.api import card, chat, completions, embeddings, legacy, lens, models, trace
from bluejay.serve.api.respond import Service
from bluejay.serve.engine_thread import EngineThread
from bluejay.serve.errors import APIError, invalid_body, json_response
from bluejay.serve.fingerprint import fingerprint
from bluejay.serve.metrics import Metrics
from bluejay.serve.middleware.access_log import AccessLog
from bluejay.serve.middleware.limits_and_errors import LimitsAndErrors
from bluejay.serve.middleware.public import PublicAccess
from bluejay.serve.middleware.tolerance import Tolerance
from bluejay.serve.settings import ServeSettings
from bluejay.serve.static import add_page


def create_app(model: Model, settings: ServeSettings | None = None) -> FastAPI:
    """The application for one model; the engine's thread runs from its startup to its shutdown."""
    settings = settings or ServeSettings()
    metrics = Metrics()
    engine_thread = EngineThread(model, settings, metrics)
    service = Service(engine_thread, fingerprint(engine_thread.backend, model.tokenizer))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        engine_thread.start()
        if settings.public is not None:
            service.constraints.start()
        yield
        service.constraints.close()
        engine_thread.stop()
        await asyncio.to_thread(engine_thread.thread.join)

    app = FastAPI(title="Bluejay", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.engine_thread, app.state.constraints = engine_thread, service.constraints
    app.state.settings = settings
    if settings.public is not None:
        app.add_middleware(PublicAccess, settings=settings.public)
    app.add_middleware(LimitsAndErrors, settings=settings, is_draining=lambda: engine_thread.draining)
    if settings.public is not None and settings.public.origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.public.origin,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),  # keys are sent in a header, never in a cookie
            expose_headers=("Retry-After", "X-Request-Id"),
        )
    app.add_middleware(AccessLog, metrics=metrics, decode=model.tokenizer.decode if settings.log_prompts else None)
    app.add_middleware(Tolerance)
    app.add_exception_handler(HTTPException, error_response)
    app.add_exception_handler(RequestValidationError, error_response)
    app.add_exception_handler(UnicodeEncodeError, error_response)
    for endpoints in (completions, chat, embeddings, models, legacy, card):
        app.include_router(endpoints.router(service))
    app.include_router(trace.router(service, settings))
    app.include_router(lens.router(service, settings))

    @app.get("/healthz")
    async def healthz() -> Response:
        """Whether the server works; one that does not should be restarted."""
        return json_response(
            {"status": "ok" if engine_thread.alive else "the engine has stopped"}, 200 if engine_thread.alive else 503
        )

    @app.get("/readyz")
    async def readyz() -> Response:
        """Whether to send requests here; not ready once the server has been told to stop."""
        return json_response(
            {"status": "ready" if engine_thread.ready else "not ready"}, 200 if engine_thread.ready else 503
        )

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """Metrics for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

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
            404: f"there is nothing at {where}",
            405: f"{where} is not allowed",
        }
        codes = {404: "not_found", 405: "method_not_allowed"}
        message = messages.get(error.status_code, error.detail)
        headers = {"Allow": methods(request)} if error.status_code == 405 else error.headers
        error = APIError(error.status_code, message, code=codes.get(error.status_code), headers=headers)
    return error.response()


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
