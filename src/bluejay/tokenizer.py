"""Text to token ids and back with the `tokenizers` library: byte-level BPE, the kind of GPT-2 and GPT-J, and
SentencePiece's BPE over characters with byte fallback, the kind of Llama 2.

Special tokens such as `<|endoftext|>` are encoded as ordinary text, in documents and in prompts, so nobody can forge a
document boundary by writing one. Code that means the boundary appends `Tokenizer.eot`.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from bluejay.byte_level_bpe import N_BYTES, byte_characters, byte_level, bytes_of_spelled, ranked_bpe
from bluejay.files import write_text
from bluejay.progress import say
from bluejay.sentencepiece_bpe import SPACE
from bluejay.tokenizer_files import (
    END_OF_TEXT,
    chat_template_beside,
    ends_beside,
    read_backend,
    settings_beside,
    tokenizer_file,
    without_space,
)

UTF_8_BYTES = sorted({*range(N_BYTES)} - {0xC0, 0xC1, *range(0xF5, N_BYTES)})
"""The bytes that occur in UTF-8."""
UNREAD = ("spiece.model", "vocab.txt")
"""Files of tokenizers of other kinds."""
SAMPLE = "An  a\n\tb c "
"""A text of which a tokenizer that lowers letters or drops spaces makes another."""


class Tokenizer:
    """A BPE that encodes any text without loss, apart from the leading space that Llama 2 adds."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        ends: Sequence[int] = (),
        chat_template: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """`ends` are the ids that end a text; without them it is <|endoftext|>. `chat_template` is the Jinja template
        that turns a conversation into a prompt. `settings` are entries of tokenizer_config.json that `save` keeps.

        Raises ValueError: the tokenizer is of another kind, or has no id that ends a text.
        """
        byte_level = isinstance(backend.decoder, decoders.ByteLevel)
        if not isinstance(backend.model, models.BPE) or not (byte_level or backend.model.byte_fallback):
            raise ValueError("the tokenizer is not a byte-level BPE (GPT-2's kind) nor one that falls back on bytes")
        if not ends:
            eot = backend.token_to_id(END_OF_TEXT)
            if eot is None:
                raise ValueError(f"the tokenizer has no {END_OF_TEXT} token, which must end every document")
            backend.add_special_tokens([END_OF_TEXT])  # in some files it is an ordinary token
            ends = [eot]
        vocabulary = backend.get_vocab()
        if max(vocabulary.values()) > 2 * len(vocabulary) + N_BYTES:
            raise ValueError(f"the tokenizer has an id {max(vocabulary.values())}, but only {len(vocabulary)} tokens")
        self.backend = backend
        self.backend.encode_special_tokens = True  # like tiktoken's encode_ordinary
        self.backend.model.dropout = None  # merges left out by chance, in training
        self.backend.no_truncation()
        self.backend.no_padding()
        self.ends = tuple(ends)
        self.chat_template = chat_template
        self.settings = dict(settings or {})
        self._spelled_in_bytes = byte_level

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return len(self._bytes)

    @property
    def eot(self) -> int:
        """The id that ends every document: <|endoftext|>, or Llama's </s>; the first end that is no ordinary token."""
        added = self.backend.get_added_tokens_decoder()
        return next((id for id in self.ends if id in added), self.ends[0])

    def has(self, id: Any) -> bool:
        """Whether something, read from a file, is the id of a token."""
        return type(id) is int and 0 <= id < 2**32 and self.backend.id_to_token(id) is not None

    @cached_property
    def begin(self) -> list[int]:
        """The ids that begin every text of the model: Llama's <s>; none for GPT-2 and its relatives."""
        plain = self.backend.encode("a", add_special_tokens=False).ids
        whole = self.backend.encode("a", add_special_tokens=True).ids
        return next((whole[:i] for i in range(len(whole)) if whole[i : i + len(plain)] == plain), [])

    @property
    def named_begin(self) -> int:
        """The id that the model's files call its begin, whether or not texts begin with it; `eot` if they name none."""
        named = self.backend.token_to_id(self.settings.get("bos_token") or "")
        return next(iter(self.begin), self.eot if named is None else named)

    @cached_property
    def sha256(self) -> str:
        """A hash of the tokens with their ids and of the merges, which identifies the tokenizer."""
        merges = json.loads(self.backend.to_str())["model"]["merges"]
        tokens = sorted((id, token) for token, id in self.backend.get_vocab().items())
        # Older files hold a merge as "a b", newer ones as ["a", "b"].
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
        return hashlib.sha256(json.dumps([tokens, pairs]).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of a text; `<|endoftext|>` in it is ordinary text."""
        return self.backend.encode(well_formed(text), add_special_tokens=False).ids

    def encode_after(self, before: Sequence[int], text: str) -> list[int]:
        """The ids of a text that follows the ids `before` in a longer one. There `encode`'s space in front is only put
        after an added token, and not where the tokenizer puts it in front of whole texts alone."""
        if not before:
            return self.encode(text)
        backend = self._after_added_token if before[-1] in self._added else self._after_text
        return backend.encode(well_formed(text), add_special_tokens=False).ids

    def encode_prompt(self, text: str) -> list[int]:
        """The ids of a text for a model to continue: `begin` and the text's own; `eot` if there would be none."""
        return self.begin + self.encode(text) or [self.eot]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text, computed on all cores."""
        encodings = self.backend.encode_batch_fast([well_formed(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: list[int]) -> str:
        """The text of ids, without the space that `encode` may add in front; invalid UTF-8 becomes U+FFFD.

        Special tokens and ids outside the vocabulary (rows that pad an embedding) have no text.
        """
        table = self._bytes
        text = b"".join(table[id] for id in ids if 0 <= id < len(table))
        return text.removeprefix(self.prefix).decode("utf-8", errors="replace")

    def token_bytes(self) -> list[bytes]:
        """The bytes of each id; `b""` for <|endoftext|> and other special tokens."""
        return self._bytes

    def missing_bytes(self) -> list[int]:
        """The bytes of UTF-8 for which there is no token, so that `encode` leaves them out of a text."""
        spelled = byte_characters() if self._spelled_in_bytes else {byte: f"<0x{byte:02X}>" for byte in UTF_8_BYTES}
        return [byte for byte in UTF_8_BYTES if self.backend.token_to_id(spelled[byte]) is None]

    @cached_property
    def prefix(self) -> bytes:
        """The bytes that `encode` adds in front of a text."""
        return b"".join(self._bytes[id] for id in self.encode("a"))[:-1]

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self.backend.get_added_tokens_decoder())

    @cached_property
    def _after_added_token(self) -> tokenizers.Tokenizer:
        return without_space(self.backend, everywhere=False)

    @cached_property
    def _after_text(self) -> tokenizers.Tokenizer:
        return without_space(self.backend, everywhere=True)

    @cached_property
    def _bytes(self) -> list[bytes]:
        spelling = bytes_of_spelled if self._spelled_in_bytes else bytes_of_piece
        added = self.backend.get_added_tokens_decoder()
        vocabulary = self.backend.get_vocab()
        table = [b""] * (max(vocabulary.values()) + 1)
        for token, id in vocabulary.items():
            if id not in added:
                table[id] = spelling(token)
            elif not added[id].special and id not in self.ends:
                table[id] = token.encode() if self._spelled_in_bytes else spelling(token)
        return table

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Load a tokenizer.json; of a directory, its tokenizer.json, or else its vocab.json and merges.txt, the files
        of GPT-2's first publication, its tokenizer.model, the file of Llama's, or its tekken.json, that of Mistral's.
        "gpt2" is the tokenizer of GPT-2 and GPT-J, which is part of this package.

        The ids that end a text are read from the files beside it. Raises FileNotFoundError: there is no such file;
        ValueError: it is not a BPE of bytes, or has no id that ends a text.
        """
        if path == "gpt2":
            return gpt2()
        path = Path(path)
        file = tokenizer_file(path) if path.is_dir() else path
        if not file.is_file():
            unread = "".join(f"; a {name} is not read" for name in UNREAD if file.with_name(name).is_file())
            raise FileNotFoundError(
                f'no tokenizer at {file}{unread}; name a tokenizer.json, a directory with one, or "gpt2"'
            )
        backend = read_backend(file)
        try:
            read = cls(backend, ends_beside(file, backend), chat_template_beside(file), settings_beside(file))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        if missing := read.missing_bytes():
            say_missing(file, bytes(missing))
        elif (kept := read.decode(read.encode(SAMPLE))) != SAMPLE:
            say_changed(file, kept)
        return read

    def without_rowless(self, n_rows: int) -> "Tokenizer":
        """This tokenizer for a model of `n_rows` rows: added tokens beyond them, such as a [PAD] that was only used in
        training, are never drawn and are refused in prompts. Raises ValueError if other tokens have no row."""
        if self.vocab_size <= n_rows:
            return self
        added, ends = self.backend.get_added_tokens_decoder(), [id for id in self.ends if id < n_rows]
        if not ends or not all(id in added for id in range(n_rows, self.vocab_size)):
            raise ValueError(
                f"the tokenizer has {self.vocab_size} tokens, the model {n_rows} rows; they do not belong together"
            )
        smaller = Tokenizer(self.backend, ends, self.chat_template, self.settings)
        smaller._bytes = self._bytes[:n_rows]
        return smaller

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json`, and the `tokenizer_config.json` with which transformers' AutoTokenizer loads it."""
        end = self.backend.id_to_token(self.eot)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.backend.id_to_token(self.begin[0]) if self.begin else end,
            "eos_token": end,
            "unk_token": self.backend.model.unk_token or end,
            "add_prefix_space": self._spelled_in_bytes and self.prefix == b" ",
            "clean_up_tokenization_spaces": False,
            # Transformers 4 would add token_type_ids, which GPT-2, GPT-J and GPT-Neo embed like tokens.
            "model_input_names": ["input_ids", "attention_mask"],
            **self.settings,
        }
        if list(self.ends) != [self.backend.token_to_id(str(config["eos_token"]))]:
            config["eos_token_id"] = list(self.ends)  # for `ends_beside`; transformers takes them from the model
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        write_text(directory / "tokenizer.json", self.backend.to_str(pretty=True))
        write_text(directory / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """A new BPE of `vocab_size` tokens, or fewer if the texts have no more pairs; equal texts give equal results.

        Ids are in GPT-2's order: the 256 bytes, the merges, and <|endoftext|> last. Raises ValueError for a
        `vocab_size` of 256 or fewer.
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


@cache
def say_missing(file: Path, missing: bytes) -> None:
    """Say, once in a process, which bytes a tokenizer leaves out of texts."""
    shown = "".join(character for character in missing.decode("ascii", "ignore") if character.isprintable())[:40]
    say(
        f"{file}: it has no token for {len(missing)} of the {len(UTF_8_BYTES)} bytes that texts consist of"
        f"{shown and f' ({shown} among them)'}; encoding leaves them out of a text"
    )


@cache
def say_changed(file: Path, kept: str) -> None:
    """Say, once in a process, what a tokenizer leaves of a text that it changes."""
    say(f"{file}: it changes texts, and no model sees what is lost: of {SAMPLE!r} it keeps {kept!r}")


@cache
def gpt2() -> Tokenizer:
    """The tokenizer of GPT-2 and GPT-J, from the ranks in this package."""
    lines = resources.files("bluejay").joinpath("assets", "r50k_base.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    backend = byte_level(ranked_bpe(ranks))
    backend.add_special_tokens([END_OF_TEXT])
    return Tokenizer(backend)


def bytes_of_piece(token: str) -> bytes:
    """The bytes of a token of a SentencePiece vocabulary: `<0x0A>` is one byte."""
    byte = re.fullmatch("<0x([0-9A-F]{2})>", token)
    return bytes.fromhex(byte[1]) if byte else token.replace(SPACE, " ").encode()


def well_formed(text: str) -> str:
    """The text with surrogates, which have no UTF-8, joined in pairs or replaced by U+FFFD (like tiktoken)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
