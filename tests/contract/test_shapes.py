"""The sandbox answers in the shapes of a real OpenStack, but for what `allowed.json` lists with its reason."""

from __future__ import annotations

import pytest

from tests.contract.shapes.calls import CALLS
from tests.contract.shapes.comparing import SERVICES, Shapes, allowed, differences, recorded, shapes_at
from tests.contract.shapes.conformance import claimed, is_version, operation_call
from tests.contract.shapes.reducing import Shape, shape_of
from tests.contract.shapes.sandbox import sandbox_place
from tests.unit.sandbox.operations.table import OPERATIONS


@pytest.fixture(scope="module")
def at_the_sandbox() -> Shapes:
    with sandbox_place() as place:
        return shapes_at(place)


def test_every_named_call_is_recorded_once() -> None:
    named = [(ask.service, ask.name) for ask in CALLS]
    assert len(named) == len(set(named))
    assert {(service, name) for service, shapes in recorded().items() for name in shapes} == set(named)


def test_the_sandbox_differs_in_nothing_but_what_is_allowed(at_the_sandbox: Shapes) -> None:
    found = differences(recorded(), at_the_sandbox)
    assert sorted(found.keys() - allowed().keys()) == []


def test_nothing_is_allowed_that_is_no_difference_any_more(at_the_sandbox: Shapes) -> None:
    found = differences(recorded(), at_the_sandbox)
    assert sorted(allowed().keys() - found.keys()) == []


def test_every_route_of_the_sandbox_is_an_operation_of_a_client_s() -> None:
    """Operations name routes that exist, and every route is an operation, or a document of versions."""
    routes = {(service, call) for service, calls in claimed().items() for call in calls if not is_version(call)}
    assert {operation_call(operation) for operation in OPERATIONS} == routes


def test_a_difference_is_told_by_its_place() -> None:
    real = shape_of(200, {}, {"servers": [{"id": "6f2d1c54-35b8-5c0e-9d2e-1b1f6c9a7e01", "host": None}]})
    other = shape_of(200, {"Location": "http://a/"}, {"servers": [{"id": "7"}]})
    first, *_ = CALLS
    lines = differences(_only(first.service, first.name, real), _only(first.service, first.name, other))
    told = {line.partition(": ")[2] for line in lines if line.startswith(f"{first.service} {first.name}: ")}
    assert told == {
        "headers.Location is nothing, here url",
        "body.servers[].id is uuid, here digits",
        "body.servers[].host is null, here nothing",
    }


def _only(service: str, name: str, shape: Shape) -> Shapes:
    return {**{key: {} for key in SERVICES}, service: {name: shape}}


def test_items_of_a_list_are_one_shape() -> None:
    shape = shape_of(200, {}, {"ports": [{"device_id": "", "name": None, "tags": []}, {"device_id": "a", "fixed": 1}]})
    item = {"device_id": "empty|text", "name": "absent|null", "tags": [], "fixed": "absent|int"}
    assert shape["body"]["ports"] == [item]
