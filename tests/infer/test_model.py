"""What people call: any form of input, each text's result the same in a list as alone, and a sentence for mistakes."""

import copy
import gc
import pickle
import threading
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import bluejay
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.infer.backends.native import available, native_model
from bluejay.infer.engine import Engine
from bluejay.infer.model import Model
from bluejay.infer.params import SamplingParams
from bluejay.infer.shared_engine import MAX_SEQUENCES
from bluejay.tokenizer import Tokenizer
from tests.waiting import PATIENCE

WORDS = ("the", "cat", "a", "naïve", "日本", "12", "\n", "the the")
TEXTS = [" ".join(WORDS[i % 8 : i % 8 + 1 + i % 5]) + str(i) for i in range(24)]
LONG = "The cat sat on the mat, the other cat did not. " * 5
"""More tokens than the context holds."""


def reference(model: Model, ids: list[int]) -> torch.Tensor:
    """The logits of the module itself, without a cache."""
    with torch.no_grad():
        return model.gpt(torch.tensor([ids]))[0]


# Generation


def test_prompts_generated_together_are_those_generated_one_by_one(model):
    prompts = [f"{text} {i}" for i, text in enumerate(TEXTS * 3)][: MAX_SEQUENCES + 3]
    for keywords in ({"temperature": 0}, {"temperature": 1.0, "seed": 7, "n": 2}):
        together = model.generate(prompts, max_tokens=6, **keywords)
        alone = [model.generate(prompt, max_tokens=6, **keywords) for prompt in prompts[::5]]
        assert together[::5] == alone and len(together) == len(prompts)


@pytest.mark.parametrize(
    "form",
    [list, tuple, np.array, torch.tensor, lambda ids: np.array(ids, np.int32), iter],
    ids=["list", "tuple", "array", "tensor", "int32", "iterator"],
)
def test_token_ids_in_any_container_are_a_prompt(model, form):
    ids = model.tokenizer.encode("the cat")
    expected = model.generate("the cat", max_tokens=5, temperature=0)
    assert model.generate(form(ids), max_tokens=5, temperature=0) == expected


def test_lists_may_mix_texts_and_token_ids_and_be_empty(model):
    ids = model.tokenizer.encode("the cat")
    [text], [tokens] = model.generate(["the cat", ids], max_tokens=5, temperature=0)
    assert text == tokens
    assert model.generate([]) == [] and model.score([]) == [] and model.loglikelihood([]) == []
    for several in (torch.tensor([ids, ids]), [torch.tensor(ids), np.array(ids)]):
        assert model.generate(several, max_tokens=5, temperature=0) == [[text], [text]]
    assert len(model.generate([torch.tensor([5]), np.array([6])], max_tokens=1)) == 2  # prompts of one token each
    assert model.embed([]).shape == (0, model.config.d_model)


def test_keywords_change_the_parameters_that_are_given(model):
    params = SamplingParams(max_tokens=30, seed=3, temperature=1.0)
    [whole] = model.generate("a", params)
    assert model.generate("a", sampling_params=params, max_tokens=30) == [whole]
    assert model.generate("a", seed=3, temperature=1.0, max_tokens=30) == [whole]
    assert model.generate("a", params, n=2)[0] == whole and params.n == 1
    assert model.generate("a", params, stop=whole[3])[0] == whole[: whole.index(whole[3])]


def test_a_stream_of_several_prompts_numbers_their_samples(model):
    prompts, texts = TEXTS[:3], [""] * 6
    for chunk in model.stream(prompts, max_tokens=4, seed=1, n=2):
        texts[chunk.index] += chunk.text
    assert texts == [text for texts in model.generate(prompts, max_tokens=4, seed=1, n=2) for text in texts]


def test_prompts_of_a_stream_may_have_seeds_of_their_own(model):
    prompts, texts = TEXTS[:3], [""] * 6
    for chunk in model.stream(prompts, max_tokens=4, n=2, seeds=[5, 1, 5]):
        texts[chunk.index] += chunk.text
    alone = [
        model.generate(prompt, max_tokens=4, seed=seed, n=2) for prompt, seed in zip(prompts, (5, 1, 5), strict=True)
    ]
    assert texts == [text for texts in alone for text in texts]
    with pytest.raises(ValueError, match="seeds holds 2 numbers for 3 prompts"):
        model.stream(prompts, seeds=[1, 2])


def test_a_stream_that_is_left_frees_its_place(model):
    for _ in range(3):
        for _ in model.stream(TEXTS, max_tokens=20):
            break
    engine = model._resident.engine([1]).engine
    assert engine.idle and engine.pool.n_held == 0


