"""The page of the sandbox names what there is to configure, to switch on and to ask for."""

import dataclasses
import json
from pathlib import Path

import pytest

from adapters.sandbox.config import CloudConfig, ServerFence, from_document
from adapters.sandbox.control import TABLE
from adapters.sandbox.faults import Fault, FaultKind
from tests.unit.sandbox.test_config import MINIMAL

PAGE = (Path(__file__).parents[3] / "docs/reference/sandbox.md").read_text(encoding="utf-8")
WORDS = [
    *(field.name for field in dataclasses.fields(CloudConfig)),
    *(field.name for field in dataclasses.fields(Fault)),
    *FaultKind,
    *ServerFence,
]


@pytest.mark.parametrize("word", sorted(set(WORDS)))
def test_every_word_stands_on_the_page(word: str) -> None:
    assert f"`{word}`" in PAGE


@pytest.mark.parametrize("path", sorted(TABLE))
def test_every_address_of_the_other_side_stands_on_the_page(path: str) -> None:
    assert path.removesuffix("/{id}") in PAGE


def test_the_example_is_a_configuration() -> None:
    text = PAGE[PAGE.index('"seed": 7') :].partition("\n\n")[0]
    assert len(from_document(MINIMAL | json.loads("{" + text + "}")).faults) == 5
