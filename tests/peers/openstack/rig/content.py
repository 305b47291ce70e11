"""Fills the cloud through its own APIs; whatever is there already stays, so it may run again."""

import threading
from functools import cached_property

from rig.contents import (
    CREDENTIAL_NAME,
    CREDENTIAL_OWNER,
    ENDPOINTS,
    FLAVORS,
    IMAGE_BYTES,
    IMAGES,
    PROJECTS,
    PUBLIC_NETWORK,
    SERVICE_USER,
    TENANT_SUBNETS,
    USERS,
    Flavor,
)
from rig.http_api import Api, Json
from rig.layout import (
    CINDER_PORT,
    GLANCE_PORT,
    KEYSTONE_INTERNAL,
    NEUTRON_PORT,
    NOVA_PORT,
    PASSWORD,
    PLACEMENT_PORT,
    REGION,
)

NOVA = f"http://127.0.0.1:{NOVA_PORT}/v2.1"
GLANCE = f"http://127.0.0.1:{GLANCE_PORT}/v2"
NEUTRON = f"http://127.0.0.1:{NEUTRON_PORT}/v2.0"
PLACEMENT = f"http://127.0.0.1:{PLACEMENT_PORT}"
CINDER = f"http://127.0.0.1:{CINDER_PORT}/v3"
# As launch/hypervisor has them: ten plain ones and gpu1.
NODES = 11


