"""Runs cinder-volume; its fake driver keeps no bytes, and here is not asked to write those of an image anywhere."""

import sys
from typing import Any

# First: this makes threads green before anything else is imported.
from cinder.cmd.volume import main  # type: ignore[import-not-found] # Debian's, not in the project's environment
from cinder.tests.fake_driver import FakeLoggingVolumeDriver  # type: ignore[import-not-found] # same


def _take_no_bytes(*_arguments: Any, **_named: Any) -> None:
    """In place of a copy into a device file, which the fake driver has never made."""


if __name__ == "__main__":
    sys.argv[0] = "cinder-volume"
    FakeLoggingVolumeDriver.copy_image_to_volume = _take_no_bytes
    sys.exit(main())
