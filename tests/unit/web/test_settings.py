"""Settings: durations in both spellings, and errors that name the variable and not its value."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.errors import SetupError
from web.settings import load_settings


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1", timedelta(seconds=1)),
        ("0.5", timedelta(seconds=0.5)),
        ("PT2M", timedelta(minutes=2)),
        ("P1D", timedelta(1)),
        ("15 min", timedelta(minutes=15)),
        ("1 day 12 h", timedelta(hours=36)),
    ],
)
def test_a_duration_is_seconds_or_iso_or_as_a_workload_says_it(
    monkeypatch: pytest.MonkeyPatch, text: str, meant: timedelta
) -> None:
    monkeypatch.setenv("LEEWAY_SWEEP_INTERVAL", text)
    assert load_settings().sweep_interval == meant


@pytest.mark.parametrize("text", ["-1", "-PT1H", "soon", "1 month", "", "nan"])
def test_another_spelling_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LEEWAY_SWEEP_INTERVAL", text)
    with pytest.raises(SetupError, match="LEEWAY_SWEEP_INTERVAL"):
        load_settings()


def test_a_secret_is_not_in_its_error_and_an_unknown_setting_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEEWAY_PORT", "hunter2")
    with pytest.raises(SetupError) as refused:
        load_settings()
    assert "hunter2" not in str(refused.value)
    monkeypatch.delenv("LEEWAY_PORT")
    monkeypatch.setenv("LEEWAY_PROT", "1")
    with pytest.raises(SetupError, match="LEEWAY_PROT"):
        load_settings()


def test_a_claim_outlives_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEEWAY_CALL_TIMEOUT", "300")  # longer than the claim's default
    with pytest.raises(SetupError, match=r"LEEWAY_CLAIM_TIME: .*longer than LEEWAY_CALL_TIMEOUT"):
        load_settings()
    monkeypatch.setenv("LEEWAY_CLAIM_TIME", "301")
    assert load_settings().claim_time == timedelta(seconds=301)
