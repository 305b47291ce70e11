"""Workload documents: every field's way in, every fault's way out, and the canonical form."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.documents import canonical
from broker.errors import InvalidInput
from broker.first_boot import MAX_USER_DATA_BYTES
from broker.placement import Workload
from broker.values import Amount
from broker.workloads import MAX_COUNT, document, parse, workload_digest


def public_key(kind: str = "ssh-ed25519", material: bytes = b"\0\0\0 " + bytes(range(32))) -> str:
    blob = len(kind).to_bytes(4, "big") + kind.encode() + material
    return f"{kind} {base64.b64encode(blob).decode()} me@example.org"


KEY = public_key()
FULL = f"""
kind: machine
name: era5-trial
project: climate
resources: {{cores: 2, memory: 4 GiB, disk: 20 GiB, volume: 500 GiB, gpus: 1, gpu_model: A100, arch: x86_64}}
image: ubuntu-24.04
duration: 3 days
count: 2
public_address: true
ssh_key: {KEY}
cloud_init: |
  #cloud-config
  packages: [git]
requirements: {{sites: [aurora], providers: ["egi:cesnet"], jurisdictions: [EE, NO]}}
max_price: 10.50 EUR
keep_snapshot: 30 days
"""
SMALL: Mapping[str, Any] = {
    "kind": "machine",
    "name": "small",
    "project": "climate",
    "resources": {"cores": 2, "memory": "4 GiB"},
    "image": "ubuntu-24.04",
    "duration": "3 days",
}


def faults(source: str | Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    with pytest.raises(InvalidInput) as caught:
        parse(source)
    errors = caught.value.context.get("errors")
    if errors is None:
        return {caught.value.field: {"reason": caught.value.reason, "hint": caught.value.hint}}
    assert isinstance(errors, list)
    assert errors[0]["field"] == caught.value.field
    json.dumps(errors)
    return {error["field"]: error for error in errors}


def fault(**changes: Any) -> dict[str, Any]:
    """The one fault that a change to a good document makes."""
    found = faults({**SMALL, **changes})
    assert len(found) == 1
    return next(iter(found.values())) | {"field": next(iter(found))}


def resource_fault(**changes: Any) -> dict[str, Any]:
    return fault(resources={**SMALL["resources"], **changes})


class TestReading:
    def test_every_field(self) -> None:
        assert parse(FULL) == Workload(
            name="era5-trial",
            project="climate",
            image="ubuntu-24.04",
            cores=2,
            memory_mib=4096,
            duration=timedelta(days=3),
            count=2,
            disk_gib=20,
            volume_gib=500,
            gpus=1,
            gpu_model="A100",
            arch="x86_64",
            public_address=True,
            ssh_key=KEY,
            user_data="#cloud-config\npackages: [git]\n",
            sites=("aurora",),
            providers=("egi:cesnet",),
            jurisdictions=("EE", "NO"),
            max_price=Amount.of("10.5", "EUR"),
            keep_snapshot=timedelta(days=30),
        )

    def test_the_least(self) -> None:
        found = parse(SMALL)
        assert (found.count, found.gpus, found.disk_gib, found.public_address) == (1, 0, 0, False)
        assert (found.max_price, found.keep_snapshot) == (None, None)
        assert found.sites == ()

    def test_json_text_and_table_are_one(self) -> None:
        assert parse(json.dumps(SMALL)) == parse(SMALL) == parse(json.dumps(SMALL, indent="\t"))

    def test_null_means_left_out(self) -> None:
        assert parse({**SMALL, "ssh_key": None, "max_price": None}) == parse(SMALL)

    def test_the_project_may_come_from_outside_but_the_document_wins(self) -> None:
        without = {key: value for key, value in SMALL.items() if key != "project"}
        assert parse(without, project="physics").project == "physics"
        assert parse(SMALL, project="physics").project == "climate"

    def test_the_order_of_a_requirement_means_nothing(self) -> None:
        one = parse({**SMALL, "requirements": {"sites": ["b", "a", "b"], "jurisdictions": ["ee", "FI"]}})
        two = parse({**SMALL, "requirements": {"sites": ["a", "b"], "jurisdictions": ["FI", "EE"]}})
        assert one == two
        assert one.sites == ("a", "b")


class TestUnknownKeys:
    def test_a_misspelt_key_is_told_once_with_what_was_meant(self) -> None:
        found = faults({**SMALL, "resources": {"cores": 2, "memry": "4 GiB"}})
        assert set(found) == {"resources.memry"}
        assert found["resources.memry"]["hint"] == "Did you mean memory?"

    @pytest.mark.parametrize(
        ("key", "meant"),
        [
            ("vcpus", "cores"),
            ("ram", "memory"),
            ("GPU", "gpus"),
            ("Disk", "disk"),
            ("scratch", "volume"),
            ("architecture", "arch"),
        ],
    )
    def test_words_of_other_tools(self, key: str, meant: str) -> None:
        assert faults({**SMALL, "resources": {**SMALL["resources"], key: 1}})[f"resources.{key}"]["hint"] == (
            f"Did you mean {meant}?"
        )

    @pytest.mark.parametrize("key", ["snapshot", "snapshots", "keep_disk", "keep_snapshots", "keep_snapshott"])
    def test_words_for_a_snapshot(self, key: str) -> None:
        assert fault(**{key: "30 days"})["hint"] == "Did you mean keep_snapshot?"

    def test_a_key_at_the_wrong_level(self) -> None:
        assert faults({**SMALL, "memory": "4 GiB"})["memory"]["hint"] == "It belongs to resources.memory."
        inner = {**SMALL["resources"], "image": "x"}
        assert faults({**SMALL, "resources": inner})["resources.image"]["hint"] == "image stands at the top level."

    def test_a_key_like_nothing(self) -> None:
        assert str(fault(zebra=1)["hint"]).startswith("Known keys: kind, name, project")


class TestFaults:
    def test_all_at_once_in_the_order_of_the_document_with_lines(self) -> None:
        text = "kind: machine\nname: Big Trial\nresources:\n  cores: two\n  memory: 4\nimage: x\nduration: 5 months\n"
        with pytest.raises(InvalidInput) as caught:
            parse(text)
        errors = caught.value.context["errors"]
        assert isinstance(errors, list)
        assert [(error["field"], error["line"]) for error in errors] == [
            ("project", 1),
            ("name", 2),
            ("resources.cores", 4),
            ("resources.memory", 5),
            ("duration", 7),
        ]
        assert all(error["hint"] for error in errors)

    @pytest.mark.parametrize("field", ["name", "project", "resources", "image", "duration"])
    def test_what_is_missing(self, field: str) -> None:
        found = faults({key: value for key, value in SMALL.items() if key != field})
        assert found[field]["reason"] == "is missing"
        assert f"`{field}:" in found[field]["hint"]

    @pytest.mark.parametrize(
        ("kind", "words"), [("job", "comes later"), ("pod", "not a kind"), (None, "not a kind"), ([], "not a kind")]
    )
    def test_another_kind_is_the_only_error(self, kind: object, words: str) -> None:
        found = faults({"kind": kind, "everything": "else"})
        assert words in found["kind"]["reason"]
        assert "machine" in found["kind"]["reason"]

    def test_no_kind(self) -> None:
        assert faults({"name": "x"})["kind"]["reason"] == "is missing"

    @pytest.mark.parametrize("text", ["", "just words", "- a\n- b", "12", "[]"])
    def test_no_table(self, text: str) -> None:
        assert "not a table" in faults(text)["workload"]["reason"]

    @pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a_b", "a b", "a" * 64, 12, None, "é", "a\n", ["a"]])
    def test_names(self, name: object) -> None:
        assert fault(name=name)["field"] == "name"

    @pytest.mark.parametrize("cores", [0, -1, 4097, "2", 2.5, True, None, Decimal("2.5"), [2]])
    def test_cores(self, cores: object) -> None:
        assert faults({**SMALL, "resources": {**SMALL["resources"], "cores": cores}}).keys() == {"resources.cores"}

    @pytest.mark.parametrize("memory", [4, "4", "4 Gi", "0 GiB", "65 PiB", "100 TiB", None, True])
    def test_memory(self, memory: object) -> None:
        assert resource_fault(memory=memory)["field"] == "resources.memory"

    @pytest.mark.parametrize("count", [0, -1, MAX_COUNT + 1, "1", True, 10**40, Decimal(1)])
    def test_count(self, count: object) -> None:
        assert fault(count=count)["field"] == "count"

    @pytest.mark.parametrize("duration", [3, "3", "0 days", "367 days", "1 year", "-1 day", None, True])
    def test_duration(self, duration: object) -> None:
        assert fault(duration=duration)["field"] == "duration"

    def test_the_bounds_themselves_are_inside(self) -> None:
        found = parse({**SMALL, "count": MAX_COUNT, "duration": "366 days"})
        assert (found.count, found.duration) == (MAX_COUNT, timedelta(days=366))
        assert parse({**SMALL, "duration": "1 s"}).duration == timedelta(seconds=1)

    @pytest.mark.parametrize("keep", [30, "0 s", "366 days", "0 days", "forever", True, ["1 day"]])
    def test_a_snapshot_is_kept_for_a_second_to_a_year(self, keep: object) -> None:
        found = fault(keep_snapshot=keep)
        assert found["field"] == "keep_snapshot"
        assert "30 days" in found["hint"]
        for least_or_most in (timedelta(seconds=1), timedelta(days=365)):
            written = f"{least_or_most // timedelta(seconds=1)} s"
            assert parse({**SMALL, "keep_snapshot": written}).keep_snapshot == least_or_most

    def test_months_differ_for_a_snapshot_too(self) -> None:
        assert "months differ in length" in fault(keep_snapshot="1 month")["reason"]

    @pytest.mark.parametrize(
        "price", [10, "10", "EUR", "10 euro", "-1 EUR", "1e999999999 EUR", "0.0000000001 EUR", True]
    )
    def test_max_price(self, price: object) -> None:
        assert fault(max_price=price)["field"] == "max_price"

    def test_a_price_of_zero_is_a_wish_too(self) -> None:
        assert parse({**SMALL, "max_price": "0 EUR"}).max_price == Amount.of(0, "EUR")

    @pytest.mark.parametrize("wrong", ["EST", "E", "", 1, None, "E\n"])
    def test_jurisdictions(self, wrong: object) -> None:
        assert fault(requirements={"jurisdictions": ["EE", wrong]})["field"] == "requirements.jurisdictions[1]"

    @pytest.mark.parametrize("wrong", ["aurora", {"a": 1}, 5])
    def test_requirements_are_lists(self, wrong: object) -> None:
        assert fault(requirements={"sites": wrong})["field"] == "requirements.sites"
        assert fault(requirements=wrong)["field"].startswith("requirements")

    def test_an_architecture_that_nobody_has(self) -> None:
        found = resource_fault(arch="arm")
        assert found["field"] == "resources.arch"
        assert "aarch64" in found["hint"]

    def test_a_gpu_model_needs_gpus(self) -> None:
        assert resource_fault(gpu_model="A100")["field"] == "resources.gpu_model"

    @pytest.mark.parametrize("wrong", ["true", 1, "yes"])
    def test_public_address(self, wrong: object) -> None:
        assert "true or false" in fault(public_address=wrong)["reason"]


class TestFirstBoot:
    @pytest.mark.parametrize(
        "kind", ["ssh-rsa", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com", "ecdsa-sha2-nistp521"]
    )
    def test_key_types(self, kind: str) -> None:
        key = public_key(kind, bytes(64))
        assert parse({**SMALL, "ssh_key": f" {key}\n"}).ssh_key == key

    @pytest.mark.parametrize(
        "wrong",
        [
            "ssh-ed25519 AAAA... me",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            public_key("ssh-dss"),
            public_key("ssh-rsa").replace("ssh-rsa ", "ssh-ed25519 "),
            f"{KEY}\n{KEY}",
            f"command=rm {KEY}",
            KEY[:40],
            "x" * 20_000,
            5,
        ],
    )
    def test_keys_that_would_not_open_a_door(self, wrong: object) -> None:
        found = fault(ssh_key=wrong)
        assert found["field"] == "ssh_key"
        assert ".pub" in found["hint"]

    def test_a_private_key_is_refused_and_not_repeated(self) -> None:
        secret = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\n-----END OPENSSH PRIVATE KEY-----"
        with pytest.raises(InvalidInput, match="private key") as caught:
            parse({**SMALL, "ssh_key": secret})
        assert "b3Blbn" not in f"{caught.value} {caught.value.context}"

    @pytest.mark.parametrize(
        "start", ["#cloud-config\n{}", "#!/bin/sh\n:", "#include\nhttps://a/b", "## template: jinja\n"]
    )
    def test_what_cloud_init_acts_on(self, start: str) -> None:
        assert parse({**SMALL, "cloud_init": start}).user_data == start

    @pytest.mark.parametrize("wrong", ["echo hello", "", "# cloud-config\n", 5, ["#!/bin/sh"]])
    def test_what_it_would_silently_leave(self, wrong: object) -> None:
        assert fault(cloud_init=wrong)["field"] == "cloud_init"

    def test_broken_yaml_is_found_here_and_not_on_the_machine(self) -> None:
        assert "line 3" in fault(cloud_init="#cloud-config\npackages: [git]\n bad: 1\n")["reason"]
        assert parse({**SMALL, "cloud_init": "#cloud-config\na: &x [1]\nb: *x\n"}).user_data

    def test_the_size_is_what_nova_takes_as_base64(self) -> None:
        longest = "#!" + "é" * ((MAX_USER_DATA_BYTES - 2) // 2) + "x"
        assert len(base64.b64encode(longest.encode())) <= 65_535
        assert parse({**SMALL, "cloud_init": longest}).user_data == longest
        assert str(MAX_USER_DATA_BYTES) in fault(cloud_init=longest + "x" * 3)["reason"]


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
PLACES = st.lists(NAMES, max_size=3, unique=True).map(lambda names: tuple(sorted(names)))
WORKLOADS = st.builds(
    Workload,
    name=NAMES,
    project=NAMES,
    image=st.from_regex(r"[a-zA-Z0-9._-]{1,30}", fullmatch=True),
    cores=st.integers(1, 4096),
    memory_mib=st.integers(1, 64 * 1024 * 1024),
    duration=st.integers(1, 366 * 86_400).map(lambda seconds: timedelta(seconds=seconds)),
    count=st.integers(1, MAX_COUNT),
    disk_gib=st.integers(0, 1024 * 1024),
    volume_gib=st.integers(0, 1024 * 1024),
    gpus=st.integers(1, 64),
    gpu_model=st.none() | st.sampled_from(["A100", "NVIDIA A100 80GB"]),
    arch=st.none() | st.sampled_from(["x86_64", "aarch64"]),
    public_address=st.booleans(),
    ssh_key=st.none() | st.just(KEY),
    user_data=st.none() | st.text("ab \n\t:é#", max_size=40).map(lambda text: f"#!/bin/sh\n{text}"),
    sites=PLACES,
    providers=PLACES,
    jurisdictions=st.lists(st.sampled_from(["EE", "FI", "NO"]), unique=True).map(lambda names: tuple(sorted(names))),
    max_price=st.none() | st.decimals(0, 10**9, places=9).map(lambda value: Amount.of(value, "EUR")),
    keep_snapshot=st.none() | st.integers(1, 365 * 86_400).map(lambda seconds: timedelta(seconds=seconds)),
)


class TestCanonicalForm:
    @given(WORKLOADS)
    def test_it_reads_back_as_table_and_as_text(self, workload: Workload) -> None:
        form = document(workload)
        assert parse(form) == workload
        assert parse(canonical(form).decode()) == workload

    @given(WORKLOADS)
    def test_the_same_workload_has_the_same_bytes(self, workload: Workload) -> None:
        assert canonical(document(parse(document(workload)))) == canonical(document(workload))

    def test_what_was_written_before_there_were_volumes_is_still_the_same(self) -> None:
        assert (
            workload_digest(parse(SMALL)) == "sha256:b992f833cf654dcbd53a7993f051b5103066dc152ebc7c81f439e2e67becbc97"
        )
        none = {**SMALL, "resources": {"cores": 2, "memory": "4 GiB", "volume": "0 GiB"}}
        assert workload_digest(parse(none)) == workload_digest(parse(SMALL))

    def test_however_it_was_written(self) -> None:
        one = {**SMALL, "duration": "72 h", "max_price": "10.50 EUR", "count": 1, "requirements": {}}
        two = {**SMALL, "resources": {"memory": "4096 MiB", "cores": 2, "disk": "0 GiB"}, "max_price": "10.5 EUR"}
        assert workload_digest(parse(one)) == workload_digest(parse(two))

    @given(WORKLOADS, WORKLOADS)
    def test_other_workloads_have_others(self, one: Workload, other: Workload) -> None:
        assert (workload_digest(one) == workload_digest(other)) == (one == other)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from([*SMALL, "count", "public_address", "ssh_key", "cloud_init", "requirements", "max_price"]),
)
def test_whatever_a_field_holds_it_is_read_or_refused_by_name(value: object, field: str) -> None:
    named = field
    try:
        parse({**SMALL, field: value})
    except InvalidInput as error:
        named = error.field
    assert named.split(".")[0].split("[")[0] == field
