"""JSON documents with some values changed, keys lost or added, or the text itself spoilt, for hypothesis."""

import json

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FUZZ = settings(
    max_examples=100, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 70), st.integers(), st.floats(), st.text(max_size=8),
        st.sampled_from([10**30, -1, 0, 1e308, "..", "/", "\0", "a:b", "os:x", "config.json", "é\ud800", "1"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def places(document):
    """(container, key) of every value in a document."""
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield document, key
        if isinstance(value, dict | list):
            yield from places(value)


@st.composite
def changed(draw, document):
    """The document with up to three changes."""
    found = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(0, 3))):
        if not found:
            break
        container, key = draw(st.sampled_from(list(places(found))))
        what = draw(st.sampled_from(["change", "change", "change", "lose", "add"]))
        if what == "lose":
            del container[key]
        elif what == "add" and isinstance(container, dict):
            container[draw(st.text(max_size=8))] = draw(VALUES)
        else:
            container[key] = draw(VALUES)
    return found


@st.composite
def spoilt(draw, document):
    """Its text, now and then cut or with other signs in between."""
    text = json.dumps(draw(changed(document)))
    if draw(st.integers(0, 9)) == 0:
        cut = draw(st.integers(0, len(text)))
        text = text[:cut] + draw(st.text(max_size=3)) + text[cut + draw(st.integers(0, 3)) :]
    return text.encode(errors="surrogatepass")
