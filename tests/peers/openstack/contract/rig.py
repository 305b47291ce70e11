"""The rig as the contract suite sees a cloud: the `ContractSite` of a real OpenStack."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NoReturn
from uuid import UUID

import pytest

from adapters.cloud import Bulkhead
from adapters.openstack.adapter import OpenStack
from adapters.registry import Registry
from broker.ports import CloudAdapter
from broker.remote import Deadline, MachineSpec, PartKind, RemotePart, Secret, SiteAddress, Tags, ThingKind
from tests.contract.sites import PUBLIC_KEY, ContractSite, Occasion, OwnCredential, Trouble, request_of, soon
from tests.peers.openstack.contract.front import Front, Rule
from tests.peers.openstack.contract.hand import LENA, Hand
from tests.peers.openstack.federation import address_and_secret
from tests.peers.openstack.wire import Request

ANOTHER = "leeway-tim"  # of a project that nothing of the suite is in
NO_HOST = "x1.nowhere"  # the flavor that the scheduler finds no host for
SLOWLY_DONE = {PartKind.SERVER, PartKind.VOLUME}


class Prompt(OpenStack):
    """The adapter at a cloud that works at once: a request for what takes time returns when the cloud has done it.

    Where the answer was lost, the wait is before the search.
    """

    hand: Hand

    def make(
        self, kind: PartKind, machine: MachineSpec, *, tags: Tags, made: Mapping[PartKind, str], deadline: Deadline
    ) -> str:
        remote_id = super().make(kind, machine, tags=tags, made=made, deadline=deadline)
        if kind in SLOWLY_DONE:
            self.hand.settle()
        if kind is PartKind.ADDRESS and PartKind.SERVER in made:
            self.hand.wait_for_address(made[PartKind.SERVER])
        return remote_id

    def find(
        self, kind: PartKind, *, lease: UUID, made: Mapping[PartKind, str], deadline: Deadline
    ) -> Sequence[RemotePart]:
        if self.hand.lost:
            self.hand.settle()
        return super().find(kind, lease=lease, made=made, deadline=deadline)

    def delete(self, kind: PartKind, remote_id: str, *, deadline: Deadline) -> None:
        super().delete(kind, remote_id, deadline=deadline)
        if kind in SLOWLY_DONE:
            self.hand.settle()


def cannot(what: str, *_: object) -> NoReturn:
    """Skip a test that needs what only a cloud that was made for tests does."""
    pytest.skip(f"the real one cannot be told to {what}")


UNTOLD = {
    Trouble.HIDDEN: "show a part late",
    Trouble.VANISH: "lose a machine",
    Trouble.LOST_LINK: "leave a page's link out",
    Trouble.SHORT_PAGE: "leave things out of a page",
}


@dataclass
class StandingSite(ContractSite):
    """One machine for many tests: a launch with the site's own tags finds its parts there."""

    standing: dict[PartKind, str] = field(default_factory=dict)

    def launch(self, *, until: PartKind | None = None, tags: Tags | None = None) -> dict[PartKind, str]:
        if tags is not None:
            return super().launch(until=until, tags=tags)
        self.standing = self.standing or super().launch()
        kinds = [part.kind for part in self.adapter.plan(self.machine)]
        return {kind: self.standing[kind] for kind in kinds[: kinds.index(until) if until else None]}


