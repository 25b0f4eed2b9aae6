"""Unexpected values in an annotation file, drawn by Hypothesis."""

from hypothesis import strategies as st

from tests.unit.bad_exports import VICTIM

NASTY = [
    *(
        "",
        " ",
        "nan",
        "-inf",
        "1e400",
        "-1e308",
        "0x10",
        "1_0",
        "\uff11\uff12",
        "9" * 5000,
        "-0.0",
        "1,5",
        "None",
    ),
    *("../../outside.jpg", "/etc/outside.jpg", "C:\\outside.jpg", "..", "a/b.jpg", "名前 の.jpg"),
    *("'", '"', '""', 'a"b', "a,b", "=1+1", "a\0b", "&amp;", "<x>", "\ufeff", "\u202e", "%s", "{}"),
    VICTIM.name,
]
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=12)
cells |= st.sampled_from(NASTY)
texts = st.text(max_size=12) | st.sampled_from([*NASTY, "\ud800", "a\nb", "a\r\nb", '"\n'])
values = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([10**400, 1e308]) | texts
trees = st.recursive(
    values,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
ENCODINGS = ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-32", "cp037"]


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """The content truncated, or with a few bytes replaced."""
    cut = st.integers(0, len(content)).map(lambda end: content[:end])
    places = st.tuples(st.integers(0, len(content)), st.integers(0, 8), st.binary(max_size=8))
    replaced = places.map(lambda p: content[: p[0]] + p[2] + content[p[0] + p[1] :])
    return cut | replaced