def test_threads_share_the_engine_and_get_what_they_would_get_alone(model):
    expected = model.generate(TEXTS, max_tokens=10, seed=1)
    found: dict[int, list[str]] = {}

    def work(i: int) -> None:
        found[i] = model.generate(TEXTS[i], max_tokens=10, seed=1)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(TEXTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(len(TEXTS))] == expected


def test_the_cache_stays_with_the_model_and_is_as_large_as_texts_need(tiny_config, byte_tokenizer):
    model = Model(new_model(tiny_config, seed=0).requires_grad_(False), byte_tokenizer)
    model.generate("the cat sat", max_tokens=4)
    first = model._resident.engine([1])
    assert first.engine.pool.n_pages * first.engine.pool.size < tiny_config.n_ctx
    model.generate("the cat sat", max_tokens=4)
    assert model._resident.engine([1]) is first and first.engine.counters.reused_tokens > 0
    model.generate(TEXTS, max_tokens=40)
    assert model._resident.engine([1]) is not first


def test_a_cache_that_grows_takes_no_more_than_its_share_of_memory(model, monkeypatch):
    new = Model(model.gpt, model.tokenizer)
    monkeypatch.setattr("bluejay.infer.model.free_bytes", lambda _: 4 * 45 * 2 * 2 * 64 * 4)  # for 45 tokens
    for n_tokens in (30, 44):
        new.generate([5] * (n_tokens - 4), max_tokens=4)
        backend = new._resident.engine([n_tokens]).engine.backend
        assert backend.n_pages * backend.page_size < 45 + backend.page_size


def test_a_compiled_model_computes_no_drafts(tiny_config, byte_tokenizer, monkeypatch):
    """A step with drafts would be no compiled one."""
    monkeypatch.setenv("BLUEJAY_ISA", "torch")
    monkeypatch.setattr(torch, "compile", lambda function: function)
    for compiled in (False, True):
        model = Model(new_model(tiny_config, seed=0).requires_grad_(False), byte_tokenizer, compiled=compiled)
        model.generate("the the the the", max_tokens=40, temperature=0)
        assert (model._resident.engine([1]).engine.counters.drafted_tokens == 0) == compiled


