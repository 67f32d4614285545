"""The files that state a tokenizer: its tokenizer.json, or vocab.json and merges.txt, or tokenizer.model, or
tekken.json, and what those beside it say of tokens that are added, that end a text and that have names."""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from bluejay.byte_level_bpe import byte_level, tekken_tokenizer
from bluejay.decompress import refuse_pointer_file
from bluejay.files import parse_json
from bluejay.progress import say
from bluejay.sentencepiece_bpe import add_pieces, pieces_tokenizer, read_pieces

WHOLE, SPELLED_OUT, PIECES, TEKKEN = "tokenizer.json", "vocab.json", "tokenizer.model", "tekken.json"
"""The files of a tokenizer; beside the second, its merges.txt."""
END_OF_TEXT = "<|endoftext|>"
BEGINS = {SPELLED_OUT: END_OF_TEXT, PIECES: "<s>", TEKKEN: "<s>"}
"""File that does not say whether texts begin with a token -> the token, if no other file names one."""
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
"""Entries of tokenizer_config.json that name a token."""
KEPT_SETTINGS = ("additional_special_tokens", "extra_special_tokens", "model_max_length", "padding_side")
"""Further entries of tokenizer_config.json that describe the use of a tokenizer, which is the same in a copy."""
CLASS_DEFAULTS = {
    "PreTrainedTokenizerFast": None,
    "TokenizersBackend": None,
    "GPT2Tokenizer": END_OF_TEXT,
    "GPT2TokenizerFast": END_OF_TEXT,
    "GPTNeoXTokenizer": END_OF_TEXT,
    "GPTNeoXTokenizerFast": END_OF_TEXT,
}
"""Class of transformers -> the token that begins and ends a text and stands for what is unknown where no file names
one."""
SPELLED_OUT_CLASSES = ("None", "PreTrainedTokenizer", "TokenizersBackend", "GPT2Tokenizer", "CodeGenTokenizer")
SPELLED_OUT_CLASSES += ("GPTNeoXTokenizer",)
"""Classes of transformers whose vocab.json and merges.txt are a tokenizer that splits a text into words as GPT-2's; the
last one also normalises characters."""
PIECES_CLASSES = ("None", "PreTrainedTokenizer", "TokenizersBackend", "LlamaTokenizer", "CodeLlamaTokenizer")
"""Classes of transformers whose tokenizer.model divides a text as Llama's does."""
SPACED_CLASSES = ("GPT2Tokenizer", "GPTNeoXTokenizer", "LlamaTokenizer")
"""Classes of transformers that follow the add_prefix_space of tokenizer_config.json, whatever tokenizer.json says."""


def tokenizer_file(directory: Path) -> Path:
    """The file of the tokenizer in a directory; the path of a tokenizer.json where there is none."""
    if not (directory / WHOLE).is_file():
        if (directory / "merges.txt").is_file():
            return directory / SPELLED_OUT
        for name in (PIECES, TEKKEN):
            if (directory / name).is_file():
                return directory / name
    return directory / WHOLE


def read_backend(file: Path) -> tokenizers.Tokenizer:
    """The library's tokenizer from a tokenizer.json, from a vocab.json with the merges.txt beside it, from a
    tokenizer.model or from a tekken.json, and with the tokens that the files beside it add. Raises ValueError if these
    are not one tokenizer."""
    refuse_pointer_file(file)
    settings = json_object(file.with_name("tokenizer_config.json"))
    kind, space = str(settings.get("tokenizer_class")).removesuffix("Fast"), settings.get("add_prefix_space")
    if file.name == TEKKEN:
        backend = tekken_tokenizer(file)
    else:
        backend = pieces_backend(file, settings) if file.name == PIECES else library_backend(file, settings)
    if kind in SPACED_CLASSES and isinstance(space, bool):
        backend = with_space(backend) if space else without_space(backend, everywhere=True)
    stated, added = added_beside(file), backend.get_added_tokens_decoder()
    ids = {id: backend.token_to_id(token.content) for token, id in stated}
    plain = {id for id, known in ids.items() if known is None or (known == id and id not in added)}
    backend.add_tokens([token for token, id in stated if id in plain])  # at once: each call goes through all of them
    for token, id in stated:
        if (known := backend.token_to_id(token.content)) != id:
            raise ValueError(f"{file}: the files beside it give {token.content!r} the id {id}; it would be {known}")
    make_special(special_beside(file), backend)
    if file.name in BEGINS and settings.get("add_bos_token", file.name != SPELLED_OUT):
        begin = names_in(settings).get("bos_token") or BEGINS[file.name]
        if (id := backend.token_to_id(begin)) is None:
            raise ValueError(f"{file}: every text begins with {begin!r} (add_bos_token), which is none of its tokens")
        backend.post_processor = processors.TemplateProcessing(single=[begin, "$A"], special_tokens=[(begin, id)])
    return backend


