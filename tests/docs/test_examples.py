"""Examples are real: what a page calls a workload or a rate card passes the real parser."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from broker import ratecards, workloads
from tests.docs.pages import Block, blocks, pages, text_of

WORKLOADS = blocks("workload")
RATE_CARDS = blocks("rate-card")


def test_there_are_examples() -> None:
    assert {block.info[0] for block in WORKLOADS} == {"yaml", "json"}
    assert {block.info[0] for block in RATE_CARDS} == {"yaml", "csv"}


@pytest.mark.parametrize("block", WORKLOADS, ids=str)
def test_workloads_are_read_and_read_back(block: Block) -> None:
    workload = workloads.parse(block.text)
    assert workloads.parse(workloads.document(workload)) == workload


@pytest.mark.parametrize("block", RATE_CARDS, ids=str)
def test_rate_cards_are_read_and_read_back(block: Block) -> None:
    if block.info[0] == "csv":
        start = datetime(2026, 1, 1, tzinfo=UTC)
        card = ratecards.parse_csv(
            block.text, name="north", provider="north", currency="EUR", valid_from=start, bills="openstack"
        )
    else:
        card = ratecards.parse(block.text)
    assert ratecards.parse(card.document()) == card


def test_one_example_has_every_key_of_a_workload() -> None:
    fullest = max((workloads.document(workloads.parse(block.text)) for block in WORKLOADS), key=len)
    assert set(fullest) == set(workloads._Machine.model_fields)
    assert set(fullest["resources"]) == set(workloads._Resources.model_fields)  # type: ignore[call-overload] # a table
    assert set(fullest["requirements"]) == set(workloads._Requirements.model_fields)  # type: ignore[call-overload] # same


def test_documents_in_the_docs_are_marked_so_that_they_are_read() -> None:
    unmarked = [
        page.name
        for page in pages()
        for block in re.findall(r"^```(?:yaml|csv)\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
        if re.search(r"^(kind: (machine|rate-card)|sku,)", block, re.MULTILINE)
    ]
    assert unmarked == []
