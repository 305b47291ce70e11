"""Names and tags: what we write we read, and nothing else is ours."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.cloud import (
    lease_in,
    part_name,
    tags_as_metadata,
    tags_as_text,
    tags_in_metadata,
    tags_in_text,
    utc,
)
from broker.remote import Tags

# Below 1000 the year is not written with four digits everywhere; nobody's machine ends there.
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants naive bounds
PROJECTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
TAGS = st.builds(Tags, st.uuids(), st.uuids(), st.uuids(), PROJECTS, TIMES)
SHORT = st.builds(Tags, st.uuids(), st.uuids(), st.uuids(), st.text(max_size=6), TIMES)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(SHORT)
def test_tags_come_back_from_metadata(tags: Tags) -> None:
    assert tags_in_metadata(tags_as_metadata(tags)) == tags


@given(SHORT, st.sampled_from(["", "alice@laptop ", "a leeway:lease=none "]))
def test_tags_come_back_from_a_text_that_may_begin_otherwise(tags: Tags, before: str) -> None:
    assert tags_in_text(before + tags_as_text(tags)) == tags


@given(TAGS)
def test_they_fit_and_are_plain_ascii_however_long_the_project(tags: Tags) -> None:
    text = tags_as_text(tags)
    assert len(text) <= 255
    assert text.isascii()
    assert text.isprintable()
    read = tags_in_text(text)
    assert read is not None
    assert tags.project.startswith(read.project)
    assert (read.lease, read.attempt, read.installation, read.until) == (
        tags.lease,
        tags.attempt,
        tags.installation,
        tags.until,
    )
    for key, value in tags_as_metadata(tags).items():
        assert len(key) <= 255
        assert len(value) <= 255
        assert value.isascii()


@given(JSON)
def test_what_is_not_ours_has_no_tags_and_breaks_nothing(anything: Any) -> None:
    assert tags_in_metadata(anything) is None
    assert tags_in_text(anything) is None
    assert utc(anything) is None or isinstance(anything, str)


@given(SHORT, st.data())
def test_broken_tags_are_no_tags_or_the_same(tags: Tags, data: st.DataObject) -> None:
    metadata = tags_as_metadata(tags)
    key = data.draw(st.sampled_from(sorted(metadata)))
    metadata[key] = data.draw(st.text(max_size=40))
    read = tags_in_metadata(metadata)
    assert read is None or isinstance(read, Tags)
    del metadata[key]
    assert tags_in_metadata(metadata) is None


@given(SHORT, st.integers(min_value=1, max_value=100))
def test_a_cut_text_is_not_ours(tags: Tags, cut: int) -> None:
    assert tags_in_text(tags_as_text(tags)[:-cut]) is None


@pytest.mark.parametrize(
    "until", ["2026-11-21T08:00:00", "tomorrow", "", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]
)
def test_an_end_without_zone_or_beyond_the_calendar_is_broken(until: str) -> None:
    tags = Tags(uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), "p", datetime.now(UTC))
    assert tags_in_metadata({**tags_as_metadata(tags), "leeway:until": until}) is None


@given(st.uuids())
def test_a_name_carries_its_lease(lease: uuid.UUID) -> None:
    assert lease_in(part_name(lease)) == lease
    assert lease_in(f"my-machine-{part_name(lease)}") == lease


@given(st.text())
@example("leeway-0123")
@example("leeway-" + "0" * 33)
@example("leeway-" + "0" * 32 + "\n")
def test_other_names_carry_none(name: str) -> None:
    assert lease_in(name) is None


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-21T08:44:22Z", datetime(2026, 11, 21, 8, 44, 22, tzinfo=UTC)),
        ("2026-11-21T08:44:22.235297", datetime(2026, 11, 21, 8, 44, 22, 235297, tzinfo=UTC)),
        ("2026-11-21T09:44:22+01:00", datetime(2026, 11, 21, 8, 44, 22, tzinfo=UTC)),
        ("", None),
        ("soon", None),
        ("0001-01-01T00:00:00+14:00", None),
        (None, None),
        (1763714662, None),
    ],
)
def test_times_are_utc_or_none(text: Any, moment: datetime | None) -> None:
    assert utc(text) == moment