def library_backend(file: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The tokenizer in a tokenizer.json, or in a vocab.json with the merges.txt beside it, of a tokenizer_config.json
    with these settings. Raises ValueError, naming the file."""
    spelled_out = file.name == SPELLED_OUT
    if spelled_out:
        check_class(file, settings, SPELLED_OUT_CLASSES, "GPT-2")
    try:
        if not spelled_out:
            return tokenizers.Tokenizer.from_file(str(file))
        model = models.BPE.from_file(str(file), str(file.with_name("merges.txt")))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # tokenizers raises Exception itself, and where it panics what is no Exception
        kind = "and merges.txt beside it are not a BPE" if spelled_out else "is not a tokenizer.json"
        raise ValueError(f"{file} {kind}: {error}") from None
    backend = byte_level(model, bool(settings.get("add_prefix_space")))
    if str(settings.get("tokenizer_class")).startswith("GPTNeoXTokenizer"):
        backend.normalizer = normalizers.NFC()
    return backend


def pieces_backend(file: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The tokenizer in a tokenizer.model, of a tokenizer_config.json with these settings. Raises ValueError."""
    check_class(file, settings, PIECES_CLASSES, "Llama")
    pieces = read_pieces(file)
    try:
        once = settings.get("legacy") is False
        backend = pieces_tokenizer(pieces.tokens, pieces.scores, pieces.kinds, pieces.space, once)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    add_pieces(backend, pieces.tokens, pieces.kinds)
    return backend


def check_class(file: Path, settings: Mapping[str, Any], classes: Collection[str], known: str) -> None:
    """Raise ValueError if the class of a tokenizer, which tokenizer_config.json or else config.json names, may split a
    text in another way than the `known` one of these classes: its file does not tell how."""
    kind = settings.get("tokenizer_class") or json_object(file.with_name("config.json")).get("tokenizer_class")
    if str(kind).removesuffix("Fast") not in classes:
        raise ValueError(
            f"{file}: its tokenizer_class is {kind!r}, which may split a text in another way than {known}; "
            f"transformers makes a tokenizer.json of it: {remade(file.parent)}"
        )


def remade(path: Path) -> str:
    """The code by which transformers writes the tokenizer.json of a directory."""
    return f'AutoTokenizer.from_pretrained("{path}").save_pretrained("{path}")'


def added_beside(file: Path) -> list[tuple[tokenizers.AddedToken, int]]:
    """The tokens, with their ids in ascending order, that the files beside a tokenizer add to its vocabulary:
    `added_tokens_decoder` of tokenizer_config.json and added_tokens.json."""
    settings, plain = (json_object(file.with_name(name)) for name in ("tokenizer_config.json", "added_tokens.json"))
    decoder = settings.get("added_tokens_decoder") or {}
    try:
        special = {*names_in(settings).values()}
    except ValueError as error:
        raise ValueError(f"{file.with_name('tokenizer_config.json')}: {error}") from None
    try:
        found = {int(id): added_token(token) for id, token in decoder.items()}
        for token, id in plain.items():
            found.setdefault(int(id), tokenizers.AddedToken(token, special=token in special, normalized=False))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{file}: the files beside it do not say which tokens they add") from None
    return [(found[id], id) for id in sorted(found)]


def added_token(token: Mapping[str, Any], **defaults: bool) -> tokenizers.AddedToken:
    """A token that a file describes as an object. Raises TypeError or KeyError if it does not."""
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return tokenizers.AddedToken(token["content"], **defaults | {flag: token[flag] for flag in flags if flag in token})


def special_beside(file: Path) -> list[tokenizers.AddedToken]:
    """The tokens that the files beside a tokenizer call special, by a name, in a list or in `added_tokens_decoder`.
    Raises ValueError if they give something else than texts of tokens."""
    values = entries_beside(file)
    called: list[Any] = [token for name, token in values.items() if name.endswith("_token")]
    for key in KEPT_SETTINGS[:2]:
        listed = values.get(key) or []
        tokens = list(listed.values()) if isinstance(listed, dict) else listed
        if not isinstance(tokens, list) or not all(isinstance(spelled(token), str | None) for token in tokens):
            raise ValueError(f"{file}: the {key} of the files beside it are {listed!r}; they must be texts of tokens")
        called += tokens
    try:
        named = [
            added_token(token if isinstance(token, dict) else {"content": token}, normalized=False)
            for token in called
            if isinstance(spelled(token), str)
        ]
    except TypeError:
        raise ValueError(f"{file}: the files beside it do not say which tokens are special") from None
    return named + [token for token, _ in added_beside(file) if token.special]


def make_special(tokens: Iterable[tokenizers.AddedToken], backend: tokenizers.Tokenizer) -> None:
    """Make those of the tokens special that a tokenizer has, as transformers does: a template can write them, a text
    cannot. One that texts are made of, such as "!" as the token that pads, stays ordinary."""
    added, plain, new = backend.get_added_tokens_decoder(), without_space(backend, everywhere=True), []
    for content, token in {token.content: token for token in tokens}.items():
        id = backend.token_to_id(content)
        if id is None or (id in added and added[id].special):
            continue
        if id in added or plain.encode(content, add_special_tokens=False).ids != [id]:
            new.append(added.get(id, token))
    backend.add_special_tokens(new)


def json_object(file: Path) -> dict[str, Any]:
    """The contents of a JSON file, empty if there is none; editors of Windows put a mark of its encoding in front.
    Raises ValueError if it is no object."""
    try:
        values = parse_json(file.read_text(encoding="utf-8-sig")) if file.is_file() else {}
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{file} is not a JSON object: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file} is not a JSON object")
    return values


