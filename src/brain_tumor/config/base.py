"""The base class of all schemas, JSON serialization, and one-sentence error messages for invalid values."""

import json
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from brain_tumor.runtime.errors import InputError

T = TypeVar("T", bound="Schema")

# The maximum number of problems in one message.
LISTED_PROBLEMS = 3
LONGEST_VALUE = 80
EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list such as [a, b]",
    "dict_type": "keys with values, such as {a: 1}",
    "model_type": "keys with values, such as {a: 1}",
    "model_attributes_type": "keys with values, such as {a: 1}",
}
LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "greater_than": ("a number above", "gt"),
    "less_than": ("a number below", "lt"),
    "multiple_of": ("a multiple of", "multiple_of"),
}


class Schema(BaseModel):
    """An immutable group of validated values.

    Unknown keys, wrong types and numbers out of range are rejected. The docstring below an attribute
    describes it.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        hide_input_in_errors=True,
    )


def to_json(config: Schema) -> str:
    """The values that differ from the schema's defaults, as canonical JSON: equal configs give equal strings.

    Keys are sorted. The spaces after commas and colons let the dashboard wrap the line.
    """
    return json.dumps(config.model_dump(mode="json", exclude_defaults=True), sort_keys=True, allow_nan=False)


def from_json(schema: type[T], text: str | bytes, name: str) -> T:
    """Parses JSON that `to_json` wrote.

    Args:
        schema: The schema of the result.
        text: JSON.
        name: The config's name in error messages, such as `records`.

    Raises:
        InputError: The text is not a JSON object, or not valid for the schema. The message names the keys.
    """
    try:
        return schema.model_validate_json(text)
    except ValidationError as error:
        raise InputError(explain(error, schema, name)) from None


def explain(error: ValidationError, schema: type[Schema], name: str = "") -> str:
    """The first problems that a validation found, one sentence per problem.

    Args:
        error: pydantic's error.
        schema: The validated schema.
        name: The prefix of each key.
    """
    problems = list(dict.fromkeys(_explain_one(dict(each), schema, name) for each in error.errors()))
    more = len(problems) - LISTED_PROBLEMS
    return " ".join(problems[:LISTED_PROBLEMS]) + (f" (and {more} more)" if more > 0 else "")


def _explain_one(problem: dict[str, Any], schema: type[Schema], name: str) -> str:
    kind, context, place = problem["type"], problem.get("ctx", {}), problem["loc"]
    keys, known_keys = _follow(schema, place)
    key = ".".join([name, *keys] if name else keys) or "The configuration"
    parent = ".".join(key.split(".")[:-1]) or "The configuration"
    value = _shown(problem.get("input"))
    if kind == "missing":
        return f"{key} is not set; give it as {key}=VALUE."
    if kind == "extra_forbidden":
        return f"{parent} has no {keys[-1]!r}; it has {', '.join(sorted(known_keys))}."
    if kind == "union_tag_not_found":
        return f"{key}.{_unquoted(context['discriminator'])} is not set."
    if kind == "union_tag_invalid":
        tag, known = context["tag"], _unquoted(context["expected_tags"])
        return f"{key}.{_unquoted(context['discriminator'])} is {tag!r}; give one of {known}."
    if kind == "literal_error":
        return f"{key} is {value}; give one of {_unquoted(context['expected'])}."
    if kind in LIMITS:
        words, limit = LIMITS[kind]
        return f"{key} is {value}; give {words} {context[limit]:.10g}."
    if kind in EXPECTED:
        return f"{key} is {value}; give {EXPECTED[kind]}."
    if kind == "value_error":
        return f"{key} {context['error']}."
    return f"{key} is not usable: {problem['msg']}."


def _follow(schema: type[Schema], place: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """The keys that lead to a location, and the names of the fields next to the last one.

    In a location pydantic includes the tag of a union of schemas, which is not a key of the user's input.
    """
    keys: list[str] = []
    siblings: list[str] = []
    here: Any = schema
    for part in place:
        tagged = [kind for kind in get_args(here) if _is_schema(kind) and part in _tags(kind)]
        if tagged:
            here = tagged[0]
            continue
        keys.append(str(part))
        siblings = []
        if _is_schema(here):
            siblings = list(here.model_fields)
            here = here.model_fields[str(part)].annotation if part in here.model_fields else None
        else:
            here = get_args(here)[-1] if get_args(here) else None  # a list's item or a mapping's value
    return keys, siblings


def _is_schema(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Schema)


def _tags(kind: type[Schema]) -> list[Any]:
    fields = kind.model_fields.values()
    return [
        tag
        for field in fields
        if get_origin(field.annotation) is Literal
        for tag in get_args(field.annotation)
    ]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str) if not isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _unquoted(words: Any) -> str:
    return str(words).replace("'", "").replace(" or ", ", ")
