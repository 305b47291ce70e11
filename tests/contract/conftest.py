"""Every test of this folder runs once per line of `ADAPTERS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from broker.ports import CloudAdapter
from tests.contract.sites import ADAPTERS, ContractSite


@pytest.fixture(scope="module", params=sorted(ADAPTERS))
def fresh_site(request: pytest.FixtureRequest) -> Iterator[Callable[[], ContractSite]]:
    with ADAPTERS[request.param]() as fresh:
        yield fresh


@pytest.fixture
def site(fresh_site: Callable[[], ContractSite]) -> ContractSite:
    """A cloud as just started, without trouble."""
    return fresh_site()


@pytest.fixture
def adapter(site: ContractSite) -> CloudAdapter:
    return site.adapter
