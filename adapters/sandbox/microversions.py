"""What Nova and Cinder, once a part of Nova, have in common: microversions, and what their refusals are called."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers

from adapters.sandbox.wire import ApiError, Reply

Version = tuple[int, int]

# By status, the one key of a refusal's document.
FAULT_NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    429: "overLimit",
    503: "serviceUnavailable",
}
OTHER_FAULT = "computeFault"


def unauthorized(error: ApiError) -> Reply:
    """What the middleware in front of both answers."""
    return Reply(401, {"error": {"code": 401, "message": error.message, "title": "Unauthorized"}})


@dataclass(frozen=True)
class Microversions:
    """Those that a service has. `former`: the header that asked for them before there was one for all services."""

    service: str
    least: Version
    most: Version
    former: str | None = None

    def negotiate(self, headers: Headers) -> Version:
        """The one that is asked for; the least when none is.

        Raises:
            ApiError: 400 for no version at all, 406 for one outside the range.
        """
        text = headers.get(self.former) if self.former else None
        for part in headers.get("openstack-api-version", "").split(","):
            service, _, version = part.strip().partition(" ")
            if service.lower() == self.service:
                text = version.strip()
        if text is None:
            return self.least
        if text == "latest":
            return self.most
        match = re.fullmatch(r"(\d+)\.(\d+)", text)
        if match is None:
            raise ApiError(400, f"API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum.")
        asked = (int(match[1]), int(match[2]))
        if not self.least <= asked <= self.most:
            least, most = written(self.least), written(self.most)
            refused = f"Version {text} is not supported by the API. Minimum is {least} and maximum is {most}."
            raise ApiError(406, refused, headers=self.headers(text))
        return asked

    def headers(self, version: str) -> Mapping[str, str]:
        """Of every answer."""
        told = {"OpenStack-API-Version": f"{self.service} {version}", "Vary": "OpenStack-API-Version"}
        if self.former is None:
            return told
        return told | {self.former: version, "Vary": f"OpenStack-API-Version, {self.former}"}


def written(version: Version) -> str:
    """As headers have it."""
    return f"{version[0]}.{version[1]}"
