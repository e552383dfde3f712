"""The texts of a prompt: templates of Jinja that substitute variables and can do nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ownchat.errors import ConfigError

MOST_CHARS = 200_000  # of one rendered text
MOST_LEVELS = 40  # of its template
FILTERS = ("capitalize", "d", "default", "lower", "title", "trim", "upper")  # none makes a text much longer
TESTS = ("defined", "undefined")
ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Filter, nodes.If, nodes.CondExpr,
    nodes.Compare, nodes.Operand, nodes.Test, nodes.Not, nodes.And, nodes.Or,
)  # fmt: skip


def render(text: str, variables: Mapping[str, str], *, where: str = "prompt") -> str:
    """A template's text; raises :class:`~ownchat.errors.ConfigError` where it cannot be made.

    >>> render("For {{company | upper}}{% if city %} in {{city}}{% endif %}.", {"company": "Acme", "city": ""})
    'For ACME.'
    """
    if "{" not in text:
        return text
    check_template(text, where=where)
    try:
        rendered, chars = [], 0
        for piece in _environment().from_string(text).generate(dict(variables)):  # stops before memory is full
            rendered.append(piece)
            chars += len(piece)
            if chars > MOST_CHARS:
                break
    except UndefinedError as error:
        missing = sorted(used_variables(text, where=where) - set(variables))
        raise ConfigError(
            f"no value for {', '.join(missing)}", where=where,
            fix=f"--var {missing[0] if missing else 'NAME'}=VALUE, or a line under variables: in the prompt's file",
        ) from error  # fmt: skip
    except Exception as error:  # a filter that does not fit its value
        raise ConfigError(f"the text cannot be made: {error}", where=where) from error
    if chars > MOST_CHARS:
        raise ConfigError(f"the text has more than {MOST_CHARS:,} characters", where=where, fix="shorten it")
    return "".join(rendered)


def used_variables(text: str, *, where: str = "prompt") -> set[str]:
    """Names of the variables of a template.

    >>> sorted(used_variables("{{greeting}} from {{company}}"))
    ['company', 'greeting']
    """
    return meta.find_undeclared_variables(_tree(text, where))


def escape(text: str) -> str:
    """A template that renders to ``text``, whatever stands behind it: for texts from data and from models.

    >>> escape("a {{b}}"), render(escape("a {{b}} {% {#"), {})
    ("a {{ '{{' }}b}}", 'a {{b}} {% {#')
    """
    return re.sub(r"\{[{%#]|\{\Z", lambda match: f"{{{{ '{match[0]}' }}}}", text)


def check_template(text: str, *, where: str = "prompt") -> None:
    """Raise :class:`~ownchat.errors.ConfigError` for a template that does more than substitute.

    Loops, calls, arithmetic and attributes are refused before anything runs: so a text is made in one pass over its
    template, and no template sees more than the values of its variables.
    """
    waiting: list[nodes.Node] = [_tree(text, where)]
    while waiting:
        node = waiting.pop()
        refused = "" if isinstance(node, ALLOWED) else type(node).__name__.lower()
        if isinstance(node, nodes.Filter | nodes.Test):
            refused = "" if node.name in (FILTERS if isinstance(node, nodes.Filter) else TESTS) else f'"{node.name}"'
        if refused:
            raise ConfigError(
                f"line {node.lineno} of the text uses {refused}, which prompts cannot", where=where,
                fix=f"there are variables {{{{name}}}}, if, and the filters {', '.join(FILTERS)}",
            )  # fmt: skip
        waiting += node.iter_child_nodes()


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in FILTERS}
    return environment


def _tree(text: str, where: str) -> nodes.Template:
    """The parsed template: of few levels, since Jinja's time for a text grows with their third power."""
    nested = ConfigError("the text is nested too deeply", where=where, fix=f"{MOST_LEVELS} levels at most")
    try:
        tree = _environment().parse(text)
    except TemplateSyntaxError as error:
        raise ConfigError(
            f"line {error.lineno} of the text cannot be read: {error.message}", where=where,
            fix="a variable is {{name}}; write {{ '{{' }} for two braces that are none",
        ) from error  # fmt: skip
    except RecursionError as error:
        raise nested from error
    level: list[nodes.Node] = [tree]
    for _ in range(MOST_LEVELS):
        level = [child for node in level for child in node.iter_child_nodes()]
    if level:
        raise nested
    return tree
