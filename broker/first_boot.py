"""What a machine gets at its first start: the person's SSH key and the cloud-init user data."""

from __future__ import annotations

import base64
import binascii

import yaml

from broker.errors import InvalidInput

# Nova takes 65,535 characters of base64 (its API schema's maxLength): 3 bytes become 4 characters.
MAX_USER_DATA_BYTES = 65_535 // 4 * 3

_KEY_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
_MAX_KEY_LENGTH = 16_384
# The first lines that cloud-init acts on (cloud-init documentation, "User-data formats").
_STARTS = ("#cloud-config", "#!", "#include", "#cloud-boothook", "#part-handler", "## template: jinja", "Content-Type:")
_KEY_HINT = "Paste the one line of a public key file, like ~/.ssh/id_ed25519.pub."


def check_ssh_key(value: object, field: str) -> str:
    """One OpenSSH public key (RFC 4253 section 6.6 inside): type, base64, comment. Never repeats it in an error.

    Raises:
        InvalidInput: a private key, several lines, an unknown type, or base64 that holds another type or nothing.
    """
    if not isinstance(value, str):
        raise InvalidInput(field, "is not text", hint=_KEY_HINT)
    key = value.strip()
    if "PRIVATE KEY" in key:
        raise InvalidInput(field, "is a private key, which nobody else should see", hint=_KEY_HINT)
    if len(key) > _MAX_KEY_LENGTH or not key.isprintable():
        raise InvalidInput(field, "is not one line of a public key", hint=_KEY_HINT)
    kind, _, rest = key.partition(" ")
    if kind not in _KEY_TYPES:
        raise InvalidInput(field, f"does not begin with a known key type ({', '.join(_KEY_TYPES[:5])})", hint=_KEY_HINT)
    blob = _blob(rest.strip().partition(" ")[0])
    name = kind.encode()
    if blob is None or not blob.startswith(len(name).to_bytes(4) + name) or len(blob) < len(name) + 4 + 32:
        raise InvalidInput(field, f"is cut short or damaged: no {kind} key is in it", hint=_KEY_HINT)
    return key


def check_user_data(value: object, field: str) -> str:
    """Text that cloud-init will act on, small enough for every site.

    A `#cloud-config` must be valid YAML: the machine would start without it and say nothing.

    Raises:
        InvalidInput: too long, an unknown first line, or broken YAML (with its line).
    """
    if not isinstance(value, str):
        raise InvalidInput(field, "is not text", hint="Write `cloud_init: |` and indent what follows.")
    size = len(value.encode())
    if size > MAX_USER_DATA_BYTES:
        raise InvalidInput(
            field, f"has {size} bytes; the most is {MAX_USER_DATA_BYTES}", hint="Fetch the rest with #include."
        )
    if not value.startswith(_STARTS):
        raise InvalidInput(
            field, "does not begin with a line that cloud-init knows", hint="Begin with #cloud-config or #!/bin/sh."
        )
    if value.startswith("#cloud-config"):
        _check_yaml(value, field)
    return value


def _blob(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def _check_yaml(text: str, field: str) -> None:
    try:
        for _event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            pass
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in its line {mark.line + 1}" if mark else ""
        raise InvalidInput(field, f"is no valid YAML{where}: {error.problem}", hint="Check the indentation.") from None
    except yaml.YAMLError as error:
        raise InvalidInput(field, f"is no valid YAML: {str(error).splitlines()[0]}") from None
