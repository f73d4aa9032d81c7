"""What strangers put into a frame: nonsense, JSON that is no packet, packets half right."""

import json
from collections.abc import Collection

from hypothesis import strategies as st


def frames(commands: Collection[str], keys: Collection[str]) -> st.SearchStrategy[bytes]:
    """Yield frames, among them objects with a `cmd` of `commands` and values for `keys`."""
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
    command = st.sampled_from(sorted(commands))
    objects = st.fixed_dictionaries(
        {}, optional={"cmd": command | values, **dict.fromkeys(sorted(keys), values)}
    )
    text = (objects | values).map(lambda value: json.dumps(value).encode())
    return text | st.binary() | st.tuples(text, st.binary(max_size=4)).map(b"".join)
