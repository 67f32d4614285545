"""A real server with a small real model, on a free port of this machine."""

import contextlib
import threading

import openai
import pytest

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.infer.model import Model
from bluejay.serve import server as serving
from bluejay.serve.app import create_app
from bluejay.serve.engine_thread import EngineThread
from bluejay.serve.server import Server, listen
from bluejay.serve.settings import ServeSettings
from tests.waiting import PATIENCE

N_CTX = 1024
# The clients of servers in this process have sent all before the end; those of `programs.py` may be late.
serving.LATE_REQUEST_SECONDS = 0.0


def engine_thread_of(server: Server, name: str | None = None) -> EngineThread:
    """The thread of a model that is loaded, the first unless it is named."""
    service = server.models.find(name).service
    assert service is not None
    return service.engine_thread


@contextlib.contextmanager
def run_server(model: Model, settings: ServeSettings | None = None, port: int = 0):
    """Serve a model from a thread; on a free port unless one is given."""
    app = create_app(model, settings)
    with listen(settings.host if settings else "127.0.0.1", port) as bound:
        ready = threading.Event()
        server = Server(app, f"http://127.0.0.1:{bound.getsockname()[1]}", lambda _: ready.set())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            assert ready.wait(PATIENCE)
            yield server
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def model(byte_tokenizer) -> Model:
    """Random weights that never end a text; deep and with a context long enough to be stopped on a fast machine."""
    config = GPTConfig(n_layer=6, d_model=64, n_head=2, vocab_size=259, n_ctx=N_CTX)
    gpt = new_model(config, seed=0).requires_grad_(False)
    gpt.head.bias[byte_tokenizer.eot] = -1e4
    return Model(gpt, byte_tokenizer, "tiny")


@pytest.fixture(scope="session")
def running():
    """A context in which a model is served: `with running(model) as server`."""
    return run_server


@pytest.fixture(scope="session")
def server(model):
    with run_server(model) as server:
        yield server


@pytest.fixture(scope="session")
def engine_thread(server):
    return engine_thread_of(server)


@pytest.fixture(scope="session")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client
