"""The volumes a cloud holds, their snapshots, and who has which. What changes them is in `volumes`."""

from dataclasses import dataclass, field
from datetime import datetime

from adapters.sandbox.entities import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeAttachment:
    """Which server has a volume, and as what. Nova calls it by the volume's id, Cinder by its own.

    `goes_with_it` is Nova's `delete_on_termination`.
    """

    id: str
    server_id: str
    device: str
    attached_at: datetime
    goes_with_it: bool = False


@dataclass(slots=True, kw_only=True)
class Volume:
    """A disk of its own. `status` is Cinder's word; what changes it is in `volumes`. One with an image is bootable."""

    id: str
    serial: int
    name: str
    project_id: str
    user_id: str
    size_gib: int
    created: datetime
    updated: datetime | None = None
    status: str = "creating"
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    snapshot_id: str | None = None
    image: Image | None = None
    attachment: VolumeAttachment | None = None
    visible_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class VolumeSnapshot:
    """What was on a volume at one moment; the volume cannot go before it."""

    id: str
    serial: int
    name: str
    project_id: str
    user_id: str
    volume_id: str
    size_gib: int
    created: datetime
    updated: datetime | None = None
    status: str = "creating"
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    visible_at: datetime | None = None
