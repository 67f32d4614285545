"""Log-probabilities in the two forms that OpenAI's APIs use for completions and for chat completions."""

import codecs
from collections.abc import Sequence

from typing_extensions import TypedDict

from bluejay.infer.sampling import Logprob
from bluejay.tokenizer import Tokenizer

MIN_LOGPROB = -9999.0
"""The value written for smaller log-probabilities and minus infinity, which JSON cannot represent; OpenAI's choice."""


class Logprobs(TypedDict):
    """Log-probabilities of a completion: four lists with one entry per token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    """Log-probability of each token; null for the first token of a prompt, which nothing precedes."""
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TopLogprob(TypedDict):
    """One of the likeliest tokens at a position of a chat completion."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A drawn token of a chat completion."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """Log-probabilities of a chat completion."""

    content: list[TokenLogprob]
    refusal: None


def token_name(tokenizer: Tokenizer, token: int) -> str:
    r"""A token as a string: its text, `bytes:\xe6\x97` if it is not valid UTF-8, or the name of a special token."""
    spelled = tokenizer.token_bytes()[token]
    if not spelled:
        return tokenizer.backend.id_to_token(token) or f"token_id:{token}"
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)


class LogprobWriter:
    """Writes the log-probabilities of one text as its tokens are generated, in the form of completions."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.n_characters = 0

    def prompt(self, tokens: Sequence[int], logprobs: Sequence[Logprob]) -> Logprobs:
        """The tokens of an echoed prompt, the first of which has no log-probability."""
        # The space that SentencePiece prepends to a text is not part of the echo.
        table, prefix = self.tokenizer.token_bytes(), self.tokenizer.prefix
        self.n_characters = -len(prefix) if b"".join(table[token] for token in tokens).startswith(prefix) else 0
        first: Logprobs = {
            "tokens": [token_name(self.tokenizer, tokens[0])],
            "token_logprobs": [None],
            "top_logprobs": [None],
            "text_offset": [self.advance(tokens[0])],
        }
        return concatenate([first, self.write(logprobs)])

    def write(self, logprobs: Sequence[Logprob]) -> Logprobs:
        """The generated tokens. `top_logprobs` always includes the drawn token."""
        return {
            "tokens": [token_name(self.tokenizer, found.token) for found in logprobs],
            "token_logprobs": [max(found.logprob, MIN_LOGPROB) for found in logprobs],
            "top_logprobs": [
                {
                    token_name(self.tokenizer, token): max(logprob, MIN_LOGPROB)
                    for token, logprob in (*found.top, (found.token, found.logprob))
                }
                for found in logprobs
            ],
            "text_offset": [self.advance(found.token) for found in logprobs],
        }

    def advance(self, token: int) -> int:
        """The offset of the next token's text, counted in complete characters."""
        offset = max(0, self.n_characters)
        self.n_characters += len(self.decoder.decode(self.tokenizer.token_bytes()[token]))
        return offset


def concatenate(parts: Sequence[Logprobs]) -> Logprobs:
    """The lists of consecutive parts, concatenated."""
    return {
        "tokens": [entry for part in parts for entry in part["tokens"]],
        "token_logprobs": [entry for part in parts for entry in part["token_logprobs"]],
        "top_logprobs": [entry for part in parts for entry in part["top_logprobs"]],
        "text_offset": [entry for part in parts for entry in part["text_offset"]],
    }


def chat_logprob(tokenizer: Tokenizer, found: Logprob) -> TokenLogprob:
    """A drawn token in the form of chat completions."""

    def top(token: int, logprob: float) -> TopLogprob:
        spelled = list(tokenizer.token_bytes()[token])
        return {"token": token_name(tokenizer, token), "logprob": max(logprob, MIN_LOGPROB), "bytes": spelled}

    return {**top(found.token, found.logprob), "top_logprobs": [top(*other) for other in found.top]}