class Rig:
    """The front, the hand and the adapters of one module's tests."""

    def __init__(self, front: Front, hand: Hand) -> None:
        """Ask nothing yet."""
        self.front = front
        self.hand = hand
        self.registry = Registry({"openstack": self._prompt})

    def _prompt(self, site: SiteAddress, secret: Secret, bulkhead: Bulkhead) -> Prompt:
        adapter = Prompt(site, secret, bulkhead)
        adapter.hand = self.hand
        return adapter

    def close(self) -> None:
        """Leave nothing."""
        self.calm()
        self.hand.clear()
        self.registry.close()
        self.hand.close()

    def calm(self) -> None:
        """Nothing goes wrong from now on."""
        self.front.rules.clear()
        self.hand.calm()

    def site(self, kind: type[ContractSite] = ContractSite) -> ContractSite:
        """The empty project, without trouble."""
        self.calm()
        self.hand.clear()
        address, secret = _address_and_secret()
        adapter = self.registry.open(address, secret)
        flavors = {item.name: item.remote_id for item in adapter.offers(deadline=soon())}
        images = {item.name: item.remote_id for item in adapter.images(deadline=soon())}
        machine = MachineSpec(
            name="Zug um Zug",
            instance_type=flavors["m1.tiny"],
            image=images["cirros"],
            public_address=True,
            ssh_key=PUBLIC_KEY,
            user_data="#cloud-config\n{}\n",
            volume_gib=1,
        )
        return kind(
            adapter=adapter,
            machine=machine,
            trouble=self._trouble,
            calm=self.calm,
            existing=self.hand.existing,
            everything=self.hand.everything,
            most_active=partial(cannot, "say how many machines were there at one time"),
            add_strangers=self.hand.add_servers,
            save_by_hand=partial(cannot, "finish an image without a hypervisor"),
            save_disk_by_hand=partial(cannot, "copy a volume's metadata by hand"),
            elsewhere=partial(self._open_as, address, address_and_secret(ANOTHER)[1]),
            wrong=partial(self._open_as, address, Secret({**secret.reveal(), "password": "of somebody else"})),
            own_credential=partial(self._own_credential, address),
            set_clock=partial(cannot, "have another time"),
            reader=partial(cannot, "have a reader in this project"),
            dawdle=partial(cannot, "take its time"),
            other_type=flavors["m1.small"],
            other_image=images["ubuntu-22.04"],
        )

    def open(self) -> CloudAdapter:
        """An adapter that knows of nothing yet, as after a start of Leeway."""
        return self.registry.open(*_address_and_secret())

    def _open_as(self, address: SiteAddress, secret: Secret) -> CloudAdapter:
        return self.registry.open(address, secret)

    def _trouble(self, occasion: Occasion, kind: PartKind | ThingKind, what: Trouble, times: int | None) -> None:
        if what in UNTOLD:
            cannot(UNTOLD[what])
        if what is Trouble.QUOTA:
            self.hand.allow_servers(0)
            return
        self.hand.lost = (occasion, what) == (Occasion.MAKE, Trouble.LOST)
        rule = Rule(what, *request_of(occasion, kind), times)
        if what is Trouble.NO_CAPACITY:
            rule.becomes = partial(_with_flavor, self.hand.flavor(NO_HOST))
        self.front.rules.append(rule)

    def _own_credential(self, address: SiteAddress) -> OwnCredential:
        """An application credential of lena, as she would make it in the dashboard."""
        user = self.hand.lena.current_user_id
        expires = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S")
        made = self.hand.lena.identity.create_application_credential(user, uuid.uuid4().hex, expires_at=expires)

        def revoke() -> None:
            self.hand.lena.identity.delete_application_credential(user, made)
            self.front.end_sessions()  # Nova and the others keep for minutes in mind that a token was good

        fields = {"application_credential_id": made.id, "application_credential_secret": made.secret}
        adapter = self.registry.open(address, Secret(fields))
        return OwnCredential(
            adapter, self.front.end_sessions, revoke, partial(cannot, "end a credential before its time")
        )


def _address_and_secret() -> tuple[SiteAddress, Secret]:
    """A site with an id of its own, so that it shares no session; the suite knows it as aurora."""
    address, secret = address_and_secret(LENA)
    return dataclasses.replace(address, name="aurora", settings={"settle_time": "1"}), secret


def _with_flavor(flavor: str, request: Request) -> Request:
    wanted = json.loads(request.body)
    wanted["server"]["flavorRef"] = flavor
    return dataclasses.replace(request, body=json.dumps(wanted).encode())
