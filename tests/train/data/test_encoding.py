"""A conversation is trained with the tokens that a server would ask with, and only its answers count."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from bluejay.chat_template import Chat, prompt_tokens
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.tokenizer import Tokenizer
from bluejay.train.data.encoding import encode_conversation, encode_pair, with_template
from bluejay.train.data.examples import Message, Unusable
from bluejay.train.data.packed_examples import PackedExamples
from tests.test_chat_template import SPACES, spaced_tokenizer

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
FORGETFUL = (  # as Qwen3's and DeepSeek's, which leave thoughts out of all answers but the last
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{{ m.content.split('|')[-1] if m.role == 'assistant' and not loop.last else m.content }}{{ '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ENDLESS = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
THINKING = CHATML.replace("assistant\\n' }}{% endif", "assistant\\n<think>\\n' }}{% endif")


def tokenizer_with(template: str, ends: tuple[str, ...] = ("<|im_end|>",)) -> Tokenizer:
    backend = Tokenizer.train(["the the the cat"], vocab_size=259).backend
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return Tokenizer(backend, [backend.token_to_id(end) for end in ends], template)


def turns(*texts: str) -> list[Message]:
    return [Message("user" if n % 2 == 0 else "assistant", text, n % 2 == 1) for n, text in enumerate(texts)]


TALK = turns("hi", "think|the cat", "and now?", "well|the end")


def learnt_text(encoded, tokenizer: Tokenizer) -> str:
    ids = [id if keep else None for id, keep in zip(encoded.ids, encoded.learnt, strict=True)]
    return "".join(tokenizer.backend.id_to_token(id) for id in ids if id is not None).replace("Ġ", " ")


@pytest.mark.parametrize("template", [CHATML, FORGETFUL, ENDLESS, THINKING])
def test_every_answer_follows_the_prompt_that_a_server_asks_with(template):
    tokenizer = tokenizer_with(template)
    found = encode_conversation(TALK, tokenizer, Chat(tokenizer))
    plain = [{"role": message.role, "content": message.content} for message in TALK]
    served = [prompt_tokens(tokenizer, plain[:turn]) for turn in (1, 3)]
    begins = [
        one.ids[:place]
        for one in found
        for place in range(1, len(one.ids))
        if one.learnt[place] and not one.learnt[place - 1]
    ]
    assert begins == served
    assert all(one.ids[-1] == tokenizer.eot and len(one.ids) == len(one.learnt) for one in found)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, ["think|the cat<|im_end|>well|the end<|im_end|>"]),
        (FORGETFUL, ["think|the cat<|im_end|>", "well|the end<|im_end|>"]),
        (ENDLESS, ["think|the catĊ<|im_end|>", "well|the endĊ<|im_end|>"]),
    ],
)
def test_answers_and_their_ends_are_all_that_is_learnt(template, expected):
    tokenizer = tokenizer_with(template)
    found = encode_conversation(TALK, tokenizer, Chat(tokenizer))
    assert [learnt_text(one, tokenizer) for one in found] == expected


@pytest.mark.parametrize("template", [CHATML, FORGETFUL])
def test_no_more_of_a_conversation_is_written_than_fits(template, monkeypatch):
    tokenizer = tokenizer_with(template)
    talk = turns(*["the cat"] * 20)
    whole = encode_conversation(talk, tokenizer, Chat(tokenizer))
    chat, longest = Chat(tokenizer), 0
    write = chat.text

    def counted(messages, **options):
        nonlocal longest
        longest = max(longest, len(messages))
        return write(messages, **options)

    monkeypatch.setattr(chat, "text", counted)
    found = encode_conversation(talk, tokenizer, chat, length=60)
    fitting = [one for one in found if len(one.ids) <= 60]
    assert fitting == [one for one in whole if len(one.ids) <= 60] and len(fitting) < len(found)
    assert longest < 10


@pytest.mark.parametrize("way", SPACES)
def test_an_answer_inside_a_word_gains_no_space(way):
    tokenizer = spaced_tokenizer(way, "{% for m in messages %}{{ m.content }}{% endfor %}")
    found = encode_pair("c a", "b d", tokenizer)
    assert tokenizer.decode(found.ids) == "c ab d"
    [found] = encode_conversation(turns("c a", "b d"), tokenizer, Chat(tokenizer))
    assert tokenizer.decode(found.ids) == "c ab d"


def test_the_ids_are_those_of_transformers(tmp_path):
    tokenizer = tokenizer_with(CHATML)
    tokenizer.save(tmp_path)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    plain = [{"role": message.role, "content": message.content} for message in TALK]
    [found] = encode_conversation(TALK, tokenizer, Chat(tokenizer))
    expected = reference.apply_chat_template(plain, return_dict=False)
    assert found.ids == expected[: len(found.ids)]
    assert tokenizer.decode(expected[len(found.ids) :]) == "\n"  # after the last end, which nobody generates


def test_names_of_special_tokens_in_messages_are_text_as_when_served():
    tokenizer = tokenizer_with(CHATML)
    [found] = encode_conversation(turns("<|im_end|>", "<|im_start|>"), tokenizer, Chat(tokenizer))
    assert [id for id in found.ids if id in tokenizer.ends] == list(tokenizer.ends) * 2


def test_what_the_template_rejects_is_unusable_with_its_reason():
    tokenizer = tokenizer_with("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(Unusable, match="roles must alternate"):
        encode_conversation(TALK, tokenizer, Chat(tokenizer))


def test_a_message_that_the_template_leaves_out_is_unusable():
    known = "{% for m in messages if m.role in ['user', 'assistant'] %}{{ m.role + m.content | trim }} {% endfor %}"
    tokenizer = tokenizer_with(known)
    talk = turns(" hi <|im_end|>\n", "the cat")
    assert encode_conversation(talk, tokenizer, Chat(tokenizer))
    for role in ("system", "tool"):
        with pytest.raises(Unusable, match=f"with a message of {role} that the chat template leaves out"):
            encode_conversation([Message(role, "be brief", False), *talk], tokenizer, Chat(tokenizer))


def test_attention_stays_within_a_conversation_and_crosses_the_ends_of_its_turns(tmp_path):
    lines = (
        '{"messages": [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "a"},'
        ' {"role": "user", "content": "x"}, {"role": "assistant", "content": "the the"}]}\n'
        '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}\n'
    )
    (tmp_path / "a.jsonl").write_text(lines)
    tokenizer = tokenizer_with(CHATML)
    examples = PackedExamples(str(tmp_path / "a.jsonl"), 128, tokenizer, 0.0)
    assert len(examples) == 1 and len(examples.tokens) == 2
    tokens, starts = examples.window(0)[0], examples.starts(0)
    model = new_model(GPTConfig(n_layer=2, d_model=32, n_head=2, vocab_size=tokenizer.vocab_size, n_ctx=128), seed=0)
    with torch.no_grad():
        inputs = torch.from_numpy(tokens[None, :-1].astype(np.int64))
        packed = model.hidden(inputs, document_start=torch.from_numpy(starts[None]))[0]
        for example, at, end in examples.places(0):
            alone = model.hidden(torch.tensor([examples.tokens[example][:-1].tolist()]))[0]
            torch.testing.assert_close(packed[at + 1 : end], alone, atol=1e-5, rtol=1e-4)


def test_no_text_of_a_long_conversation_is_encoded_twice(monkeypatch):
    tokenizer, asked = tokenizer_with(CHATML), []
    encode_after = tokenizer.encode_after

    def counted(before, text: str) -> list[int]:
        asked.append((tuple(before[-1:]), text))
        return encode_after(before, text)

    monkeypatch.setattr(tokenizer, "encode_after", counted)
    [one] = encode_conversation(turns(*map(str, range(60))), tokenizer, Chat(tokenizer))
    assert len(list(one.answers())) == 30 and len(asked) == len(set(asked))


def test_the_mark_with_which_an_editor_begins_a_file_is_no_part_of_a_template(tmp_path):
    (tmp_path / "chat.jinja").write_text(CHATML, encoding="utf-8-sig")
    assert with_template(tokenizer_with(ENDLESS), str(tmp_path / "chat.jinja")).chat_template == CHATML
