"""Text to token ids and back: byte-level BPE, as GPT-2 and GPT-J have it, over the `tokenizers` library.

The text `<|endoftext|>` is ordinary text here, in documents and in prompts: nobody can forge a document boundary by
writing one. Only code that means the boundary puts `Tokenizer.eot` there.
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from functools import cache, cached_property
from importlib import resources
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from bluejay.files import write_text

END_OF_TEXT = "<|endoftext|>"
N_BYTES = 256


class Tokenizer:
    """A byte-level BPE: any text has ids, and the bytes of the ids are the bytes of the text."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        if not isinstance(backend.model, models.BPE) or not isinstance(backend.decoder, decoders.ByteLevel):
            raise ValueError("the tokenizer is not a byte-level BPE, the one kind that GPT-2 and its relatives use")
        eot = backend.token_to_id(END_OF_TEXT)
        if eot is None:
            raise ValueError(f"the tokenizer has no {END_OF_TEXT} token, which must end every document")
        backend.add_special_tokens([END_OF_TEXT])  # where a file holds it as a token like any other
        self.backend = backend
        self.backend.encode_special_tokens = True  # as tiktoken's encode_ordinary
        self.backend.no_truncation()
        self.backend.no_padding()
        self._eot: int = eot

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return len(self._bytes)

    @property
    def eot(self) -> int:
        """The id of <|endoftext|>, which ends every document."""
        return self._eot

    @cached_property
    def sha256(self) -> str:
        """Hash of the tokens by id and of the merges: two tokenizers that agree on it give the same ids."""
        merges = json.loads(self.backend.to_str())["model"]["merges"]
        tokens = sorted((id, token) for token, id in self.backend.get_vocab().items())
        # Older files hold a merge as "a b", newer ones as ["a", "b"].
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
        return hashlib.sha256(json.dumps([tokens, pairs]).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of a text; `<|endoftext|>` in it is spelled out like any other text."""
        return self.backend.encode(well_formed(text), add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text, on all cores."""
        encodings = self.backend.encode_batch_fast([well_formed(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: list[int]) -> str:
        """The text of ids; bytes that are not UTF-8 become U+FFFD.

        <|endoftext|> and ids past the vocabulary (the rows that pad an embedding) stand for no text.
        """
        table = self._bytes
        return b"".join(table[id] for id in ids if 0 <= id < len(table)).decode("utf-8", errors="replace")

    def token_bytes(self) -> list[bytes]:
        """The bytes that each id stands for, `b""` for <|endoftext|>."""
        return self._bytes

    @cached_property
    def _bytes(self) -> list[bytes]:
        byte_of = {character: byte for byte, character in byte_characters().items()}
        added = self.backend.get_added_tokens_decoder()
        vocabulary = self.backend.get_vocab()
        table = [b""] * (max(vocabulary.values()) + 1)
        for token, id in vocabulary.items():
            if id == self.eot:
                continue
            if id not in added:
                table[id] = bytes(byte_of[character] for character in token)
            elif not added[id].special:
                table[id] = added[id].content.encode()
        return table

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """A tokenizer.json, or the one in a directory; "gpt2" is GPT-2's and GPT-J's, which this package carries.

        Raises FileNotFoundError: nothing there; ValueError: not a byte-level BPE with <|endoftext|>.
        """
        if path == "gpt2":
            return gpt2()
        file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise FileNotFoundError(f'no tokenizer at {file}; name a tokenizer.json, a directory with one, or "gpt2"')
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises Exception itself
            raise ValueError(f"{file} is not a tokenizer.json: {error}") from None
        try:
            return cls(backend)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` and the `tokenizer_config.json` that lets transformers' AutoTokenizer load it."""
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "unk_token": END_OF_TEXT,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
        }
        write_text(directory / "tokenizer.json", self.backend.to_str(pretty=True))
        write_text(directory / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """A new BPE of `vocab_size` tokens, or fewer if the texts have no more pairs; the same for the same texts.

        Ids follow GPT-2's: the 256 bytes, the merges in their order, and <|endoftext|> last.
        """
        if vocab_size <= N_BYTES:
            raise ValueError(f"vocab_size {vocab_size} is too small: 256 bytes and {END_OF_TEXT} take {N_BYTES + 1}")
        backend = byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        backend.train_from_iterator(map(well_formed, texts), trainer)
        backend.add_special_tokens([END_OF_TEXT])
        return cls(backend)


def byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    """GPT-2's way of cutting text into words (its regular expression, no space put in front) around a BPE."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    backend.decoder = decoders.ByteLevel()
    return backend


@cache
def gpt2() -> Tokenizer:
    """The tokenizer of GPT-2 and GPT-J, from the packaged ranks."""
    lines = resources.files("bluejay").joinpath("assets", "r50k_base.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    spelling = str.maketrans({chr(byte): character for byte, character in byte_characters().items()})
    name = {token: token.decode("latin-1").translate(spelling) for token in ranks}
    vocabulary = {name[token]: rank for token, rank in ranks.items()}
    merges = [merge_of(token, ranks) for token in ranks if len(token) > 1]
    backend = byte_level(models.BPE(vocab=vocabulary, merges=[(name[a], name[b]) for a, b in merges]))
    backend.add_special_tokens([END_OF_TEXT])
    return Tokenizer(backend)


def merge_of(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The pair that a token was merged from: what is left of it when all earlier merges have been applied."""
    limit = ranks[token]
    parts = [token[i : i + 1] for i in range(len(token))]
    pairs = [ranks.get(token[i : i + 2], limit) for i in range(len(token) - 1)]
    while len(parts) > 2:
        at = pairs.index(min(pairs))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        del pairs[at]
        if at > 0:
            pairs[at - 1] = ranks.get(parts[at - 1] + parts[at], limit)
        if at < len(pairs):
            pairs[at] = ranks.get(parts[at] + parts[at + 1], limit)
    return parts[0], parts[1]


@cache
def byte_characters() -> dict[int, str]:
    """The printable character that spells each byte in a vocabulary (GPT-2's `encoder.py`, `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(N_BYTES) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(N_BYTES + i) for i, byte in enumerate(others)}


def well_formed(text: str) -> str:
    """The text with surrogates, which have no UTF-8, joined where they pair and U+FFFD where not (as in tiktoken)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
