"""Workload documents: what a person writes, checked field by field, and the canonical form that is stored.

Every fault of a document is reported at once: the first one is the error, all of them are in its context (`errors`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from broker.documents import Document, Path, digest, field_path, read, shown, suggestion
from broker.errors import InvalidInput
from broker.first_boot import check_ssh_key, check_user_data
from broker.placement import Workload
from broker.units import duration, gibibytes, mebibytes, show_duration, show_memory
from broker.values import Amount, plain

KIND = "machine"
KINDS_TO_COME = ("allocation", "job", "notebook", "cluster")
MAX_BYTES = 128 * 1024
MAX_COUNT = 500
MAX_DURATION = timedelta(days=366)
MAX_KEEP = timedelta(days=365)

_MAX_MEMORY_MIB = 64 * 1024 * 1024
_MAX_DISK_GIB = 1024 * 1024
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}")
_PRINTABLE = re.compile(r"\S(.{0,253}\S)?")
# Words of other tools, and what they are called here.
_ALIASES = {
    "cpu": "cores",
    "cpus": "cores",
    "vcpu": "cores",
    "vcpus": "cores",
    "ram": "memory",
    "mem": "memory",
    "storage": "disk",
    **dict.fromkeys(("volumes", "data_disk", "second_disk", "extra_disk", "scratch"), "volume"),
    "gpu": "gpus",
    "architecture": "arch",
    "user_data": "cloud_init",
    "userdata": "cloud_init",
    "cloud-init": "cloud_init",
    "walltime": "duration",
    "time": "duration",
    "replicas": "count",
    "number": "count",
    "floating_ip": "public_address",
    "public_ip": "public_address",
    "os": "image",
    "budget": "max_price",
    "key": "ssh_key",
    "public_key": "ssh_key",
    "countries": "jurisdictions",
    **dict.fromkeys(("snapshot", "snapshots", "keep", "keep_disk", "keep_snapshots"), "keep_snapshot"),
}


def _custom(reason: str, hint: str | None) -> PydanticCustomError:
    return PydanticCustomError("leeway", "{reason}", {"reason": reason, "hint": hint})


def _with(check: Callable[[object, str], object]) -> BeforeValidator:
    """A check that raises `InvalidInput`, as a validator that lets the other fields be checked too."""

    def validate(value: object, info: ValidationInfo) -> object:
        try:
            return check(value, info.field_name or "")
        except InvalidInput as error:
            raise _custom(error.reason, error.hint) from None

    return BeforeValidator(validate)


def _matching(pattern: re.Pattern[str], words: str, hint: str) -> BeforeValidator:
    def check(value: object, field: str) -> str:
        if not isinstance(value, str):
            raise InvalidInput(field, f"{shown(value)} is not text", hint='Put it in quotes, like "2024".')
        if not pattern.fullmatch(value):
            raise InvalidInput(field, f"{shown(value)} is not {words}", hint=hint)
        return value

    return _with(check)


def _jurisdiction(value: object, field: str) -> str:
    if not (isinstance(value, str) and re.fullmatch(r"[A-Za-z]{2}", value)):
        raise InvalidInput(
            field, f"{shown(value)} is not a country code", hint="Write two letters, like EE (ISO 3166)."
        )
    return value.upper()


def _between(least: timedelta, most: timedelta, example: str) -> BeforeValidator:
    def check(value: object, field: str) -> timedelta:
        found = duration(value, field=field, example=example)
        if not least <= found <= most:
            reason = f"{shown(value)} is not between {show_duration(least)} and {most.days} days"
            raise InvalidInput(field, reason, hint=f"Write it like {example}.")
        return found

    return _with(check)


def _price(value: object, field: str) -> Amount:
    if not isinstance(value, str):
        raise InvalidInput(field, f"{shown(value)} has no currency", hint="Write it like 10 EUR.")
    found = Amount.parse(value, field=field)
    if found.value < 0:
        raise InvalidInput(field, f"{shown(value)} is negative", hint="Write it like 10 EUR.")
    if found.stored() != found:
        raise InvalidInput(field, f"{shown(value)} has more than 9 decimals", hint="Write it like 10 EUR.")
    return found


_Name = Annotated[
    str,
    _matching(
        _NAME,
        "a name",
        "Use up to 63 lower-case letters, digits and hyphens; begin and end with a letter or digit.",
    ),
]
_Place = Annotated[str, _matching(_PLACE, "a name", "Write a name as `leeway site list` shows it.")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)


class _Resources(_Part):
    cores: Annotated[int, Field(ge=1, le=4096)]
    memory: Annotated[int, Field(ge=1, le=_MAX_MEMORY_MIB), _with(lambda value, field: mebibytes(value, field=field))]
    disk: Annotated[int, Field(ge=0, le=_MAX_DISK_GIB), _with(lambda value, field: gibibytes(value, field=field))] = 0
    volume: Annotated[int, Field(ge=0, le=_MAX_DISK_GIB), _with(lambda value, field: gibibytes(value, field=field))] = 0
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    gpu_model: (
        Annotated[
            str,
            _matching(
                re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}"),
                "a GPU model",
                "Write it like A100 or NVIDIA A100 80GB.",
            ),
        ]
        | None
    ) = None
    arch: Literal["x86_64", "aarch64", "ppc64le", "s390x", "riscv64"] | None = None


class _Requirements(_Part):
    sites: list[_Place] = []
    providers: list[_Place] = []
    jurisdictions: list[Annotated[str, _with(_jurisdiction)]] = []


class _Machine(_Part):
    kind: Literal["machine"]
    name: _Name
    project: Annotated[
        str, _matching(_PROJECT, "a project name", "Use lower-case letters, digits, `.`, `_` and hyphens.")
    ]
    resources: _Resources
    image: Annotated[str, _matching(_PRINTABLE, "an image name", "Write it like ubuntu-24.04.")]
    duration: Annotated[timedelta, _between(timedelta(seconds=1), MAX_DURATION, "3 days")]
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 1
    public_address: bool = False
    ssh_key: Annotated[str, _with(check_ssh_key)] | None = None
    cloud_init: Annotated[str, _with(check_user_data)] | None = None
    requirements: _Requirements = _Requirements()
    max_price: Annotated[Amount, _with(_price)] | None = None
    keep_snapshot: Annotated[timedelta, _between(timedelta(seconds=1), MAX_KEEP, "30 days")] | None = None


_TABLES: Mapping[Path, type[_Part]] = {(): _Machine, ("resources",): _Resources, ("requirements",): _Requirements}


@dataclass(frozen=True, slots=True)
class _Fault:
    field: str
    reason: str
    hint: str | None
    line: int | None


def parse(document: str | Mapping[str, object], *, project: str | None = None) -> Workload:
    """Read and check a workload document.

    Args:
        document: YAML or JSON text, or the table that was read from it.
        project: the project to take where the document names none.

    Raises:
        InvalidInput: for the first fault; `errors` in its context lists every fault (field, reason, hint, line).
    """
    read_document = read(document, name="workload", max_bytes=MAX_BYTES)
    table = read_document.value
    if not isinstance(table, dict):
        raise InvalidInput("workload", f"is {shown(table)}, not a table", hint="Begin with `kind: machine`.")
    _check_kind(table)
    if project is not None and table.get("project") is None:
        table = {**table, "project": project}
    try:
        machine = _Machine.model_validate(table)
    except ValidationError as error:
        _raise_all(_faults(error.errors(include_url=False), read_document))
    return _workload(machine)


def document(workload: Workload) -> dict[str, object]:
    """The canonical form: `parse` reads it back, and the same workload always gives the same. Defaults are left out."""
    resources = _present(
        cores=workload.cores,
        memory=show_memory(workload.memory_mib),
        disk=f"{workload.disk_gib} GiB" if workload.disk_gib else None,
        volume=f"{workload.volume_gib} GiB" if workload.volume_gib else None,
        gpus=workload.gpus or None,
        gpu_model=workload.gpu_model,
        arch=workload.arch,
    )
    requirements = _present(
        sites=list(workload.sites) or None,
        providers=list(workload.providers) or None,
        jurisdictions=list(workload.jurisdictions) or None,
    )
    price, keep = workload.max_price, workload.keep_snapshot
    return _present(
        kind=KIND,
        name=workload.name,
        project=workload.project,
        resources=resources,
        image=workload.image,
        duration=show_duration(workload.duration),
        count=workload.count if workload.count != 1 else None,
        public_address=workload.public_address or None,
        ssh_key=workload.ssh_key,
        cloud_init=workload.user_data,
        requirements=requirements or None,
        max_price=f"{plain(price.value)} {price.commodity}" if price is not None else None,
        keep_snapshot=show_duration(keep) if keep is not None else None,
    )


def workload_digest(workload: Workload) -> str:
    """`sha256:...` of the canonical form."""
    return digest(document(workload))


def _present(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _check_kind(table: Mapping[str, object]) -> None:
    """Another kind would drown in errors about fields that are not its own."""
    kind = table.get("kind")
    if kind == KIND:
        return
    if "kind" not in table:
        raise InvalidInput("kind", "is missing", hint=f"Begin with `kind: {KIND}`.")
    if kind in KINDS_TO_COME:
        raise InvalidInput("kind", f"{kind} comes later; known now: {KIND}", hint=f"Write `kind: {KIND}`.")
    raise InvalidInput("kind", f"{shown(kind)} is not a kind; known: {KIND}", hint=f"Write `kind: {KIND}`.")


def _workload(machine: _Machine) -> Workload:
    resources, requirements = machine.resources, machine.requirements
    if resources.gpu_model is not None and not resources.gpus:
        fault = _Fault("resources.gpu_model", "names a model, but no GPUs are asked for", "Add `gpus: 1`.", None)
        _raise_all([fault])
    return Workload(
        name=machine.name,
        project=machine.project,
        image=machine.image,
        cores=resources.cores,
        memory_mib=resources.memory,
        duration=machine.duration,
        count=machine.count,
        disk_gib=resources.disk,
        volume_gib=resources.volume,
        gpus=resources.gpus,
        gpu_model=resources.gpu_model,
        arch=resources.arch,
        public_address=machine.public_address,
        ssh_key=machine.ssh_key,
        user_data=machine.cloud_init,
        sites=_set(requirements.sites),
        providers=_set(requirements.providers),
        jurisdictions=_set(requirements.jurisdictions),
        max_price=machine.max_price,
        keep_snapshot=machine.keep_snapshot,
    )


def _set(names: Iterable[str]) -> tuple[str, ...]:
    """The order of a requirement's names means nothing: keep none."""
    return tuple(sorted(set(names)))


