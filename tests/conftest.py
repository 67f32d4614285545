"""What the tests share: small real models, a real tokenizer, a disk that fills up."""

import contextlib
import functools
import io
import os
import resource
import signal
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import httpx2
import hypothesis
import pytest
import sentencepiece
import tiktoken
import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.infer.model import Model
from bluejay.storage import bucket
from bluejay.tokenizer import Tokenizer
from bluejay.train import loop
from tests.object_storage import ObjectServer, object_server
from tests.waiting import PATIENCE

# The tests' models are so small that a second thread would only wait for the first.
torch.set_num_threads(1)
# So would those of the processes that the tests start, which several workers of pytest do at once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# httpx gives up after five seconds unless told otherwise, which a busy machine may need for a small answer.
for _limit in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _limit, PATIENCE)
# Each call without a client would make a context of TLS, in 20 ms of a processor.
for _client in (httpx, httpx2):
    _transport = _client._transports.default
    _transport.create_ssl_context = functools.cache(_transport.create_ssl_context)
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files whose tests take longest first, because all workers should end together."""
    longest = ("tests/train/", "tests/serve/", "tests/test_guides", "tests/test_own_text", "tests/test_cli")
    items.sort(key=lambda item: not item.nodeid.startswith(longest))


@pytest.fixture(scope="session", autouse=True)
def drawn() -> Iterator[Callable[..., None]]:
    """Runs draw nothing, because two plots take a quarter of a second; gives the function that draws."""
    with pytest.MonkeyPatch.context() as patch:
        draw = loop.draw_run
        patch.setattr(loop, "draw_run", lambda *_: None)
        yield draw


@pytest.fixture
def plots(drawn, monkeypatch) -> None:
    """Runs draw their plots, as they do for users."""
    monkeypatch.setattr(loop, "draw_run", drawn)


@pytest.fixture(scope="session")
def byte_tokenizer() -> Tokenizer:
    """A tokenizer of the 256 bytes, two merges and the end-of-text token."""
    return Tokenizer.train(["the the the cat"], vocab_size=259)


@pytest.fixture(scope="session")
def byte_tokenizer_folder(byte_tokenizer, tmp_path_factory) -> str:
    """The folder of that tokenizer, for recipes; it loads in a hundredth of GPT-2's time."""
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer.save(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_config() -> GPTConfig:
    """The shape of a GPT-J that runs in a thousandth of a second, for the vocabulary of `byte_tokenizer`."""
    return GPTConfig(n_layer=2, d_model=64, n_head=2, vocab_size=259, n_ctx=64)


@pytest.fixture(scope="session")
def tiny_model(tiny_config, byte_tokenizer) -> Model:
    """A model with random weights; its text is noise, its arithmetic is real."""
    return Model(new_model(tiny_config, seed=0).requires_grad_(False), byte_tokenizer, "tiny")


@pytest.fixture(scope="session")
def tiktoken_of() -> Callable[[dict[bytes, int]], tiktoken.Encoding]:
    """tiktoken, the other implementation, with GPT-2's way of cutting text into words and the given tokens."""
    words = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

    def encoding(ranks: dict[bytes, int]) -> tiktoken.Encoding:
        special = {"<|endoftext|>": len(ranks)}
        return tiktoken.Encoding("test", pat_str=words, mergeable_ranks=ranks, special_tokens=special)

    return encoding


@pytest.fixture(scope="session")
def pieces() -> sentencepiece.SentencePieceProcessor:
    """A model of sentencepiece, the other implementation, with the settings that Llama 2's was made with."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-d]*.py"))]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line[:500] for text in texts[::3] for line in text.splitlines() if line.strip()),
        model_writer=model,
        model_type="bpe",
        vocab_size=1000,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.fixture
def file_size_limit():
    """A context in which no file can grow past a number of bytes: a write fails as on a full disk."""

    @contextlib.contextmanager
    def limited(n_bytes: int):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)

    return limited


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """A server of S3, which this process and those that it starts use."""
    with object_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        bucket.cache_clear()
        yield server
        bucket.cache_clear()
