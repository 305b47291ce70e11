"""Glance v2: the list of images and one image. Images are configured; nobody uploads."""

from typing import Any

from adapters.sandbox.entities import Image
from adapters.sandbox.paging import page
from adapters.sandbox.wire import ApiError, Call, Reply, Service, stamp

_SIMPLE_FILTERS = ("name", "status", "visibility", "os_distro", "os_version", "container_format", "disk_format")


def _refuse(error: ApiError) -> Reply:
    """Glance refuses with a web page."""
    text = f"<html>\n <head>\n  <title>{error.status}</title>\n </head>\n <body>\n  <h1>{error.status}</h1>\n"
    return Reply(error.status, f"{text}  {error.message}<br /><br />\n </body>\n</html>".encode(), {}, "text/html")


SERVICE = Service("image", _refuse)


def show_versions(call: Call) -> Reply:
    versions = [
        {"id": f"v2.{minor}", "status": status, "links": [{"rel": "self", "href": f"{call.base_url}/image/v2/"}]}
        for minor, status in ((15, "CURRENT"), (13, "SUPPORTED"), (9, "SUPPORTED"), (2, "SUPPORTED"), (0, "SUPPORTED"))
    ]
    return Reply(300 if call.path.rstrip("/") == "/image" else 200, {"versions": versions})


def image_document(image: Image) -> dict[str, Any]:
    config = image.config
    digest = image.id.replace("-", "")
    return {
        **config.properties,
        "id": image.id,
        "name": config.name,
        "status": config.status,
        "visibility": "public",
        "protected": False,
        "os_hidden": False,
        "os_distro": config.os_distro,
        "os_version": config.os_version,
        "container_format": "bare",
        "disk_format": "qcow2",
        "size": config.size_bytes,
        "virtual_size": None,
        "min_disk": config.min_disk_gib,
        "min_ram": config.min_ram_mib,
        "checksum": digest,
        "os_hash_algo": "sha512",
        "os_hash_value": digest * 4,
        "owner": digest,
        "tags": [],
        "created_at": stamp(image.created),
        "updated_at": stamp(image.created),
        "self": f"/v2/images/{image.id}",
        "file": f"/v2/images/{image.id}/file",
        "schema": "/v2/schemas/image",
    }


def list_images(call: Call) -> Reply:
    """25 at a time unless asked otherwise; the next page is a relative address, as Glance gives it."""
    _ = call.project
    documents = [image_document(image) for image in call.cloud.images.values()]
    for name in _SIMPLE_FILTERS:
        wanted = call.query.get(name)
        if wanted is not None:
            accepted = wanted.removeprefix("in:").split(",") if wanted.startswith("in:") else [wanted]
            documents = [document for document in documents if document.get(name) in accepted]
    asked = call.query.get("limit") is not None
    most = call.cloud.config.page_limit if asked else min(25, call.cloud.config.page_limit)
    chosen, following = page(call, documents, lambda document: str(document["id"]), default_limit=most)
    body: dict[str, Any] = {"images": list(chosen), "schema": "/v2/schemas/images", "first": "/v2/images"}
    if following is not None:
        body["next"] = following.removeprefix(f"{call.base_url}/image")
    return Reply(200, body)


def show_image(call: Call) -> Reply:
    _ = call.project
    image = call.cloud.images.get(call.params["image"])
    if image is None:
        raise ApiError(404, f"No image found with ID {call.params['image']}")
    return Reply(200, image_document(image))


TABLE = {
    "/image": {"GET": show_versions},
    "/image/": {"GET": show_versions},
    "/image/versions": {"GET": show_versions},
    "/image/v2": {"GET": show_versions},
    "/image/v2/": {"GET": show_versions},
    "/image/v2/images": {"GET": list_images},
    "/image/v2/images/{image}": {"GET": show_image},
}
