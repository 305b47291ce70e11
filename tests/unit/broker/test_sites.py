"""Connecting sites: a wrong credential can be mended, and another site's name cannot be taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from adapters.sandbox.profiles import DEMO_PASSWORD, aurora, borealis
from broker.errors import Conflict, InvalidInput, SiteDenied
from broker.inventory import observe, take_turn
from broker.models.audit import Event
from broker.models.federation import Site
from broker.models.leases import LeaseState
from broker.ports import Powers
from broker.remote import Deadline, MachineSpec, PartKind, Secret, Tags
from broker.sites import NewSite, add_site, check_site, site_named
from broker.values import new_id
from tests.world import World, aurora_prices, make_world, quick


def described(world: World, name: str, *, password: str = DEMO_PASSWORD) -> NewSite:
    cloud = world.clouds[name]
    fields = {
        "username": "leeway",
        "password": password,
        "project_name": cloud.config.projects[0].name,
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }
    return NewSite(
        name=name,
        provider=name,
        adapter="sandbox",
        endpoint=cloud.auth_url,
        region=cloud.config.region,
        secret=Secret(fields),
        jurisdiction="EE",
    )


def add(world: World, new: NewSite) -> Site:
    with world.sessions.begin() as session:
        return add_site(session, new, world.doors, jobs=world.jobs, actor="tests")


def test_a_site_with_a_wrong_password_is_mended_by_adding_it_again(sessions: sessionmaker[Session]) -> None:
    with make_world(sessions, quick(aurora())) as world:
        site = add(world, described(world, "aurora", password="wrong"))
        turn = take_turn(world.tools, site.id)
        assert turn is not None
        with pytest.raises(SiteDenied):
            observe(world.tools, turn)

        assert add(world, described(world, "aurora")).id == site.id
        world.observe(site.id)
        check_site(world.tools, site.id)
        with world.sessions() as session:
            mended = site_named(session, "aurora")
            assert mended.trouble is None
            assert all(step["ok"] for step in mended.diagnosis)


def test_the_credential_of_a_site_that_is_used_can_be_replaced_and_its_machines_stay(world: World) -> None:
    order = world.order()
    (lease_id,) = world.leases(order)
    world.until_running(lease_id)

    add(world, described(world, "aurora"))

    world.observe(world.view(lease_id).lease.site_id)
    assert world.work(lease_id).lease.state is LeaseState.RUNNING


def test_the_name_of_a_site_that_is_used_cannot_be_taken(sessions: sessionmaker[Session]) -> None:
    with make_world(sessions, quick(aurora()), quick(borealis())) as world:
        site_id = world.connect(world.clouds["aurora"], prices=aurora_prices())
        other = replace(described(world, "borealis"), name="aurora")
        with pytest.raises(Conflict, match="already"):
            add(world, other)
        with world.sessions() as session:
            assert session.get_one(Site, site_id).endpoint == world.clouds["aurora"].auth_url


def test_what_cannot_be_used_leaves_the_former_credential(world: World) -> None:
    with pytest.raises(InvalidInput):
        add(world, replace(described(world, "aurora"), secret=Secret({"username": "leeway"})))
    with world.sessions() as session:
        site_id = site_named(session, "aurora").id
    world.observe(site_id)


# --- looked at, until somebody says broker ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adapter", "said", "observed"),
    [("openstack", None, True), ("openstack", False, False), ("sandbox", None, False), ("sandbox", True, True)],
)
def test_a_site_is_only_looked_at_until_somebody_says_broker(
    sessions: sessionmaker[Session], adapter: str, *, said: bool | None, observed: bool
) -> None:
    with make_world(sessions, quick(aurora())) as world:
        new = replace(described(world, "aurora"), adapter=adapter)
        assert add(world, replace(new, observe_only=said)).observe_only is observed
        assert add(world, new).observe_only is observed, "added again, it stays as it was"


def test_brokering_is_turned_on_and_off_and_that_is_written_down(sessions: sessionmaker[Session]) -> None:
    with make_world(sessions, quick(aurora())) as world:
        new = replace(described(world, "aurora"), adapter="openstack")
        uses = [add(world, replace(new, observe_only=said)).observe_only for said in (None, False, None, True)]
        assert uses == [True, False, False, True]
        with world.sessions() as session:
            texts = list(session.scalars(select(Event.text).where(Event.kind == "site").order_by(Event.at)))
    assert texts == [
        "site aurora connected; Leeway only observes it",
        "site aurora has a new credential; machines may be started there",
        "site aurora has a new credential",
        "site aurora has a new credential; Leeway only observes it",
    ]


def test_a_sandbox_that_becomes_a_real_cloud_is_not_brokered_by_accident(sessions: sessionmaker[Session]) -> None:
    with make_world(sessions, quick(aurora())) as world:
        assert not add(world, described(world, "aurora")).observe_only
        assert add(world, replace(described(world, "aurora"), adapter="openstack")).observe_only


def test_the_check_compares_the_roles_with_the_use(sessions: sessionmaker[Session]) -> None:
    with make_world(sessions, quick(aurora())) as world:
        for observed, hint in ((True, "More than is needed: member"), (False, None)):
            site = add(world, replace(described(world, "aurora"), observe_only=observed))
            check_site(world.tools, site.id)
            with world.sessions() as session:
                steps = site_named(session, "aurora").diagnosis
            assert all(step["ok"] for step in steps)
            (found,) = [step["hint"] for step in steps if step["step"] == "project"]
            assert (hint in found) if hint else found is None


def test_nothing_is_ever_sent_to_an_observed_site_that_would_change_it(world: World) -> None:
    """Whatever asks for it: the last word is at the wire."""
    (lease_id,) = world.leases(world.order())
    lease = world.until_running(lease_id).lease
    before = len(world.cloud.log.entries())
    with world.sessions.begin() as session:
        session.execute(update(Site).where(Site.id == lease.site_id).values(observe_only=True))
    adapter = world.tools.open_site(lease.site_id)
    tags = Tags(world.tools.installation, lease_id, new_id(), lease.project, lease.ends_at)
    server = next(part.remote_id for part in lease.parts if part.kind is PartKind.SERVER) or ""
    with pytest.raises(SiteDenied, match="only observes"):
        adapter.make(PartKind.PORT, MachineSpec(**lease.spec), tags=tags, made={}, deadline=Deadline.after(5))
    with pytest.raises(SiteDenied, match="only observes"):
        adapter.delete(PartKind.SERVER, server, deadline=Deadline.after(5))
    assert isinstance(adapter, Powers)
    with pytest.raises(SiteDenied, match="only observes"):
        adapter.stop(server, deadline=Deadline.after(5))
    assert len(world.cloud.log.entries()) == before
    assert adapter.look(PartKind.SERVER, server, deadline=Deadline.after(5)) is not None
