"""Which template a conversation follows."""

from pathlib import Path

from rwkv_engine.errors import OptionError
from rwkv_engine.text.chat import TEMPLATES, Template, template_for, template_named


def find_template(vocab: int, inside: str | None = None, choice: str | None = None) -> Template:
    """The template of a model.

    vocab   the model's vocabulary size, which decides if nothing else does.
    inside  what a packed model brings: a template's name, or the text of a Jinja template.
    choice  over both: a template's name, or the path of a Jinja file.
    Raises  OptionError for a choice that is neither; MissingExtra for Jinja without jinja2.
    """
    if choice is not None:
        if choice in TEMPLATES or not Path(choice).is_file():
            return template_named(choice)
        from rwkv_engine.text.jinja_template import JinjaTemplate

        return JinjaTemplate.of_file(choice)
    if inside is None:
        return template_for(vocab)
    if inside not in TEMPLATES and "{" in inside:
        from rwkv_engine.text.jinja_template import JinjaTemplate

        return JinjaTemplate(inside, "inside the model")
    return template_named(inside)


def packable_template(choice: str) -> str:
    """What `find_template` takes as `inside` to give back the template that `choice` names. Raises as it does."""
    find_template(0, None, choice)
    if choice in TEMPLATES:
        return choice
    source = Path(choice).read_text(encoding="utf-8")
    if "{" not in source:
        raise OptionError(f"template {choice}: it has no Jinja expression, so every prompt would be the same")
    return source