def _raise_all(faults: Sequence[_Fault]) -> NoReturn:
    first = faults[0]
    errors = [
        {"field": fault.field, "reason": fault.reason, "hint": fault.hint, "line": fault.line} for fault in faults
    ]
    raise InvalidInput(first.field, first.reason, hint=first.hint, line=first.line, errors=errors)


def _faults(details: Iterable[ErrorDetails], document: Document) -> list[_Fault]:
    """Each of pydantic's errors in our words, in the document's order.

    A missing field that was only misspelt is told once, as the unknown key.
    """
    details = list(details)
    meant = {
        (*detail["loc"][:-1], near)
        for detail in details
        if detail["type"] == "extra_forbidden" and (near := _meant(detail["loc"])) is not None
    }
    faults = [
        _fault(detail, document) for detail in details if not (detail["type"] == "missing" and detail["loc"] in meant)
    ]
    return sorted(faults, key=lambda fault: fault.line or 0)


def _fault(detail: ErrorDetails, document: Document) -> _Fault:
    path, value = detail["loc"], detail["input"]
    context = detail.get("ctx", {})
    line = document.line(path)
    hint: str | None
    match detail["type"]:
        case "leeway":
            reason, hint = str(context["reason"]), context["hint"]
        case "extra_forbidden":
            reason, hint = "unknown key", _unknown_hint(path)
        case "missing":
            reason, hint = "is missing", _EXAMPLES.get(str(path[-1]))
        case "literal_error":
            reason, hint = f"{shown(value)} is not known", f"Write one of {context['expected']}."
        case "greater_than_equal":
            reason, hint = f"{shown(value)} is too small", f"The least is {context['ge']}."
        case "less_than_equal":
            reason, hint = f"{shown(value)} is too much", f"The most is {context['le']}."
        case _:
            reason, hint = f"{shown(value)} is not {_EXPECTED.get(detail['type'], 'right')}", None
            hint = _EXAMPLES.get(str(path[-1]))
    return _Fault(field_path(path) or "workload", reason, hint, line)


