"""The readers of texts: tokenizers, chat templates, JSON schemas and regular expressions; as `readers`."""

from pathlib import Path

from json_tokenizers import byte_level, sentencepiece

import rwkv_engine

from .mutate import other_json, other_text, text_of


def tokenizer(folder):
    from rwkv_engine.text.bpe import Json

    kinds = [byte_level(["<s>"], ["hello", "world"]), sentencepiece(["▁hello", "▁world"])]
    # vocabularies of a few tokens leave more of the changes to the rest
    kinds[1]["model"]["vocab"] = {
        k: v for k, v in kinds[1]["model"]["vocab"].items() if "0x" not in k or v < 20
    }

    def make(rng):
        return text_of(other_json(rng, rng.choice(kinds)))

    def read(content):
        made = Json.of_text(content, "case")
        ids = made.encode("hello w\u00f6rld <s>")
        made.decode(ids)
        decoder = made.decoder()
        for one in ids:
            decoder.push(one) if hasattr(decoder, "push") else None

    return make, read


def template(folder):
    from rwkv_engine.text.jinja_template import JinjaTemplate

    source = (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}<|im_start|>user\n{{ message['content'] | trim }}"
        "<|im_end|>\n{% else %}{{ message.content }}{% endif %}{% endfor %}{% set x = namespace(a=1) %}{% if add_generation_prompt %}A:{% endif %}"
    )
    pieces = ("{{", "}}", "{%", "%}", "{#", "#}", "| tojson", "for a in range(10**9)", "'a' * 10**9", "__class__", "raise_exception('x')",
              "loop", "recursive", "{% macro a(a, a) %}", "{% endmacro %}", "{% set True = 1 %}", "{% block a %}", "is", "not", "(", ")")  # fmt: skip

    def read(content):
        made = JinjaTemplate(content)
        made.asks("Hello", "off", None, True)
        made.keeps("Hello", "World", "System", False)

    return lambda rng: other_text(rng, source, pieces), read


def schema(folder):
    kinds = [
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}, "b": {"enum": ["x", 1]}}, "required": ["a"]},
        {"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}, "maxItems": 3}}, "$ref": "#/$defs/a"},
        {"anyOf": [{"type": "string", "pattern": "a+b", "maxLength": 5}, {"type": "number", "multipleOf": 0.5}], "additionalProperties": False},
        {"type": "string", "format": "date-time"},
    ]  # fmt: skip
    vocabulary = _bytes()

    def read(content):
        rwkv_engine.Constraint.json_schema(content).begin(vocabulary)

    return lambda rng: text_of(other_json(rng, rng.choice(kinds))), read


def regex(folder):
    kinds = ["[a-z]{1,5}(foo|bar)?", "\\d+\\.\\d*", "(a|b)*c", "(?i)x{2,9}[^\\n]", "\\p{L}+\\s\\w"]
    pieces = (
        "{1000}",
        "{9,999999}",
        "(",
        ")",
        "[",
        "]",
        "*",
        "+",
        "?",
        "|",
        "\\",
        "\\p{L}",
        "(?:",
        "(?=",
        "^",
        "$",
        "[^",
        "\\x",
        "&",
        "~",
    )
    vocabulary = _bytes()

    def read(content):
        rwkv_engine.Constraint.regex(content).begin(vocabulary)

    return lambda rng: other_text(rng, rng.choice(kinds), pieces), read


def _bytes():
    from rwkv_engine.text import find_tokenizer

    return find_tokenizer(256, Path(), "bytes")
