"""Error documents of Nova, Neutron, Keystone and Glance.

A 409 is `SiteConflict` unless its words say that it is something else: "what you ask for may be there already" is then
looked into, while a refusal is taken to mean that nothing was made.
"""

from __future__ import annotations

import json
import re
from typing import Any

from adapters.cloud import Fault
from broker.errors import SiteCapacity, SiteConflict, SiteQuota, SiteRefused

# Nova: "Quota exceeded for cores: ...", "Maximum number of ports exceeded"; Neutron has the type OverQuota instead.
_QUOTA = re.compile(r"quota exceeded|maximum number of [\w ]+ exceeded|quota", re.IGNORECASE)
# A rule says no to this login; its name may hold any of the other words, as that for reading quotas does.
_POLICY = re.compile(r"policy doesn't allow|disallowed by policy|not authorized to complete", re.IGNORECASE)
# What was asked for is there already. Asked first: these texts quote names that people chose ("quota-test").
_THERE = re.compile(r"still in use|already exists|client token", re.IGNORECASE)
# Conflicts within the request itself, which say nothing of what exists: Nova's NetworkAmbiguous and NoUniqueMatch.
_AMBIGUOUS = re.compile(
    r"multiple possible networks|more than one possible network|no unique match|multiple \w+ matches", re.IGNORECASE
)
_CAPACITY = re.compile(r"no valid host|no more ip addresses|not enough (resources|hosts)", re.IGNORECASE)

_GLANCE = frozenset({"code", "title", "message"})  # Glance says this to who accepts JSON, a web page to others

_MEANINGS: dict[str, type[SiteRefused]] = {
    "OverQuota": SiteQuota,
    "IpAddressGenerationFailure": SiteCapacity,
    "ExternalIpAddressExhausted": SiteCapacity,
    "NoNetworkAvailable": SiteCapacity,
    "PortInUse": SiteConflict,
    "IpAddressInUse": SiteRefused,
    "MacAddressInUse": SiteRefused,
    "FloatingIPPortAlreadyAssociated": SiteConflict,
    "conflictingRequest": SiteConflict,
}


def read_fault(body: bytes) -> Fault | None:
    """The fault in a body; None where the body is not one of these services' error documents.

    Nova: `{"badRequest": {"code": 400, "message": "..."}}`; Neutron: `{"NeutronError": {"type", "message", "detail"}}`
    (in old releases a plain text); Keystone: `{"error": {"code", "message", "title"}}`; Glance, and the middleware in
    front of the others: `{"code": "404 Not Found", "title": "Not Found", "message": "...<br /><br />"}`.
    """
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):  # Recursion: a megabyte of brackets
        return None
    if (
        isinstance(document, dict)
        and document.keys() == _GLANCE
        and all(isinstance(text, str) for text in document.values())
    ):
        return _fault(document["title"], document["message"].partition("<br")[0])
    if not isinstance(document, dict) or len(document) != 1:
        return None
    ((kind, content),) = document.items()
    if isinstance(content, str) and kind == "NeutronError":
        return _fault(kind, content)
    if not isinstance(content, dict) or not isinstance(content.get("message"), str):
        return None
    return _fault(str(content.get("type") or kind), content["message"])


def _fault(kind: str, message: str) -> Fault:
    meaning = _MEANINGS.get(kind)
    if _POLICY.search(message):
        meaning = None
    elif _THERE.search(message):
        meaning = SiteConflict
    elif _QUOTA.search(message):
        meaning = SiteQuota
    elif _AMBIGUOUS.search(message):
        meaning = SiteRefused
    elif _CAPACITY.search(message):
        meaning = SiteCapacity
    return Fault(kind, message.strip(), meaning)


def says_gone(body: bytes, remote_id: str) -> bool:
    """Whether a 404 is the API's own word that the thing of this id does not exist.

    The id must be in it: a 404 for the path, as from a wrong endpoint, has the same form but says nothing of the thing.
    """
    fault = read_fault(body)
    return fault is not None and remote_id in fault.message
