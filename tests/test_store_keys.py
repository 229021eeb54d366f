"""Keys: the same JSON gives the same key, any other JSON gives another one."""

from __future__ import annotations

import itertools
import math
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotest.errors import UsageError
from emotest.store import Key, identity_differences, key_of
from emotest.store.keys import ABSENT

untimed = settings(deadline=None)  # the machine may be busy
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
names = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda name: name != "title")
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=8,
)
identities = st.dictionaries(names, values, max_size=4)

LOOKALIKES: list[Any] = [
    None, False, True, 0, 1, 0.0, -0.0, 1.0, "", "0", "1", "null", "é", "e\u0301",
    [], {}, [[]], [None], [0], ["0"], {"a": 0}, {"a": None}, {"a": 0, "b": 0}, [{"a": 0}],
]  # fmt: skip


def same_json(ours: Any, theirs: Any) -> bool:
    """Equality as JSON sees it: types count, the sign of zero counts, the order of keys does not.

    Python's own `==` would say that 1, 1.0 and True are one value.
    """
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same_json(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same_json, ours, theirs))
    if isinstance(ours, float):
        return ours == theirs and math.copysign(1, ours) == math.copysign(1, theirs)
    return bool(ours == theirs)


@untimed
@given(identities, identities)
def test_two_identities_share_a_key_only_if_they_are_the_same_json(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    """Nothing made for one identity is ever found under another."""
    assert (key_of("adapter", ours) == key_of("adapter", theirs)) == same_json(ours, theirs)


def test_values_that_look_alike_have_keys_of_their_own() -> None:
    """1, 1.0, true and "1" differ, and so do empty things and the two zeros."""
    keys = [key_of("adapter", {"x": value}) for value in LOOKALIKES]
    for (i, ours), (j, theirs) in itertools.combinations(enumerate(keys), 2):
        assert ours != theirs, (LOOKALIKES[i], LOOKALIKES[j])


@untimed
@given(identities, st.randoms())
def test_the_order_of_keys_does_not_matter(identity: dict[str, Any], random: Any) -> None:
    """Shuffling the fields at every level leaves the key alone."""

    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(name, shuffled(part)) for name, part in value.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(part) for part in value] if isinstance(value, list) else value

    assert key_of("adapter", shuffled(identity)) == key_of("adapter", identity)


def test_the_digest_is_sha256_over_kind_and_canonical_json() -> None:
    """Any other program can compute the address of an entry."""
    # printf 'adapter\n{"a":[true,null,0.1,"é"],"b":1}' | sha256sum   (coreutils 9.1)
    expected = "a9f24aa62d6b2d3323dee5dae0aeca2760f9cf9a44462bb7a61b3de3893f9076"
    assert key_of("adapter", {"b": 1, "a": (True, None, 0.1, "é")}).digest == expected


def test_the_kind_is_part_of_the_hash() -> None:
    """The same identity has different digests as different kinds of things."""
    assert key_of("adapter", {}).digest != key_of("generations", {}).digest


def test_the_title_is_for_people_and_not_hashed() -> None:
    """A top-level title changes nothing; one further down is a value like any other."""
    assert key_of("adapter", {"x": 1, "title": "extraversion, seed 0"}) == key_of(
        "adapter", {"x": 1}
    )
    assert key_of("adapter", {"x": {"title": "a"}}) != key_of("adapter", {"x": {"title": "b"}})


def test_subclasses_of_plain_types_count_as_those() -> None:
    """Enums of text, numpy's float64, tuples and read-only mappings hash as what they stand for."""

    class Pole(StrEnum):
        HIGH = "high"

    rich = {"pole": Pole.HIGH, "rate": np.float64(0.1), "shape": (1, 2), "m": MappingProxyType({})}
    plain = {"pole": "high", "rate": 0.1, "shape": [1, 2], "m": {}}
    assert key_of("adapter", rich) == key_of("adapter", plain)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (math.nan, "nan"),
        (math.inf, "inf"),
        (np.float32(1), "numpy.float32"),
        (np.zeros(2), "numpy.ndarray"),
        ({1: "x"}, "key 1"),
        (b"bytes", "bytes"),
        ({"a"}, "set"),
        (Path("x"), "Path"),
        ("\ud83d", "surrogate"),
        ({"\ud83d": 1}, "surrogate"),
    ],
)
def test_what_has_no_single_json_form_is_refused(value: object, complaint: str) -> None:
    """The error names the place in the identity and what stands there."""
    with pytest.raises(UsageError, match=complaint) as caught:
        key_of("adapter", {"deep": [0, value]})
    assert "identity.deep[1]" in caught.value.cause


def test_two_halves_of_an_emoji_are_not_the_emoji() -> None:
    """Escaped JSON spells both alike, so half characters are refused rather than confused."""
    with pytest.raises(UsageError, match="half a character"):
        key_of("adapter", {"x": "\ud83d\ude00"})
    assert key_of("adapter", {"x": "\U0001f600"})


@pytest.mark.parametrize("kind", ["", "Adapter", "a/b", "..", "a.b", "ä", "a" * 41, "1a", "a\n"])
def test_a_kind_that_is_no_plain_word_is_refused(kind: str) -> None:
    """Kinds become folders, so nothing that could leave the store is one."""
    with pytest.raises(UsageError, match="kind"):
        key_of(kind, {})


@pytest.mark.parametrize("digest", ["", "..", "A" * 64, "0" * 63, "0" * 65, "../" + "0" * 61])
def test_a_digest_that_is_no_digest_is_refused(digest: str) -> None:
    """Digests become folders, so nothing but 64 hex digits is one."""
    with pytest.raises(UsageError, match="digest"):
        Key("adapter", digest)


def test_a_key_shows_its_kind_and_the_first_16_digits() -> None:
    """Short enough for a table, long enough to be found again."""
    assert str(Key("adapter", "0123456789abcdef" + "0" * 48)) == "adapter/0123456789abcdef"


def test_differences_name_every_place_where_two_identities_part() -> None:
    """Two keys that should have been one are explained by their identities."""
    ours = {"rank": 16, "modules": ["q", "v"], "base": {"id": "m", "dtype": "f32"}, "title": "a"}
    theirs = {"rank": 16.0, "modules": ["q"], "base": {"id": "m"}, "seed": 0, "title": "b"}
    found = {str(d.place): (d.ours, d.theirs) for d in identity_differences(ours, theirs)}
    assert found == {
        "rank": (16, 16.0),
        "modules[1]": ("v", ABSENT),
        "base.dtype": ("f32", ABSENT),
        "seed": (ABSENT, 0),
    }
    texts = [str(difference) for difference in identity_differences(ours, theirs)]
    assert "modules[1]: 'v' -> (absent)" in texts


@untimed
@given(identities, identities)
def test_there_are_differences_exactly_where_keys_differ(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    """A difference in the key is always explained, and nothing else is."""
    assert bool(identity_differences(ours, theirs)) == (
        key_of("adapter", ours) != key_of("adapter", theirs)
    )
