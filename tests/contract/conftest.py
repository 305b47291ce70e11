"""Every test of this folder runs once per line of `ADAPTERS`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.ports import CloudAdapter
from broker.remote import PartKind
from tests.contract.sites import ADAPTERS, ContractSite, Fresh


@pytest.fixture(scope="module", params=sorted(ADAPTERS))
def fresh_site(request: pytest.FixtureRequest) -> Iterator[Fresh]:
    with ADAPTERS[request.param]() as fresh:
        yield fresh


@pytest.fixture
def site(fresh_site: Fresh) -> ContractSite:
    """A cloud as just started, without trouble, whose machines run at once."""
    return fresh_site(0)


@pytest.fixture
def adapter(site: ContractSite) -> CloudAdapter:
    return site.adapter


# No plan has a snapshot: it is made long after the machine.
@pytest.fixture(params=(PartKind.KEY_PAIR, PartKind.PORT, PartKind.VOLUME, PartKind.SERVER, PartKind.ADDRESS))
def kind(request: pytest.FixtureRequest, site: ContractSite) -> PartKind:
    """Each kind of part that the site's plan has."""
    wanted: PartKind = request.param
    if wanted not in site.fences:
        pytest.skip("not in the plan")
    return wanted
