"""The token that `leeway serve` wants of every client, kept in a file that only this account can read."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from broker.errors import SetupError
from web.private import write_once

_BYTES = 32
_SHORTEST = 20


@dataclass(frozen=True, slots=True)
class Token:
    """A secret shown with every request. All comparisons take the same time for right and wrong."""

    value: str = field(repr=False)

    def admits(self, shown: str) -> bool:
        """True for the token itself."""
        return hmac.compare_digest(shown.encode(), self.value.encode())

    @property
    def page_key(self) -> str:
        """What the browser's cookie holds: it opens the pages, not the API.

        Cookies do not tell one port from another, so whatever else this machine serves on loopback is shown it too.
        """
        return hmac.new(self.value.encode(), b"leeway pages", hashlib.sha256).hexdigest()

    def admits_page(self, shown: str) -> bool:
        """True for the cookie's value."""
        return hmac.compare_digest(shown.encode(), self.page_key.encode())


def load_token(path: Path) -> Token:
    """The token of this installation, made on first use.

    Raises:
        SetupError: the file cannot be written or read, holds no token, or can be read by others.
    """
    try:
        if not path.exists():
            write_once(path, f"{secrets.token_urlsafe(_BYTES)}\n")
        if path.stat().st_mode & 0o077:
            raise SetupError(f"the token file {path} can be read by others", hint=f"Run: rm '{path}' and start again.")
        value = path.read_text().strip()
    except OSError as error:
        raise SetupError(
            f"the token file {path} cannot be used: {error.strerror}", hint="Set LEEWAY_DATA_DIR elsewhere."
        ) from None
    if len(value) < _SHORTEST or not value.isascii():
        raise SetupError(f"the token file {path} holds no token", hint=f"Run: rm '{path}' and start again.")
    return Token(value)