@pytest.mark.skipif(not available(), reason="built without the native engine")
def test_threads_that_begin_together_pack_the_weights_once(tiny_model, monkeypatch):
    packed = []
    monkeypatch.setattr(
        "bluejay.infer.loaded.native_model", lambda gpt: packed.append(time.sleep(0.05)) or native_model(gpt)
    )
    model = Model(tiny_model.gpt, tiny_model.tokenizer)
    threads = [threading.Thread(target=use, args=("a",)) for use in (model.generate, model.score, model.embed)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(packed) == 1


def test_a_stream_that_the_garbage_collector_closes_within_a_step_frees_its_place(model, monkeypatch):
    cycle: list = [model.stream("the cat", max_tokens=30)]
    next(cycle[0])
    cycle.append(cycle)
    del cycle
    step = Engine.step
    monkeypatch.setattr(Engine, "step", lambda engine: (gc.collect(), step(engine))[1])
    thread = threading.Thread(target=model.generate, args=("a",), kwargs={"max_tokens": 1}, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive() and model._resident.engine([1]).engine.idle


def test_an_interrupted_step_ends_the_texts_that_share_it_and_not_the_model(model, monkeypatch):
    expected = model.generate("a", max_tokens=5, seed=1)
    stream = model.stream("b", max_tokens=30)
    next(stream)

    def interrupted(_: Engine) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.generate("a", max_tokens=5)
    with pytest.raises(bluejay.InferenceError, match="a step was interrupted; call again"):
        list(stream)
    assert model.generate("a", max_tokens=5, seed=1) == expected


# Scores


def test_texts_scored_together_have_the_scores_that_they_have_alone(model):
    texts = [*TEXTS, LONG, "x"]
    together = model.score(texts)
    for text, found in zip(texts, together, strict=True):
        alone = model.score(text)
        assert found.tokens == alone.tokens == model.tokenizer.encode(text)
        assert found.n_bytes == alone.n_bytes == len(text.encode())
        assert found.logprobs == pytest.approx(alone.logprobs, abs=1e-5)
        expected = reference(model, [model.tokenizer.eot, *found.tokens][: model.config.n_ctx]).log_softmax(-1)
        first = torch.tensor(found.tokens)[: len(expected)]
        assert found.logprobs[: len(first)] == pytest.approx(
            expected[: len(first)].gather(1, first[:, None])[:, 0].tolist(), abs=1e-5
        )


def test_token_ids_are_scored_as_the_text_that_they_spell(model):
    ids = model.tokenizer.encode(LONG)
    by_text, by_ids = model.score(LONG), model.score(ids)
    assert by_ids == by_text and by_text.bits_per_byte == -by_text.logprob / np.log(2) / by_text.n_bytes
    # The token that begins a document may be given, and is not scored.
    assert model.score([model.tokenizer.eot, *ids]).tokens == ids


pairs = st.lists(
    st.tuples(st.text("ab the", max_size=80), st.text("ab the", min_size=1, max_size=90)), min_size=1, max_size=6
)


@settings(max_examples=25)
@given(pairs)
def test_loglikelihoods_are_those_of_the_harness(tiny_model, pairs):
    """lm-evaluation-harness' own rules (`TemplateLM._encode_pair`, `HFLM._loglikelihood_tokens`) over the module."""
    tokenizer, n_ctx = tiny_model.tokenizer, tiny_model.config.n_ctx
    for (context, continuation), found in zip(pairs, tiny_model.loglikelihood(pairs), strict=True):
        n_spaces = len(context) - len(context.rstrip())
        if n_spaces:
            context, continuation = context[:-n_spaces], context[-n_spaces:] + continuation
        ids, n_context = tokenizer.encode(context + continuation), len(tokenizer.encode(context))
        before, after = ids[:n_context] or [tokenizer.eot], ids[n_context:]
        if not after or len(after) > n_ctx:
            continue  # the harness refuses these
        read = (before + after)[-(n_ctx + 1) :][:-1]
        logprobs = reference(tiny_model, read).log_softmax(-1)[-len(after) :]
        expected = logprobs.gather(1, torch.tensor(after)[:, None]).sum().item()
        assert found.logprob == pytest.approx(expected, abs=1e-4)
        assert found.is_greedy == (logprobs.argmax(-1).tolist() == after)


def test_a_greedy_continuation_is_greedy_and_a_pair_unpacks(model):
    prompt = model.tokenizer.encode("the cat")
    ids = [chunk.token for chunk in model.stream(prompt, max_tokens=6, temperature=0)]
    (logprob, is_greedy), other = model.loglikelihood([(prompt, ids), (prompt, [*ids[:-1], (ids[-1] + 1) % 256])])
    assert is_greedy and not other.is_greedy and logprob > other.logprob


def test_a_continuation_longer_than_the_context_is_scored_in_windows(model):
    ids = model.tokenizer.encode(LONG)
    [found] = model.loglikelihood([(ids[:3], ids[3:])])
    assert found.logprob == pytest.approx(sum(model.score(LONG).logprobs[3:]), rel=0.05)


# Logits and embeddings


def test_logits_are_the_modules(model):
    one, *several = model.logits([5, 6, 7]), *model.logits(["the cat", [5, 6, 7]])
    assert torch.allclose(one, reference(model, [5, 6, 7]), atol=1e-4)
    assert torch.equal(one, several[1]) or torch.allclose(one, several[1], atol=1e-5)
    assert torch.allclose(several[0], reference(model, model.tokenizer.encode("the cat")), atol=1e-4)


def test_logits_may_be_changed_and_learned_from(model):
    logits = model.logits("the cat")
    weight = torch.ones(logits.shape[-1], requires_grad=True)
    (logits.div_(2) * weight).sum().backward()
    assert torch.equal(weight.grad, logits.sum(0)) and logits.is_contiguous()


def test_an_embedding_is_the_mean_of_the_hidden_states_at_length_one(model):
    together = model.embed(TEXTS)
    assert together.shape == (len(TEXTS), model.config.d_model)
    for text, found in zip(TEXTS, together, strict=True):
        with torch.no_grad():
            hidden = model.gpt.hidden(torch.tensor([model.tokenizer.encode_prompt(text)]))[0]
        assert torch.allclose(found, F.normalize(hidden.mean(0), dim=0), atol=1e-5)
        assert torch.allclose(found, model.embed(text), atol=1e-6)


def test_texts_of_any_lengths_are_read_together(model):
    texts = [[5] * 33] * 15 + [[5] * 16] * 60
    expected = [model.embed([5] * 33)] * 15 + [model.embed([5] * 16)] * 60
    assert torch.allclose(model.embed(texts), torch.stack(expected), atol=1e-5)
    assert [len(one) for one in model.logits(texts)] == [len(text) for text in texts]


# Chat


TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"


def test_chat_continues_what_the_template_makes_of_the_messages(tiny_config):
    tokenizer = Tokenizer.train(["the the the cat"], vocab_size=259)
    tokenizer.chat_template = TEMPLATE
    model = Model(new_model(tiny_config, seed=0).requires_grad_(False), tokenizer)
    talks = [[{"role": "user", "content": text}] for text in ("hi", "who?")]
    expected = [model.generate(f"[user] {text}\n[assistant]", max_tokens=5, seed=2) for text in ("hi", "who?")]
    assert model.chat(talks[0], max_tokens=5, seed=2) == expected[0]
    assert model.chat(talks, max_tokens=5, seed=2) == expected
    assert "".join(c.text for c in model.stream(model.chat_prompt(talks[1]), max_tokens=5, seed=2)) == expected[1][0]


def test_chat_gives_the_template_its_variables(tiny_config):
    tokenizer = Tokenizer.train(["the the the cat"], vocab_size=259)
    tokenizer.chat_template = "{% if think %}THINK {% endif %}{{ messages[0].content }}"
    model = Model(new_model(tiny_config, seed=0).requires_grad_(False), tokenizer)
    talk, ask = [{"role": "user", "content": "hi"}], {"max_tokens": 5, "seed": 2}
    assert model.chat(talk, **ask) == model.generate("hi", **ask)
    assert model.chat(talk, chat_template_kwargs={"think": True}, **ask) == model.generate("THINK hi", **ask)
    assert tokenizer.decode(model.chat_prompt(talk, {"think": True})) == "THINK hi"
    with pytest.raises(bluejay.ChatTemplateError, match="chat_template_kwargs has thinks, which"):
        model.chat(talk, chat_template_kwargs={"thinks": True}, **ask)


# Mistakes


def test_too_long_a_text_has_no_logits_and_an_empty_one_no_score(model):
    with pytest.raises(bluejay.ContextLengthError, match=r"prompt 1 has \d+ tokens; this model's maximum context"):
        model.embed(["a", LONG])
    with pytest.raises(bluejay.PromptError, match="an empty text has no score, and text 1 is empty"):
        model.score(["a", ""])
    with pytest.raises(bluejay.TokenError, match="text 1 holds the token 300; the model has 259 rows"):
        model.score(["a", [300]])
    with pytest.raises(bluejay.TokenError, match="the text holds the token -1; the model has 259 rows"):
        model.score([5, -1])
    with pytest.raises(bluejay.TokenError, match="text 0 holds the token -4"):
        model.loglikelihood([([3], [-4])])


def test_a_closed_model_says_so_and_a_with_statement_closes(tiny_config, byte_tokenizer):
    with Model(new_model(tiny_config, seed=0).requires_grad_(False), byte_tokenizer, "tiny") as model:
        model.generate("a", max_tokens=1)
        assert "tiny" in repr(model) and "132,739 parameters" in repr(model)
    assert repr(model).endswith("closed>")
    for use in (model.generate, model.stream, model.score, model.embed, model.logits):
        with pytest.raises(bluejay.ModelClosedError, match="the model tiny is closed; load it again"):
            use("a")


def test_a_call_during_which_another_thread_closes_the_model_says_so(tiny_config, byte_tokenizer):
    model = Model(new_model(tiny_config, seed=0).requires_grad_(False), byte_tokenizer, "tiny")
    began = model._resident
    model.close()
    for go_on in (lambda: began.engine([8]), lambda: model.is_native, lambda: model.backend(1, 8), model.lens):
        with pytest.raises(bluejay.ModelClosedError, match="the model tiny is closed; load it again"):
            go_on()


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_model_that_is_copied_or_pickled_says_what_to_do(tiny_model, send):
    with pytest.raises(TypeError, match=r"^the model tiny cannot be copied or pickled; call bluejay\.load in each"):
        send(tiny_model)
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        send([tiny_model.ascore, {"model": tiny_model}] if send is pickle.dumps else tiny_model)


def test_weights_that_are_no_numbers_are_named(byte_tokenizer):
    gpt = new_model(GPTConfig(n_layer=1, d_model=32, n_head=2, vocab_size=259, n_ctx=32), seed=0).requires_grad_(False)
    gpt.blocks[0].mlp.up.weight[0, 0] = torch.nan
    model = Model(gpt, byte_tokenizer)
    for use in (model.generate, model.score, model.embed, model.logits):
        with pytest.raises(bluejay.LogitsError, match=r"because its blocks\.0\.mlp\.up\.weight holds NaN"):
            use("ab")
    gpt.blocks[0].mlp.up.weight[0, 0] = 0.0
    with pytest.raises(bluejay.LogitsError):  # the engine's form of the weights was made before
        model.generate("ab")


def test_a_text_whose_logits_are_no_numbers_spoils_no_later_one(model):
    gpt = copy.deepcopy(model.gpt)
    gpt.embed.weight[5] = torch.inf
    broken = Model(gpt, model.tokenizer)
    expected = broken.score([7] * 10)
    for use in (broken.score, broken.embed, broken.logits):
        with pytest.raises(bluejay.LogitsError, match=r"embed\.weight holds infinity"):
            use([5] * 30)
        assert broken.score([7] * 10) == expected


def test_the_package_lists_and_types_what_it_offers():
    assert {"load", "Model", "SamplingParams", "PromptError"} <= set(dir(bluejay))
    assert bluejay.__doc__ and all(getattr(bluejay, name) for name in bluejay.__all__ if name not in ("build", "train"))
