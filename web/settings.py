"""Every setting, with its default. Read from `LEEWAY_*` variables, by entry points and `web/compose.py` alone."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker.errors import InvalidInput, SetupError
from broker.units import duration


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "leeway"


def _from_text(value: object) -> object:
    """Plain seconds, or as workloads say it (`15 min`); what is neither may be ISO 8601."""
    if not isinstance(value, str):
        return value
    if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return timedelta(seconds=float(value))
    try:
        return duration(value, field="duration")
    except InvalidInput:
        return value


def _not_negative(value: timedelta) -> timedelta:
    if value < timedelta(0):
        raise ValueError("must not be negative")
    return value


Duration = Annotated[timedelta, BeforeValidator(_from_text), AfterValidator(_not_negative)]


class Settings(BaseSettings):
    """Times are durations (`15 min`, ISO 8601's PT15M) or seconds."""

    model_config = SettingsConfigDict(env_prefix="LEEWAY_", extra="forbid", frozen=True, hide_input_in_errors=True)

    data_dir: Path = Field(default_factory=_default_data_dir, description="Where the database, keys and token lie.")
    database_url: SecretStr | None = Field(None, description="External PostgreSQL; the embedded one where not set.")
    migration_database_url: SecretStr | None = Field(None, description="The same, as the owner of the tables.")
    secret_key: SecretStr | None = Field(None, description="Key of the vault; else the file `key` in the data dir.")
    host: str = Field("127.0.0.1", description="Where `leeway serve` listens; loopback only until login exists.")
    port: int = Field(8642, ge=0, le=65535, description="Its port; 0 takes a free one.")
    workers: int = Field(8, ge=1, le=64, description="Leases worked on at once by one process.")
    sweep_interval: Duration = Field(timedelta(seconds=2), description="How often due leases are looked for.")
    listing_interval: Duration = Field(timedelta(minutes=2), description="How often each site is listed.")
    full_listing_interval: Duration = Field(
        timedelta(minutes=30),
        description="How often all of a site is listed, where it can tell what changed meanwhile.",
    )
    catalogue_interval: Duration = Field(timedelta(hours=6), description="How often offers and images are read.")
    listing_timeout: Duration = Field(timedelta(minutes=5), description="Total time of one listing.")
    call_timeout: Duration = Field(timedelta(seconds=60), description="Total time of one conversation with a site.")
    claim_time: Duration = Field(timedelta(seconds=150), description="How long a worker's claim stands.")
    first_look: Duration = Field(
        timedelta(seconds=1), description="First wait before an unfinished lease is seen again."
    )
    last_look: Duration = Field(timedelta(minutes=5), description="Longest wait between two looks at a failing lease.")
    settle_time: Duration | None = Field(None, description="Overrides what the adapters say; tests only.")
    quote_lifetime: Duration = Field(timedelta(hours=1), description="How long a quote's prices are promised.")
    stop_delay: Duration = Field(timedelta(minutes=15), description="How long a machine is kept, off, after its end.")
    snapshot_time: Duration = Field(
        timedelta(hours=2), ge=timedelta(0), description="How long a site may take for the snapshot of a disk."
    )
    hold_window: Duration = Field(
        timedelta(days=7), gt=timedelta(0), description="Longest time that one hold pays for; it is extended in time."
    )
    idle_after: Duration = Field(timedelta(days=7), ge=timedelta(0), description="A machine stopped so long is idle.")
    orphan_after: Duration = Field(
        timedelta(days=7), ge=timedelta(0), description="A volume attached to nothing for so long is an orphan."
    )
    old_snapshot_after: Duration = Field(
        timedelta(days=90), ge=timedelta(0), description="The age at which a snapshot becomes a finding."
    )
    health_half_life: Duration = Field(
        timedelta(minutes=10), gt=timedelta(0), description="After this a site's failure counts half as much."
    )
    smtp_url: SecretStr | None = Field(None, description="The mail server; files in the data dir where not set.")
    mail_from: str | None = Field(None, description="The address that messages come from; needed with a mail server.")
    mail_operator: str | None = Field(None, description="Who gets messages about projects without contacts.")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level that is logged.")

    @field_validator("claim_time")
    @classmethod
    def _outlives_a_call(cls, claim: timedelta, info: ValidationInfo) -> timedelta:
        """A claim goes on with every write, and between two writes there may be one conversation with a site."""
        call = info.data.get("call_timeout")
        if call is not None and claim <= call:
            raise ValueError("must be longer than LEEWAY_CALL_TIMEOUT, or two work on one machine while a site is slow")
        return claim

    @property
    def is_loopback(self) -> bool:
        """True where `host` can only be reached from this machine."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def token_file(self) -> Path:
        """Where `serve` keeps the token that its clients show."""
        return self.data_dir / "token"

    @property
    def address_file(self) -> Path:
        """Where `serve` writes its address, for commands of the same account."""
        return self.data_dir / "address"


def load_settings(**values: object) -> Settings:
    """The settings of this process; `values` win over the environment.

    Raises:
        SetupError: names the variable, what is wrong with it, and nothing of its value.
    """
    known = {f"LEEWAY_{name.upper()}" for name in Settings.model_fields} | {"LEEWAY_URL", "LEEWAY_TOKEN"}
    strange = sorted(name for name in os.environ if name.startswith("LEEWAY_") and name not in known)
    ours = [name for name in strange if not name.startswith(("LEEWAY_TEST_", "LEEWAY_PEERS_"))]
    if ours:
        raise SetupError(f"there is no setting {ours[0]}", hint="See docs/reference/settings.md for those there are.")
    if os.environ.get("LEEWAY_DATA_DIR") == "":  # which would be the directory one happens to be in
        raise SetupError("LEEWAY_DATA_DIR is empty", hint="Name a directory, or unset it for the default.")
    try:
        return Settings(**values)  # type: ignore[arg-type] # pydantic checks them
    except ValidationError as error:
        first = error.errors()[0]
        name = f"LEEWAY_{'_'.join(str(part) for part in first['loc']).upper()}"
        is_duration = first["type"] in ("time_delta_parsing", "time_delta_type")
        why = (
            "is not a duration; write it like 15 min, PT15M or 900 (seconds)"
            if is_duration
            else first["msg"].removeprefix("Value error, ")
        )
        raise SetupError(f"{name}: {why}", hint="See docs/reference/settings.md.") from None