def entries_beside(file: Path) -> dict[str, Any]:
    """The entries of the files beside a tokenizer that give tokens a name, of which tokenizer_config.json counts more.
    Raises ValueError if one is no object."""
    other, first = (json_object(file.with_name(name)) for name in ("special_tokens_map.json", "tokenizer_config.json"))
    return other | first


def names_in(values: Mapping[str, Any]) -> dict[str, str | None]:
    """The spelling of each token that the files beside a tokenizer name; null says that there is none of the name.
    Raises ValueError if a name is given to something else."""
    named = {name: spelled(values[name]) for name in NAMED_TOKENS if name in values}
    for name, token in named.items():
        if not isinstance(token, str | None):
            raise ValueError(f"{name} is {values[name]!r}; it must be the text of a token")
    return named


def spelled(token: Any) -> Any:
    """The spelling of a token that a file names by itself or as an object, as transformers 4 wrote it."""
    return token.get("content") if isinstance(token, dict) else token


def ends_beside(file: Path, backend: tokenizers.Tokenizer) -> list[int]:
    """The ids that end a text, from the first of the files beside a tokenizer that names any, or that of </s> for a
    tekken.json; or none. The first two are those by which `transformers.generate` stops."""
    for name in ("generation_config.json", "config.json", "tokenizer_config.json", "special_tokens_map.json"):
        values = json_object(file.with_name(name))
        token = spelled(values.get("eos_token"))
        ids = values.get("eos_token_id")
        if ids is None and isinstance(token, str):
            ids = backend.token_to_id(token)
        if ends := valid_ends(ids if isinstance(ids, list) else [ids], backend):
            return ends
    return valid_ends([backend.token_to_id("</s>")], backend) if file.name == TEKKEN else []


def valid_ends(ids: Iterable[Any], backend: tokenizers.Tokenizer) -> list[int]:
    """The ids of tokens among what a file calls the ends of a text, in its order. An id without a token is none of
    them: it belongs to a row that only pads the embedding, and is never drawn. Added tokens among them become special,
    so that no text can forge an end."""
    added = backend.get_added_tokens_decoder()
    whole = [id for id in ids if type(id) is int and 0 <= id < 2**32]
    ends = [id for id in dict.fromkeys(whole) if backend.id_to_token(id) is not None]
    make_special([added[id] for id in ends if id in added], backend)
    return ends