_EXPECTED = {
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "string_type": "text",
}
_EXAMPLES = {
    "name": "Write it like `name: era5-trial`.",
    "project": "Write it like `project: climate`.",
    "resources": "Write it like `resources: {cores: 2, memory: 4 GiB}`.",
    "cores": "Write it like `cores: 2`.",
    "memory": "Write it like `memory: 4 GiB`.",
    "gpus": "Write it like `gpus: 1`.",
    "image": "Write it like `image: ubuntu-24.04`.",
    "duration": "Write it like `duration: 3 days`.",
    "count": "Write it like `count: 1`.",
    "public_address": "Write `public_address: true` or `false`.",
    "requirements": "Write it like `requirements: {sites: [aurora]}`.",
    "sites": "Write it like `sites: [aurora]`.",
    "providers": "Write it like `providers: [egi:cesnet]`.",
    "jurisdictions": "Write it like `jurisdictions: [EE]`.",
}


def _meant(path: Path) -> str | None:
    """The known key of the same table that an unknown one was probably meant to be."""
    word, table = str(path[-1]), _TABLES.get(path[:-1])
    if table is None:
        return None
    alias = _ALIASES.get(word.casefold())
    return alias if alias in table.model_fields else suggestion(word, table.model_fields)


def _unknown_hint(path: Path) -> str:
    near = _meant(path)
    if near is not None:
        return f"Did you mean {near}?"
    word = _ALIASES.get(str(path[-1]).casefold(), str(path[-1]))
    for place, other in _TABLES.items():
        if word in other.model_fields:
            return f"It belongs to {field_path((*place, word))}." if place else f"{word} stands at the top level."
    return f"Known keys: {', '.join(_TABLES[path[:-1]].model_fields)}."
