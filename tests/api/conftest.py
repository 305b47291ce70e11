"""The whole program but its threads: the real application over a real database and a real sandbox cloud.

Workers are called by the tests themselves, so that each test says when what happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from adapters.sandbox import SandboxCloud, running
from adapters.sandbox.config import Timing
from adapters.sandbox.profiles import aurora
from broker.database import Database
from tests.api.federation import RATES, Federation, list_site, site_document
from web import compose
from web.app import make_app
from web.compose import Services
from web.settings import load_settings


@pytest.fixture
def services(sessions: sessionmaker[Session], database: Database, tmp_path: Path) -> Iterator[Services]:
    """As `leeway serve` builds them. `sessions` cleans the database afterwards."""
    assert sessions
    quick = {"settle_time": 0.3, "first_look": 0.01, "last_look": 0.2, "call_timeout": 5}
    settings = load_settings(data_dir=tmp_path, full_listing_interval=0, **quick)
    with compose.services(settings, replace(database, is_embedded=False)) as made:
        yield made


@pytest.fixture
def anonymous(services: Services) -> Iterator[TestClient]:
    """A client without the token."""
    with TestClient(make_app(services), "http://127.0.0.1:8642") as client:
        yield client


@pytest.fixture
def client(anonymous: TestClient, services: Services) -> TestClient:
    """A client with the token."""
    anonymous.headers["Authorization"] = f"Bearer {services.settings.token_file.read_text().strip()}"
    return anonymous


@pytest.fixture
def cloud() -> Iterator[SandboxCloud]:
    """A cloud whose machines do everything at once."""
    with running(replace(aurora(), timing=Timing(), foreign_servers=0)) as made:
        yield made


@pytest.fixture
def federation(client: TestClient, services: Services, cloud: SandboxCloud) -> Federation:
    """Ready to order from."""

    def make(path: str, document: dict[str, Any]) -> dict[str, Any]:
        answer = client.post(f"/api/v1/{path}", json=document)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    site = make("sites", site_document(cloud))
    make("rate-cards", {"document": RATES, "format": "yaml"})
    make("projects", {"name": "climate", "institution": {"name": "home", "jurisdiction": "EE"}})
    grant = {"project": "climate", "name": "first", "amount": "100 EUR"}
    make("grants", grant | {"starts_at": "2020-01-01T00:00:00Z", "ends_at": "2100-01-01T00:00:00Z"})
    list_site(services, UUID(site["id"]))
    return Federation(client, services, cloud)
