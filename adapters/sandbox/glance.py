"""Glance v2: the list of images, one image, its end. Images are configured or made of servers; nobody uploads."""

from http import HTTPStatus
from typing import Any

from adapters.sandbox import images
from adapters.sandbox.entities import Image
from adapters.sandbox.paging import page
from adapters.sandbox.state import is_visible, visible
from adapters.sandbox.wire import ApiError, Call, Reply, Service, stamp

# Every other word of a query is a field or a property of the image, and its value the one that is wanted.
_NO_FILTERS = frozenset({"limit", "marker", "sort", "sort_key", "sort_dir", "member_status", "os_hidden"})

_NO_LOGIN = (
    "This server could not verify that you are authorized to access the document you requested. Either you supplied "
    "the wrong credentials (e.g., bad password), or your browser does not understand how to supply the credentials "
    "required."
)


def _refuse(error: ApiError) -> Reply:
    title = HTTPStatus(error.status).phrase
    text = _NO_LOGIN if error.status == HTTPStatus.UNAUTHORIZED else error.message
    message = f"{text}<br /><br />\n\n\n"
    return Reply(error.status, {"message": message, "code": f"{error.status} {title}", "title": title})


def _finish(call: Call, reply: Reply) -> None:
    """Glance refuses with a web page, unless the client says that it takes JSON."""
    if reply.status >= HTTPStatus.BAD_REQUEST and "application/json" not in call.headers.get("accept", ""):
        code, message = reply.body["code"], reply.body["message"]
        head = f"<html>\n <head>\n  <title>{code}</title>\n </head>\n <body>\n  <h1>{code}</h1>\n"
        reply.body, reply.media_type = f"{head}  {message} </body>\n</html>".encode(), "text/html"


SERVICE = Service("image", _refuse, finish=_finish)


def show_versions(call: Call) -> Reply:
    versions = [
        {"id": f"v2.{minor}", "status": status, "links": [{"rel": "self", "href": f"{call.base_url}/image/v2/"}]}
        for minor, status in ((15, "CURRENT"), (13, "SUPPORTED"), (9, "SUPPORTED"), (2, "SUPPORTED"), (0, "SUPPORTED"))
    ]
    return Reply(300 if call.path.rstrip("/") == "/image" else 200, {"versions": versions})


def image_document(image: Image) -> dict[str, Any]:
    config = image.config
    digest = image.id.replace("-", "")
    is_saved = config.status in ("active", "deactivated")
    return {
        **config.properties,
        "id": image.id,
        "name": config.name,
        "status": config.status,
        "visibility": "private" if image.project_id else "public",
        "protected": image.protected,
        "os_hidden": False,
        "os_distro": config.os_distro,
        "os_version": config.os_version,
        "container_format": "bare" if is_saved else None,
        "disk_format": "qcow2" if is_saved else None,
        "size": config.size_bytes if is_saved else None,
        "virtual_size": max(config.size_bytes, config.min_disk_gib * 1024**3) if is_saved else None,
        "min_disk": config.min_disk_gib,
        "min_ram": config.min_ram_mib,
        "checksum": digest if is_saved else None,
        "os_hash_algo": "sha512" if is_saved else None,
        "os_hash_value": digest * 4 if is_saved else None,
        "owner": image.project_id or digest,
        "tags": [],
        "created_at": stamp(image.created),
        "updated_at": stamp(image.updated),
        "self": f"/v2/images/{image.id}",
        "file": f"/v2/images/{image.id}/file",
        "schema": "/v2/schemas/image",
    }


def list_images(call: Call) -> Reply:
    """25 at a time unless asked otherwise; the next page is a relative address, as Glance gives it.

    The project's own come first, the newest before the others.
    """
    known = call.cloud.images.values()
    own = visible(known, call.project.id, call.now)
    documents = [image_document(image) for image in (*reversed(own), *(item for item in known if not item.project_id))]
    if call.query.get("os_hidden", "false").lower() == "true":
        documents = []
    for name, wanted in call.query.items():
        if name not in _NO_FILTERS and (name, wanted) != ("visibility", "all"):
            accepted = wanted.removeprefix("in:").split(",") if wanted.startswith("in:") else [wanted]
            documents = [document for document in documents if document.get(name) in accepted]
    asked = call.query.get("limit") is not None
    most = call.cloud.config.page_limit if asked else min(25, call.cloud.config.page_limit)
    chosen, following = page(call, documents, lambda document: str(document["id"]), default_limit=most)
    body: dict[str, Any] = {"images": list(chosen), "schema": "/v2/schemas/images", "first": "/v2/images"}
    if following is not None:
        body["next"] = following.removeprefix(f"{call.base_url}/image")
    return Reply(200, body)


def _find(call: Call, otherwise: str) -> Image:
    image, project_id = call.cloud.images.get(call.params["image"]), call.project.id
    if image is None or (image.project_id and not is_visible(image, project_id, call.now)):
        raise ApiError(404, otherwise)
    return image


def show_image(call: Call) -> Reply:
    return Reply(200, image_document(_find(call, f"No image found with ID {call.params['image']}")))


def delete_image(call: Call) -> Reply:
    image = _find(call, f"Failed to find image {call.params['image']} to delete")
    if not image.project_id:
        raise ApiError(403, "You are not authorized to complete delete_image action.")
    if image.protected:
        raise ApiError(403, f"Image {image.id} is protected and cannot be deleted.")
    images.remove(call.cloud, image, call.now, request_id=call.request_id)
    return Reply(204)


TABLE = {
    "/image": {"GET": show_versions},
    "/image/": {"GET": show_versions},
    "/image/versions": {"GET": show_versions},
    "/image/v2": {"GET": show_versions},
    "/image/v2/": {"GET": show_versions},
    "/image/v2/images": {"GET": list_images},
    "/image/v2/images/{image}": {"GET": show_image, "DELETE": delete_image},
}
