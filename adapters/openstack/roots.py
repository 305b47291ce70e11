"""Where a service's paths begin, by its address in the catalogue: sites differ in how much of the path they put there.

Services are given by the word that `adapters.openstack.session.Service` has for them.
"""

from __future__ import annotations

from urllib.parse import urlsplit

# Cinder has had more than one; behind any of them is Cinder v3.
_TYPES = {"volumev3": ("volumev3", "block-storage", "block-store")}


def catalogue_types(service: str) -> tuple[str, ...]:
    """The types under which the catalogue may have a service, the commonest first."""
    return _TYPES.get(service, (service,))


def service_root(service: str, url: str, project_id: str) -> str:
    """The address without what the paths of this adapter begin with, and with what they leave out."""
    root = url.rstrip("/")
    if service == "network":
        return root.removesuffix("/v2.0")
    if service == "image":
        return root.removesuffix("/v2")
    path = urlsplit(root).path
    if service == "volumev3":
        # Up to Xena Cinder wants the project in every path; later ones take it.
        root = root if "/v3" in path else f"{root}/v3"
        return f"{root.removesuffix(f'/{project_id}')}/{project_id}"
    return root if "/v2" in path else f"{root}/v2.1"
