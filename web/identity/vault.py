"""Site credentials, encrypted at rest: AES-256-GCM, bound to the site and person they were stored for.

The key comes from `LEEWAY_SECRET_KEY` or from a file (mode 0600) beside the data; a row moved to another site or
person does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from pathlib import Path
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from broker.errors import NotFound, SetupError
from broker.models.federation import Site, SiteCredential
from broker.remote import Secret
from web.private import write_once

_KEY_BYTES = 32
_NONCE_BYTES = 12


class SealedVault:
    """`broker.ports.Vault` over the `site_credentials` rows."""

    def __init__(self, key: bytes) -> None:
        """`key`: 32 bytes. Its id is kept beside each row, so that a wrong key is told from a broken row."""
        self._cipher = AESGCM(key)
        self._key_id = hashlib.sha256(b"leeway key id" + key).hexdigest()[:16]

    def secret(self, session: Session, site_id: UUID, *, person_id: UUID | None = None) -> Secret:
        """The person's own credential if there is one, else the site's."""
        rows = {
            row.person_id: row
            for row in session.scalars(select(SiteCredential).where(SiteCredential.site_id == site_id))
            if row.person_id in (person_id, None)
        }
        row = rows.get(person_id) or rows.get(None)
        if row is None:
            raise NotFound("the site has no credential", hint="Store one with `leeway site add`.")
        return self._open(session, row)

    def store(self, session: Session, site_id: UUID, secret: Secret, *, person_id: UUID | None = None) -> None:
        """Encrypt and keep, replacing the former one."""
        nonce = os.urandom(_NONCE_BYTES)
        plain = json.dumps(secret.reveal(), sort_keys=True).encode()
        session.execute(
            delete(SiteCredential).where(
                SiteCredential.site_id == site_id, SiteCredential.person_id.is_not_distinct_from(person_id)
            )
        )
        session.add(
            SiteCredential(
                site_id=site_id,
                person_id=person_id,
                key_id=self._key_id,
                ciphertext=nonce + self._cipher.encrypt(nonce, plain, _bound_to(site_id, person_id)),
                stored_at=func.clock_timestamp(),
            )
        )
        session.flush()

    def _open(self, session: Session, row: SiteCredential) -> Secret:
        nonce, sealed = row.ciphertext[:_NONCE_BYTES], row.ciphertext[_NONCE_BYTES:]
        try:
            fields = json.loads(self._cipher.decrypt(nonce, sealed, _bound_to(row.site_id, row.person_id)))
        except InvalidTag:
            site = session.get_one(Site, row.site_id)
            reason = (
                "was stored with another key" if row.key_id != self._key_id else "does not open: the row was changed"
            )
            raise SetupError(
                f"the credential of site {site.name} {reason}",
                hint="Bring back the key it was stored with, or store the credential again.",
            ) from None
        return Secret(fields)


def _bound_to(site_id: UUID, person_id: UUID | None) -> bytes:
    return f"site:{site_id} person:{person_id}".encode()


def load_key(text: str | None, path: Path) -> bytes:
    """The key from its setting (base64 of 32 bytes), else from its file, which is made on first use.

    Raises:
        SetupError: the key is not one, or its file can be read by others.
    """
    if text is not None:
        return _decode(text, "LEEWAY_SECRET_KEY")
    try:
        if not path.exists():
            write_once(path, base64.b64encode(os.urandom(_KEY_BYTES)).decode() + "\n")
        is_open = bool(path.stat().st_mode & 0o077)
        content = path.read_bytes()
    except OSError as error:
        raise SetupError(
            f"the key file {path} cannot be used: {error.strerror}",
            hint="Give it back to the account that runs Leeway, or bring it back from a backup.",
        ) from None
    if is_open:
        raise SetupError(f"the key file {path} can be read by others", hint=f"Run: chmod 600 '{path}'")
    return _decode(content.decode(errors="replace"), str(path))


def _decode(text: str, where: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        key = b""
    if len(key) != _KEY_BYTES:
        raise SetupError(
            f"{where} is not a key: it must be {_KEY_BYTES} random bytes in base64",
            hint="Make one with: head -c 32 /dev/urandom | base64",
        )
    return key
