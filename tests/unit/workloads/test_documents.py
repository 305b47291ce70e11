"""Reading documents: what is taken, and that nothing hostile gets further than an error."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.documents import canonical, digest, field_path, read, shown, suggestion
from broker.errors import InvalidInput

LIMIT = 64 * 1024


def value(text: str) -> object:
    return read(text, name="document", max_bytes=LIMIT).value


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**29), max_value=10**29)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
)
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
TABLES = st.dictionaries(
    KEYS, st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner), max_leaves=6)
)


class TestScalars:
    @pytest.mark.parametrize(
        ("text", "meant"),
        [
            ("NO", "NO"),
            ("yes", "yes"),
            ("off", "off"),
            ("true", True),
            ("False", False),
            ("~", None),
            ("", None),
            ("12", 12),
            ("-3", -3),
            ("012", 12),
            ("1:30", "1:30"),
            ("0x10", "0x10"),
            ("1_000", "1_000"),
            ("0.1", Decimal("0.1")),
            ("1e-3", Decimal("0.001")),
            ("3.", Decimal(3)),
            (".inf", ".inf"),
            (".nan", ".nan"),
            ("2026-01-01", "2026-01-01"),
            ("'12'", "12"),
            ('"true"', "true"),
            ("=", "="),
            ("1" * 40, Decimal("1" * 40)),
        ],
    )
    def test_plain_scalars_are_what_a_person_means(self, text: str, meant: object) -> None:
        found = value(f"key: {text}")
        assert found == {"key": meant}
        assert isinstance(found, dict)
        assert type(found["key"]) is type(meant)

    def test_keys_are_always_text(self) -> None:
        assert value("1: a\ntrue: b\n1.5: c\nnull: d") == {"1": "a", "true": "b", "1.5": "c", "null": "d"}

    def test_block_text_is_kept(self) -> None:
        assert value("a: |\n  #!/bin/sh\n  echo 1\n") == {"a": "#!/bin/sh\necho 1\n"}


class TestJson:
    @given(TABLES)
    def test_json_reads_back_and_a_table_is_copied(self, table: dict[str, object]) -> None:
        assert value(json.dumps(table)) == table
        copied = read(table, name="document", max_bytes=LIMIT).value
        assert copied == table
        assert copied is not table

    def test_json_that_yaml_would_refuse(self) -> None:
        assert value('{\n\t"a":\t"\\ud83d\\ude00 \\/",\n\t"b": 0.10\n}') == {"a": "\U0001f600 /", "b": Decimal("0.10")}

    def test_flow_yaml_looks_like_json_and_is_read_too(self) -> None:
        assert value("{a: 1, b: [x, 2]}") == {"a": 1, "b": ["x", 2]}


class TestLines:
    def test_each_field_has_its_line(self) -> None:
        document = read("a: 1\nb:\n  c: 2\n  d:\n    - x\n    - y: 3\n", name="document", max_bytes=LIMIT)
        assert document.line(("a",)) == 1
        assert document.line(("b", "c")) == 3
        assert document.line(("b", "d", 0)) == 5
        assert document.line(("b", "d", 1, "y")) == 6
        assert document.line(("b", "nothing", "here")) == 2

    def test_a_table_has_none(self) -> None:
        assert read({"a": 1}, name="document", max_bytes=LIMIT).line(("a",)) is None


HOSTILE = {
    "laughs": "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
    "anchor alone": "a: &a 1",
    "merge": "a: 1\n<<: *a",
    "python object": "!!python/object/apply:os.system ['true']",
    "python name": "a: !!python/name:os.system",
    "own tag": "a: !secret x",
    "harmless tag": "a: !!str 5",
    "binary": "a: !!binary aGk=",
    "deep list": "[" * 30_000,
    "deep closed list": "a: " + "[" * 20_000 + "]" * 20_000,
    "deep table": "{a: " * 10_000,
    "deep JSON": '{"a":' * 20_000 + "1" + "}" * 20_000,
    "deep JSON list": '{"a":' + "[" * 60_000,
    "deep block": "\n".join(f"{' ' * depth}a:" for depth in range(300)),
    "huge": "a: " + "x" * LIMIT,
    "NUL": "a: \x00",
    "escaped NUL": 'a: "\\0"',
    "JSON NUL": '{"a": "\\u0000"}',
    "lone surrogate": "a: \ud800",
    "JSON lone surrogate": '{"a": "\\ud800"}',
    "JSON key NUL": '{"\\u0000": 1}',
    "escape sequence": "a: \x1b[2J",
    "double key": "a: 1\na: 2",
    "double JSON key": '{"a": 1, "a": 2}',
    "two documents": "a: 1\n---\nb: 2",
    "list as key": "? [a]\n: 1",
    "table as key": "{{a: 1}: 2}",
    "unclosed": "a: [1, 2",
    "tab": "a:\n\tb: 1",
    "directive": "%YAML 9.9\n---\na: 1",
    "JSON NaN": '{"a": NaN}',
    "JSON infinity": '{"a": -Infinity}',
}


class TestHostile:
    @pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
    def test_refused_with_words_and_at_once(self, text: str) -> None:
        began = time.process_time()
        with pytest.raises(InvalidInput) as caught:
            value(text)
        assert caught.value.reason
        assert len(str(caught.value)) < 400
        assert time.process_time() - began < 1

    def test_a_number_of_any_length_costs_nothing(self) -> None:
        digits = "9" * 50_000
        assert value(f'{{"a": {digits}}}') == {"a": digits}
        assert value(f"a: {digits}") == {"a": Decimal(digits)}

    @pytest.mark.parametrize("wrong", [1.5, b"x", {1}, object(), "\x00", "\ud800"])
    def test_a_table_holds_plain_values_only(self, wrong: object) -> None:
        with pytest.raises(InvalidInput) as caught:
            read({"a": [wrong]}, name="document", max_bytes=LIMIT)
        assert caught.value.field == "a[0]"

    def test_a_table_has_text_keys(self) -> None:
        with pytest.raises(InvalidInput, match="not text"):
            read({"a": {1: 2}}, name="document", max_bytes=LIMIT)

    def test_a_table_that_holds_itself(self) -> None:
        table: dict[str, object] = {}
        table["a"] = table
        with pytest.raises(InvalidInput, match="nested"):
            read(table, name="document", max_bytes=LIMIT)

    @given(st.text(max_size=200))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        with suppress(InvalidInput):
            value(text)

    @given(st.text("{}[]:,-&*!|>'\"#%@ \nab01?.", max_size=60))
    def test_any_yaml_like_text_is_read_or_refused(self, text: str) -> None:
        with suppress(InvalidInput):
            value(text)


class TestCanonical:
    @given(TABLES)
    def test_the_order_of_keys_means_nothing(self, table: dict[str, object]) -> None:
        turned = dict(reversed(table.items()))
        assert canonical(turned) == canonical(table)
        assert digest(turned) == digest(table)
        assert json.loads(canonical(table)) == table

    @pytest.mark.parametrize("wrong", [Decimal(1), object()])
    def test_only_what_has_one_spelling(self, wrong: object) -> None:
        with pytest.raises(TypeError):
            canonical({"a": wrong})

    def test_the_digest_is_sha256(self) -> None:
        assert canonical({"b": "é", "a": 1}) == '{"a":1,"b":"é"}'.encode()
        expected = "09ad9fd2fb648cb2f62141215828ea00a62c299db05d20aa9ade2f527a301cc6"  # sha256sum of those bytes
        assert digest({"b": "é", "a": 1}) == f"sha256:{expected}"


def test_words_for_errors() -> None:
    assert field_path(("requirements", "sites", 0, "x")) == "requirements.sites[0].x"
    assert field_path(()) == ""
    assert suggestion("memroy", ["cores", "memory"]) == "memory"
    assert suggestion("GIB-HOUR", ["GiB-hour"]) == "GiB-hour"
    assert suggestion("zebra", ["cores", "memory"]) is None
    assert shown(None) == "nothing"
    assert shown(True) == "true"
    assert shown({"a": 1}) == "a table"
    assert len(shown("x" * 1000)) <= 60
