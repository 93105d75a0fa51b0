"""Finding a conversation's template."""

import contextlib
import json
from pathlib import Path

from rwkv_engine.errors import MissingExtra, OptionError
from rwkv_engine.system.files import expanded
from rwkv_engine.text.chat import TEMPLATES, Template, template_for, template_named
from rwkv_engine.text.companions import Source, read_text, template_beside


def find_template(
    vocab: int, inside: str | None = None, choice: str | None = None, folder: Path | None = None
) -> Template:
    """The template of a model: the chosen one, else the packed file's, else the one in its Hugging Face
    folder.

    vocab   the model's vocabulary size, which decides if nothing else does.
    inside  what a packed file holds: a template's name, or the text of a Jinja template.
    choice  overrides all: a template's name, or the path of a Jinja file.
    folder  folder of the model's files: chat_template.jinja, or tokenizer_config.json with a "chat_template".
    Raises  OptionError for a choice that is neither; CheckpointError for a damaged file in the folder;
            MissingExtra for Jinja without jinja2.
    """
    if choice is not None and (choice in TEMPLATES or not _is_file(choice)):
        return template_named(choice)
    if choice is not None:
        from rwkv_engine.text.jinja_template import JinjaTemplate

        return JinjaTemplate.of_file(expanded(choice))
    if inside is not None and inside not in TEMPLATES and "{" in inside:
        from rwkv_engine.text.jinja_template import JinjaTemplate

        return JinjaTemplate(inside, "inside the model")
    if inside is not None:
        return template_named(inside)
    found = template_beside(folder) if folder else None
    return _of_source(found) if found else template_for(vocab)


def packable_template(choice: str | None, vocab: int = 0, folder: Path | None = None) -> str:
    """The value that `find_template` takes as `inside` to return the same template. Raises as it does."""
    found = template_beside(folder) if folder and choice is None else None
    if found is not None:
        with contextlib.suppress(MissingExtra):  # then it is looked at when it is used
            _of_source(found)
        # the packed text must hold these two tokens itself
        known = {"bos_token": found.bos, "eos_token": found.eos}
        texts = {name: json.dumps(text, ensure_ascii=False) for name, text in known.items()}
        return "".join(f"{{%- set {name} = {text} -%}}" for name, text in texts.items()) + found.text
    form = find_template(vocab, None, choice)
    if choice is None or choice in TEMPLATES:
        return form.name
    source = read_text(expanded(choice), "template")
    if "{" not in source:
        raise OptionError(f"template {choice}: it has no Jinja expression, so every prompt would be the same")
    return source


def _of_source(source: Source) -> Template:
    """The template of a Hugging Face folder. Raises OptionError, MissingExtra."""
    try:
        from rwkv_engine.text.jinja_template import JinjaTemplate

        return JinjaTemplate(source.text, source.name, source.bos, source.eos)
    except MissingExtra as error:
        raise MissingExtra(f"{source.name}: {error}, or choose another template") from None


def _is_file(choice: str) -> bool:
    try:
        return expanded(choice).is_file()
    except (OSError, ValueError):  # too long for a path, or with a zero byte
        return False
