"""Where the server is, and with which token: from the environment, or from the files that `leeway serve` writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from web.client.errors import Unreachable

START_HINT = (
    "Start it with `leeway serve`, or see `leeway demo`; for a server elsewhere set LEEWAY_URL and LEEWAY_TOKEN."
)


@dataclass(frozen=True, slots=True)
class Place:
    """An address like http://127.0.0.1:8642, and the token that is shown there."""

    url: str
    token: str = field(repr=False)

    @property
    def login_link(self) -> str:
        """Opens the pages in a browser: the browser is given a cookie, and the token leaves its address line."""
        return f"{self.url}/login?token={self.token}"


def data_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the server of this account keeps its files; the same default as the server's own."""
    if chosen := environment.get("LEEWAY_DATA_DIR"):
        return Path(chosen)
    base = environment.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "leeway"


def find_place(environment: Mapping[str, str] = os.environ) -> Place:
    """The server that commands talk to.

    Raises:
        Unreachable: none is named, or the files of the one that runs here cannot be read.
    """
    url, token = environment.get("LEEWAY_URL"), environment.get("LEEWAY_TOKEN")
    folder = data_dir(environment)
    if url is None:
        url = _line(folder / "address")
        token = token or _line(folder / "token")
    if not token:
        raise Unreachable(
            f"LEEWAY_URL is {url}, and there is no token for it.", hint="Set LEEWAY_TOKEN to that server's token."
        )
    if not url.startswith(("http://", "https://")):
        raise Unreachable(f"{url!r} is no address.", hint="LEEWAY_URL looks like http://127.0.0.1:8642.")
    if not token.isascii() or not token.isprintable():
        raise Unreachable("The token has characters that no token has.", hint="Copy it again from the file `token`.")
    return Place(url.rstrip("/"), token)


def _line(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise Unreachable(f"No server has written its address into {file.parent}.", hint=START_HINT) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Unreachable(f"{file} cannot be read: {reason}.", hint=START_HINT) from None
    if not text:
        raise Unreachable(f"{file} is empty.", hint="Start the server again: `leeway serve`.")
    return text
