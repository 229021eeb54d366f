"""The published schema of `audit.json`: the code's own, and results keep to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from emotest.audit.result import pair_from, result_from, row, schema
from emotest.errors import DataError
from tests.audit_results import inside
from tests.audit_results import pairs as made_up_pairs
from tests.audit_results import result as made_up

SCHEMA = Path(__file__).parents[1] / "docs" / "schemas" / "audit.schema.json"


def test_the_published_schema_is_that_of_the_code() -> None:
    """docs/schemas/audit.schema.json, which others validate against."""
    assert json.loads(SCHEMA.read_text()) == schema()


def test_a_result_keeps_to_the_schema() -> None:
    """As written, and every pair beside it."""
    result, pairs = made_up(), made_up_pairs()
    Draft202012Validator.check_schema(schema())
    Draft202012Validator(schema()).validate(json.loads(json.dumps(row(result))))
    of_pair = {**schema(), **schema()["$defs"]["Pair"]}
    of_pair.pop("$ref", None)
    for pair in pairs:
        Draft202012Validator(of_pair).validate(json.loads(json.dumps(row(pair))))


@pytest.mark.parametrize(
    ("field", "value"),
    [("verdict", {"word": "fine"}), ("schema_version", "one"), ("measures", 3), ("surprise", 1)],
)
def test_another_form_is_refused_by_schema_and_reader(field: str, value: Any) -> None:
    """Both name the field."""
    document = json.loads(json.dumps(row(made_up()))) | {field: value}
    with pytest.raises(ValidationError):
        Draft202012Validator(schema()).validate(document)
    with pytest.raises(DataError, match=field):
        result_from(document, "audit.json")


def test_an_audit_that_was_written_before_there_was_a_look_inside_is_still_read() -> None:
    """A document without that part is one in which it was not asked for."""
    document = json.loads(json.dumps(row(made_up())))
    del document["inside"]
    Draft202012Validator(schema()).validate(document)
    assert result_from(document, "audit.json") == made_up()


def test_what_is_read_is_what_was_written() -> None:
    """Through JSON and back."""
    result, pairs = made_up(inside=inside()), made_up_pairs()
    Draft202012Validator(schema()).validate(json.loads(json.dumps(row(result))))
    assert result_from(json.loads(json.dumps(row(result))), "audit.json") == result
    first = replace(pairs[0], base=["\ud83d alone"])
    assert pair_from(json.loads(json.dumps(row(first))), "pairs.jsonl:1") == first
