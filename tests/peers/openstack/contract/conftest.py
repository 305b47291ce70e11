"""The fixtures of `tests/contract/conftest.py` for the rig: each test has the project to itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.ports import CloudAdapter
from broker.remote import PartKind
from tests.contract.sites import ContractSite, Fresh
from tests.peers.openstack.contract.front import Front
from tests.peers.openstack.contract.hand import Hand
from tests.peers.openstack.contract.rig import Rig, StandingSite, cannot
from tests.peers.openstack.wire import running


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with running(Front) as front, pytest.MonkeyPatch.context() as patch:
        for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
            patch.delenv(name, raising=False)
        patch.setenv("http_proxy", front.url)
        made = Rig(front, Hand())
        yield made
        made.close()


@pytest.fixture(scope="module")
def fresh_site(rig: Rig) -> Fresh:
    def fresh(building: float) -> ContractSite:
        return cannot("build for a time of our choice") if building else rig.site()

    return fresh


@pytest.fixture
def site(fresh_site: Fresh) -> ContractSite:
    return fresh_site(0)


@pytest.fixture(scope="module")
def standing(rig: Rig) -> ContractSite:
    """One machine for all tests of a module that only look, or whose changes do not come through."""
    site = rig.site(StandingSite)
    site.launch()
    return site


@pytest.fixture
def adapter(site: ContractSite) -> CloudAdapter:
    return site.adapter


@pytest.fixture(params=(PartKind.KEY_PAIR, PartKind.PORT, PartKind.VOLUME, PartKind.SERVER, PartKind.ADDRESS))
def kind(request: pytest.FixtureRequest) -> PartKind:
    """Each kind of part that the site's plan has."""
    wanted: PartKind = request.param
    return wanted
