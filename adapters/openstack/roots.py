"""Where a service's paths begin, by its address in the catalogue: sites differ in how much of the path they put there.

Keystone's address is the one that a person gives. Services are given by the word that
`adapters.openstack.session.Service` has for them.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from broker.errors import InvalidInput

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


def identity_root(endpoint: str) -> str:
    """Keystone's address without the version: people paste what their cloud shows, with /v3 or /v3/auth/tokens.

    Raises:
        InvalidInput: it is no http(s) address.
    """
    parts = urlsplit(endpoint.strip())
    try:
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number
        usable = False
    if not usable or "@" in parts.netloc or "[" in parts.netloc:
        raise InvalidInput(
            "endpoint",
            f"{endpoint!r} is not the address of a Keystone",
            hint="Write it like https://keystone.example.org:5000/v3 (an IPv6 address needs a name).",
        )
    path = parts.path.rstrip("/")
    for ending in ("/auth/tokens", "/v3", "/v2.0"):
        path = path.removesuffix(ending)
    return f"{parts.scheme}://{parts.netloc}{path}"