class Content:
    """Each method fills one service; all act as admin."""

    def __init__(self) -> None:
        self._logging_in = threading.Lock()

    @cached_property
    def _admin(self) -> Api:
        return Api("admin", "admin")

    @property
    def api(self) -> Api:
        """One token for all; the steps that share it run side by side."""
        with self._logging_in:
            return self._admin

    @cached_property
    def _projects(self) -> dict[str, str]:
        return {project["name"]: project["id"] for project in self._listed("projects")}

    def fill_identity(self) -> None:
        """Roles, projects, users, the catalogue, and one application credential."""
        roles = {role["name"]: role["id"] for role in self._listed("roles")}
        for name in {"service", "member", "reader"} - set(roles):
            roles[name] = self._made("roles", "role", {"name": name})
        users = {user["name"]: user["id"] for user in self._listed("users")}
        projects = dict(self._projects)
        for user, memberships in (USERS | SERVICE_USER).items():
            if user not in users:
                users[user] = self._made("users", "user", {"name": user, "password": PASSWORD, "domain_id": "default"})
            for project, names in memberships.items():
                if project not in projects:
                    projects[project] = self._made("projects", "project", {"name": project, "domain_id": "default"})
                for role in names:
                    path = f"projects/{projects[project]}/users/{users[user]}/roles/{roles[role]}"
                    self.api.call("PUT", f"{KEYSTONE_INTERNAL}/{path}")
        self.__dict__.pop("_projects", None)
        self._fill_catalogue()
        owner = Api(CREDENTIAL_OWNER, next(iter(USERS[CREDENTIAL_OWNER])))
        owner.call(
            "POST",
            f"{KEYSTONE_INTERNAL}/users/{owner.user_id}/application_credentials",
            {"application_credential": {"name": CREDENTIAL_NAME, "secret": PASSWORD}},
            accept=(409,),
        )

    def credential_id(self) -> str:
        """The id of the application credential, for clouds.yaml."""
        owner = Api(CREDENTIAL_OWNER, next(iter(USERS[CREDENTIAL_OWNER])))
        url = f"{KEYSTONE_INTERNAL}/users/{owner.user_id}/application_credentials?name={CREDENTIAL_NAME}"
        return str(owner.call("GET", url)["application_credentials"][0]["id"])

    def fill_flavors(self) -> None:
        """Sizes with their extra specs, and quotas for servers."""
        found = self.api.call("GET", f"{NOVA}/flavors?is_public=None&limit=1000")["flavors"]
        known = {flavor["name"] for flavor in found}
        for number, (name, flavor) in enumerate(FLAVORS.items(), 1):
            if name not in known:
                self._make_flavor(str(number), name, flavor)
        for project, quota in PROJECTS.items():
            self.api.call("PUT", f"{NOVA}/os-quota-sets/{self._projects[project]}", {"quota_set": quota.compute})

    def fill_images(self) -> None:
        """Images of zeros: nothing ever boots them."""
        found = self.api.call("GET", f"{GLANCE}/images?visibility=public")["images"]
        known = {image["name"]: image for image in found}
        for name, properties in IMAGES.items():
            image = known.get(name)
            if image is None:
                body = {
                    "name": name,
                    "disk_format": "raw",
                    "container_format": "bare",
                    "visibility": "public",
                    **properties,
                }
                image = self.api.call("POST", f"{GLANCE}/images", body)
            if image["status"] == "queued":
                self.api.upload(f"{GLANCE}/images/{image['id']}/file", IMAGE_BYTES)

    def fill_networks(self) -> None:
        """The public network, one network and router per project, and quotas."""
        known = {network["name"]: network["id"] for network in self._neutron_list("networks")}
        name, cidr = PUBLIC_NETWORK
        public = known.get(name) or self._make_public(name)
        self._ensure_subnet(f"{name}-subnet", {"network_id": public, "cidr": cidr, "enable_dhcp": False})
        routers = {router["name"]: router for router in self._neutron_list("routers")}
        for project, subnet_cidr in TENANT_SUBNETS.items():
            owner = {"project_id": self._projects[project]}
            network = known.get(f"{project}-net") or self._neutron_make("network", {"name": f"{project}-net", **owner})
            subnet = self._ensure_subnet(f"{project}-subnet", {"network_id": network, "cidr": subnet_cidr, **owner})
            router = routers.get(f"{project}-router", {}).get("id") or self._neutron_make(
                "router", {"name": f"{project}-router", "external_gateway_info": {"network_id": public}, **owner}
            )
            # 400: the subnet is on this router already.
            self.api.call(
                "PUT", f"{NEUTRON}/routers/{router}/add_router_interface", {"subnet_id": subnet}, accept=(400,)
            )
        for project, quota in PROJECTS.items():
            if quota.network:
                self.api.call("PUT", f"{NEUTRON}/quotas/{self._projects[project]}", {"quota": quota.network})

    def fill_volumes(self) -> None:
        """The default volume type, and quotas."""
        types = self.api.call("GET", f"{CINDER}/types")["volume_types"]
        if "standard" not in {kind["name"] for kind in types}:
            self.api.call("POST", f"{CINDER}/types", {"volume_type": {"name": "standard"}})
        for project, quota in PROJECTS.items():
            self.api.call("PUT", f"{CINDER}/os-quota-sets/{self._projects[project]}", {"quota_set": quota.volume})

    def compute_is_up(self) -> bool:
        """Whether every part of Nova has reported lately, and Placement would give out each kind of node."""
        services = self.api.call("GET", f"{NOVA}/os-services")["services"]
        alive = {service["binary"] for service in services if service["state"] == "up"}
        providers = f"{PLACEMENT}/resource_providers?resources=VCPU:1"
        plain = self.api.call("GET", providers, version="placement 1.4")["resource_providers"]
        if not {"nova-conductor", "nova-scheduler", "nova-compute"} <= alive or len(plain) < NODES:
            return False
        gpu = self.api.call("GET", f"{providers},CUSTOM_GPU_A100:1", version="placement 1.4")["resource_providers"]
        return [node["name"] for node in gpu] == ["gpu1"]

    def volumes_are_up(self) -> bool:
        """Whether both parts of Cinder have reported lately."""
        services = self.api.call("GET", f"{CINDER}/os-services")["services"]
        return {"cinder-scheduler", "cinder-volume"} <= {one["binary"] for one in services if one["state"] == "up"}

    def _listed(self, kind: str) -> list[Json]:
        found: list[Json] = self.api.call("GET", f"{KEYSTONE_INTERNAL}/{kind}")[kind]
        return found

    def _made(self, kind: str, noun: str, body: Json) -> str:
        return str(self.api.call("POST", f"{KEYSTONE_INTERNAL}/{kind}", {noun: body})[noun]["id"])

    def _fill_catalogue(self) -> None:
        services = {service["type"]: service["id"] for service in self._listed("services")}
        endpoints = {(one["service_id"], one["interface"]) for one in self._listed("endpoints")}
        for kind, (name, addresses) in ENDPOINTS.items():
            service = services.get(kind) or self._made("services", "service", {"type": kind, "name": name})
            for interface, url in addresses.items():
                if (service, interface) not in endpoints:
                    body = {"service_id": service, "interface": interface, "url": url, "region_id": REGION}
                    self._made("endpoints", "endpoint", body)

    def _make_flavor(self, number: str, name: str, flavor: Flavor) -> None:
        size = {"vcpus": flavor.vcpus, "ram": flavor.ram_mib, "disk": flavor.disk_gib}
        body = {"id": number, "name": name, **size, "os-flavor-access:is_public": not flavor.only_for}
        self.api.call("POST", f"{NOVA}/flavors", {"flavor": body})
        if flavor.extra_specs:
            self.api.call("POST", f"{NOVA}/flavors/{number}/os-extra_specs", {"extra_specs": flavor.extra_specs})
        if flavor.only_for:
            access = {"addTenantAccess": {"tenant": self._projects[flavor.only_for]}}
            self.api.call("POST", f"{NOVA}/flavors/{number}/action", access)

    def _neutron_list(self, kind: str) -> list[Json]:
        found: list[Json] = self.api.call("GET", f"{NEUTRON}/{kind}")[kind]
        return found

    def _neutron_make(self, noun: str, body: Json) -> str:
        return str(self.api.call("POST", f"{NEUTRON}/{noun}s", {noun: body})[noun]["id"])

    def _make_public(self, name: str) -> str:
        where = {"provider:network_type": "flat", "provider:physical_network": "physnet1"}
        return self._neutron_make("network", {"name": name, "router:external": True, **where})

    def _ensure_subnet(self, name: str, body: Json) -> str:
        found = self.api.call("GET", f"{NEUTRON}/subnets?name={name}")["subnets"]
        return str(found[0]["id"]) if found else self._neutron_make("subnet", {"name": name, "ip_version": 4, **body})
