"""A chat template that asks for too much work or memory is refused."""

import time

import pytest

from bluejay import template_sandbox
from bluejay.chat_template import prompt_tokens
from tests.test_chat_template import CONVERSATION, new_tokenizer


@pytest.mark.parametrize(
    "template",
    [
        "{{ 9**9**9 }}",
        "{{ 'a' * 10000000000 }}",
        "{{ 10000000000 * [0] }}",
        "{{ 'a'.ljust(10000000000) }}",
        "{{ 'a' | center(10000000000) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ messages | tojson(indent=10000000000) }}",
        "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=1) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}",
        "{% set n = namespace(x=['a']) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set x = range(2000)|list * 20 %}{% for i in range(99999) %}{% if 'a' in x %}{% endif %}{% endfor %}",
        "{% macro f() %}{{ 'a' * 1000000 }}{% endmacro %}{% for i in range(99999) %}{{ f() }}{% endfor %}",
        "{{ '{:>1000000000}'.format('x') }}",
        "{{ ('{0:>9999}' * 20000).format('x') }}",
        "{% set a = 'a' * 200000 %}{{ a.replace('a', a) | length }}",
        "{% set a = 'a' * 200000 %}{{ a | replace('a', a) | length }}",
        "{% set a = 'a' * 200000 %}{{ a.join(a) | length }}",
        "{% set a = 'a' * 20000 %}{{ a.join(a | map('upper')) | length }}",
        "{% set a = 'a' * 20000 %}{{ a | map('upper') | join(a) | length }}",
        "{% set a = 'a' * 200000 %}{{ ('{0}' * 200000).format(a) | length }}",
        "{% set a = 'a' * 200000 %}{{ ('%(x)s' * 200000) % {'x': a} }}",
        "{% set a = 'a' * 200000 %}{{ ('%(x)s' * 200000) | format(x=a) }}",
        "{% set a = 'a' * 200000 %}{{ a.translate({97: a}) }}",
        "{% set a = ('a' * 200000).encode() %}{{ a.replace(a, a) }}",
        "{{ ('\\t' * 200000).expandtabs(200000) }}",
        "{{ ('\\n' * 200000) | indent(200000, true, true) }}",
        "{{ ([1] * 200000) | tojson(indent=200000) }}",
        "{% set n = namespace(x=[1] * 1000) %}{% for i in range(300) %}{% set n.x = [n.x] %}{% endfor %}"
        "{{ n.x | tojson(indent=300) | length }}",
        "{{ ('a' * 1000000) | list | sort | length }}",
        "{% for i in range(10000) %}{% if 'a'.center(10000000) %}{% endif %}{% endfor %}",
        "{{ ('a b ' * 400000) | urlize | length }}",
        "{% macro f(n) %}{% if n %}{% set x = f(n - 1) + f(n - 1) %}{% endif %}{% endmacro %}{{ f(99) }}",
    ],
)
def test_a_template_that_asks_for_too_much_is_refused_at_once(template):
    with pytest.raises(ValueError, match="rejects these messages: it asks for too much"):
        prompt_tokens(new_tokenizer(template), CONVERSATION)


@pytest.mark.parametrize(
    "work",
    [
        "x[1:]",
        "x | join",
        "x | tojson",
        "x | pprint",
        "x.count(-1)",
        "-1 is in x",
        "x is eq y",
        "x | select('in', y) | list",
        "s[1:]",
        "s.find('bb')",
        "s.split('b')",
        "s is lower",
    ],
)
def test_work_that_is_not_counted_ends_by_time(work, monkeypatch):
    monkeypatch.setattr(template_sandbox, "MAX_SECONDS", 0.02)
    template = (
        "{% set x = range(20000)|list %}{% set y = range(20000)|list %}{% set s = 'abcdefghijklmno' * 100000 %}"
        "{% for i in range(90000) %}{% if " + work + " %}{% endif %}{% endfor %}"
    )
    began = time.thread_time()
    with pytest.raises(ValueError, match="rejects these messages: it asks for too much"):
        prompt_tokens(new_tokenizer(template), CONVERSATION)
    assert time.thread_time() - began < 2