def settings_beside(file: Path) -> dict[str, Any]:
    """The entries of the tokenizer_config.json and special_tokens_map.json beside a tokenizer that stay with it, among
    them each that gives a token a name. A null stays too: it says that there is no token of that name, and so does
    silence in a class without defaults."""
    values = entries_beside(file)
    kind = str(values.get("tokenizer_class"))
    defaults = dict.fromkeys(NAMED_TOKENS[:3], CLASS_DEFAULTS[kind]) if kind in CLASS_DEFAULTS else {}
    others = {name: spelled(token) for name, token in values.items() if name.endswith("_token")}
    named = {name: token for name, token in others.items() if isinstance(token, str)} | defaults | names_in(values)
    kept = {name: value for name in KEPT_SETTINGS if not isinstance(value := values.get(name), list | None)}
    # Transformers 5 calls the list by the second of these names, under which 4 takes no list; both read the first.
    lists = (values[name] for name in KEPT_SETTINGS[:2] if isinstance(values.get(name), list))
    listed = dict.fromkeys(spelled(token) for tokens in lists for token in tokens if token)
    return named | kept | ({KEPT_SETTINGS[0]: list(listed)} if listed else {})


def chat_template_beside(file: Path) -> str | None:
    """The chat template in a tokenizer's directory, from its own file or from tokenizer_config.json; None without.
    Raises ValueError if it is not a text."""
    alone, others = file.with_name("chat_template.jinja"), file.parent.glob("additional_chat_templates/*.jinja")
    found = json_object(file.with_name("tokenizer_config.json")).get("chat_template")
    if alone.is_file():
        found = alone.read_text(encoding="utf-8-sig")
    if isinstance(found, list):  # several templates, each with a name
        if not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in found):
            raise ValueError(f"chat_template of tokenizer_config.json is {found!r}; each template must have a name")
        found = {one["name"]: one.get("template") for one in found}
    named = found if isinstance(found, dict) else {"default": found}
    return default_template(dict.fromkeys(path.stem for path in others) | named, file)


def default_template(named: Mapping[str, Any], file: Path) -> str | None:
    """The chat template with the name "default"; None if there is none. It is said that others are left out. Raises
    ValueError if it is not a text."""
    template, others = named.get("default"), ", ".join(sorted(named.keys() - {"default"}))
    if not isinstance(template, str | None):
        raise ValueError(f"its chat template is {template!r}; it must be a text")
    if others and template is None:
        say(f"{file}: no chat template is used, since none of those that it has ({others}) is the default")
    elif others:
        say(f"{file}: of its chat templates only the default is used, and kept in copies; left out: {others}")
    return template


def without_space(backend: tokenizers.Tokenizer, everywhere: bool) -> tokenizers.Tokenizer:
    """A copy of a tokenizer that puts no space in front of a whole text, or `everywhere` of no part of one either; the
    same tokenizer if it puts none there."""
    steps = {name: getattr(backend, name) for name in ("normalizer", "pre_tokenizer")}
    given = {name: json.loads(step.__getstate__()) for name, step in steps.items() if step is not None}
    changed = {name: spaceless(step, everywhere) for name, step in given.items()}
    if changed == given:
        return backend
    copy = tokenizers.Tokenizer.from_str(json.dumps(json.loads(backend.to_str()) | changed))
    copy.encode_special_tokens = True
    return copy


def spaceless(step: Any, everywhere: bool) -> Any:
    """A step of a tokenizer.json, and the steps in it, as `without_space` changes them."""
    match step:
        case list():
            return [spaceless(one, everywhere) for one in step]
        case {"prepend_scheme": "first" | "always" as scheme}:
            return step | ({"prepend_scheme": "never"} if everywhere or scheme == "first" else {})
        case {"type": "Prepend"} if everywhere:
            return {"type": "Sequence", "normalizers": []}
        case {"type": "ByteLevel", "add_prefix_space": True} if everywhere:
            return step | {"add_prefix_space": False}
        case dict():
            return {key: spaceless(value, everywhere) for key, value in step.items()}
    return step


def with_space(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The same tokenizer, which now puts a space in front of a whole text, if it put none in front of anything."""
    if without_space(backend, everywhere=True) is backend:
        if isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
            backend.pre_tokenizer.add_prefix_space = True
        elif isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace | None):
            backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return backend
