import math
import random
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from moesim.errors import InputError
from moesim.located_yaml import LocatedDocument, load_yaml, parse_yaml, validate
from moesim.mistakes import Mistakes
from moesim.units import Bandwidth, Count, Number


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Wire(Block):
    bandwidth: Bandwidth = Field(description="Peak rate.")
    count: Count = Field(1, ge=1)

    @model_validator(mode="after")
    def _not_thirteen(self):
        if self.count == 13:
            raise Mistakes((("count",), "thirteen wires", "take twelve"))
        return self


class Ring(Block):
    kind: Literal["ring"]
    size: Count = Field(gt=2)


class Star(Block):
    kind: Literal["star"]
    arms: Count


class Net(Block):
    name: str
    wire: Wire
    shape: Annotated[Ring | Star, Field(discriminator="kind")] | None = None
    wires: list[Wire] = []
    named: dict[str, Wire] = {}
    load: Number | list[Number] = 1.0
    on: bool = False


GOOD = "name: a\nwire: {bandwidth: 50GB/s}\n"


def told(text, **kwargs):
    with pytest.raises(InputError) as refused:
        validate(Net, parse_yaml(text, "net.yaml"), **kwargs)
    return str(refused.value).splitlines()


def test_yaml_1_2_values_mean_what_they_look_like():
    data = parse_yaml(
        "a: no\nb: 1e9\nc: 010\nd: 12:30:45\ne: 0o10\nf: ~\ng: '1'\nh: -.inf\ni: true\nj: 1_000\n"
        "k: 2026-01-01\nl: +.5\nm: 0x1F\nn: .nan\no: |\n  5\np: -3\nq: yes\nr:\nno: 1\n1: x\n<<: 3\n"
    ).data
    assert math.isnan(data.pop("n"))
    assert data == {
        "a": "no", "b": 1e9, "c": 10, "d": "12:30:45", "e": 8, "f": None, "g": "1", "h": -math.inf, "i": True,
        "j": "1_000", "k": "2026-01-01", "l": 0.5, "m": 31, "o": "5\n", "p": -3, "q": "yes", "r": None,
        "no": 1, "1": "x", "<<": 3,
    }  # fmt: skip
    assert isinstance(data["b"], float)
    assert isinstance(data["c"], int)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\na: 2", "f.yaml:2:1: key 'a' appears twice in this block; keep one of them"),
        ("a: {x: 1, x: 2}", "f.yaml:1:11: key 'x' appears twice"),
        ("a: *x", "f.yaml:1:4: an alias (*x)"),
        ("a: &x 1", "f.yaml:1:4: an anchor (&x)"),
        ("a: !!python/object:os.system x", "f.yaml:1:4: a tag (tag:yaml.org,2002:python/object:os.system)"),
        ("a: 1\n---\nb: 2", "f.yaml:2:1: a second YAML document"),
        ("%YAML 1.1\n---\na: no", "f.yaml:2:1: a YAML directive"),
        ("a: [1, 2", "f.yaml:1:9: not valid YAML: expected ',' or ']'"),
        ("a: 'x", "f.yaml:1:6: not valid YAML"),
        ("a: b: c", "f.yaml:1:5: not valid YAML"),
        ("? [1]\n: 2", "f.yaml:1:3: a key that is not plain text"),
        ('a: "\\UFFFFFFFF"', "f.yaml: not valid YAML"),
        ("", "f.yaml: is empty"),
        ("# nothing but this\n", "f.yaml: is empty"),
        ("a: \0", "f.yaml: holds a NUL character"),
        ("[" * 100, "f.yaml:1:65: nested deeper than 64"),
        ("\n".join(" " * i + "- " for i in range(100)), "f.yaml:65:65: nested deeper than 64"),
        (b"\xff\xfea\x00", "f.yaml: is UTF-16 text"),
        (b"\xef\xbb\xbfa: 1", "f.yaml: starts with a byte order mark"),
        (b"ok: 1\na: \xff", "f.yaml: byte 9 (line 2) is not UTF-8 text"),
        (b"a" * 20_001, "f.yaml:1: a value of more than 20,000 characters"),
        ("a: 1\nb: '" + "x" * 9_000_000 + "'", "f.yaml: more than 30,000 values"),
        ("".join(f"k{i}: 1\n" for i in range(190_000)), "f.yaml: more than 30,000 values"),
    ],
)
def test_text_that_is_not_plain_yaml_is_refused_in_one_line_with_its_place(text, line):
    with pytest.raises(InputError) as refused:
        parse_yaml(text, "f.yaml")
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)


def test_an_alias_bomb_is_refused_at_its_first_anchor():
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    with pytest.raises(InputError, match="an anchor"):
        parse_yaml(bomb)


def test_too_many_values_are_refused_while_reading():
    with pytest.raises(InputError, match="more than 100 values"):
        parse_yaml("a: [" + "1, " * 200 + "1]", most_values=100)
    # The block, its key, the list and 97 numbers are 100 values.
    assert parse_yaml("a: [" + "1, " * 96 + "1]", most_values=100).data == {"a": [1] * 97}
    with pytest.raises(InputError, match="more than 100 values"):
        parse_yaml("a: [" + "1, " * 97 + "1]", most_values=100)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_yaml(tmp_path / "x.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        load_yaml(tmp_path)
    with pytest.raises(InputError, match="NUL"):
        load_yaml("a\0b")


def test_every_truncation_of_a_file_is_read_or_refused_in_one_line():
    text = Path("topologies/two-nodes-explicit.yaml").read_bytes()[:1500]
    for end in range(0, len(text), 7):
        try:
            parse_yaml(text[:end], "f.yaml")
        except InputError as error:
            assert len(str(error).splitlines()) == 1


def test_random_damage_never_escapes_as_another_exception():
    rng = random.Random(3)
    alphabet = "{}[],:#&*!|>'\"%@`- \n\t\\\x01\u2028\x85~?=<.é1a"
    for _ in range(400):
        letters = list(GOOD * 3)
        for _ in range(rng.randint(1, 10)):
            letters[rng.randrange(len(letters))] = rng.choice(alphabet)
        try:
            parse_yaml("".join(letters), "f.yaml")
        except InputError as error:
            assert len(str(error)) <= 500


def test_each_value_and_each_key_knows_its_line_and_column():
    document = parse_yaml("a: {b: [1, {c: 2}]}\nd: x\n", "f.yaml")
    assert document.where(("a", "b", 1, "c")) == "f.yaml:1:16"
    assert document.where(("a", "b", 1, "c"), key=True) == "f.yaml:1:13"
    assert document.where(("d",)) == "f.yaml:2:4"
    assert document.where(("d", "no", "such")) == "f.yaml:2:4"
    assert document.get(("a", "b", 1)) == {"c": 2}


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file():
    text = """name: 3
wire: {bandwith: 50GB/s, count: 0}
shape: {kind: rign, size: 2}
wires: [{bandwidth: 50}, 7]
named: {x: {bandwidth: 4GB/s, cuont: 2}}
on: maybe
loads: 3
"""
    assert told(text) == [
        "net.yaml:1:7: name: expected text, got 3",
        "net.yaml:2:7: wire.bandwidth: this key is required; add it (peak rate)",
        "net.yaml:2:8: wire.bandwith: unknown key 'bandwith'; did you mean 'bandwidth'?",
        "net.yaml:2:33: wire.count: must be at least 1, got 0",
        "net.yaml:3:8: shape: expected one of ring, star, got 'rign'; did you mean 'ring'?",
        "net.yaml:4:21: wires[0].bandwidth: 50 has no unit; "
        "write a bandwidth with its unit, such as 400Gb/s (bits) or 50GB/s (bytes)",
        "net.yaml:4:26: wires[1]: expected a block of keys, got 7",
        "net.yaml:5:31: named.x.cuont: unknown key 'cuont'; did you mean 'count'?",
        "net.yaml:6:5: on: expected true or false, got 'maybe'",
        "net.yaml:7:1: loads: unknown key 'loads'; did you mean 'load'?",
    ]


def test_the_keys_of_the_chosen_branch_of_a_union_are_the_known_ones():
    (line,) = told(GOOD + "shape: {kind: star, arms: 2, size: 3}\n")
    assert line == "net.yaml:3:30: shape.size: unknown key 'size'; keys known here: arms, kind"


def test_a_mistake_below_a_union_branch_is_blamed_at_its_own_place():
    assert told(GOOD + "shape: {kind: ring, size: 2}\n") == ["net.yaml:3:27: shape.size: must be more than 2, got 2"]
    assert told(GOOD + "shape: {size: 3}\n") == ["net.yaml:3:8: shape: the key 'kind' is required here"]
    assert told(GOOD + "load: [1, x]\n") == ["net.yaml:3:11: load[1]: expected a number, got 'x'"]


def test_what_several_branches_refuse_is_one_line():
    assert told(GOOD + "load: x\n") == ["net.yaml:3:7: load: expected a number, got 'x', or expected a list, got 'x'"]


def test_a_validator_over_several_fields_blames_the_field_it_names():
    line = told("name: a\nwire: {bandwidth: 1GB/s, count: 13}\n")
    assert line == ["net.yaml:2:33: wire.count: thirteen wires; take twelve"]


def test_nothing_where_a_block_is_needed_is_called_nothing():
    assert told("name: a\nwire:\n") == ["net.yaml:2:1: wire: expected a block of keys, got nothing"]


def test_a_part_of_a_document_can_be_validated():
    document = parse_yaml("a: 1\nnet: {name: x, wire: {bandwidth: 8Gb/s}}\n", "net.yaml")
    assert validate(Net, document, at=("net",)).wire.bandwidth == 1e9
    wrong = parse_yaml("a: 1\nnet: {name: 1, wire: {bandwidth: 8Gb/s}}\n", "net.yaml")
    with pytest.raises(InputError, match=r"^net.yaml:2:13: net.name: expected text, got 1$"):
        validate(Net, wrong, at=("net",))


def test_a_value_set_from_elsewhere_is_blamed_where_it_was_set():
    document = parse_yaml(GOOD, "net.yaml").with_value(("wire", "count"), "x", "-o wire.count=x")
    with pytest.raises(InputError) as refused:
        validate(Net, document)
    assert str(refused.value) == "-o wire.count=x: wire.count: expected a whole number, got 'x'"


def test_setting_a_value_makes_the_blocks_on_the_way_and_leaves_the_original_alone():
    document = parse_yaml("a: [1, {b: 2}]\n", "f.yaml")
    changed = document.with_value(("c", "d"), 5, "here").with_value(("a", "1", "b"), 3, "there")
    assert changed.data == {"a": [1, {"b": 3}], "c": {"d": 5}}
    assert document.data == {"a": [1, {"b": 2}]}
    assert changed.where(("c",)) == "here"


@pytest.mark.parametrize(
    ("loc", "says"), [(("a", "9"), "no entry 9 in a list of 2"), (("a", "0", "x"), "below the value 1")]
)
def test_a_value_cannot_be_set_where_nothing_can_hold_it(loc, says):
    with pytest.raises(InputError, match=says):
        parse_yaml("a: [1, 2]\n").with_value(loc, 1, "here")


def test_a_copied_block_keeps_the_places_of_its_source():
    document = parse_yaml("a: {b: 1}\nc:\n  d: {e: 2}\n", "f.yaml")
    copied = document.with_copy(("a",), document, ("c", "d"))
    assert copied.data["a"] == {"e": 2}
    assert copied.where(("a", "e")) == "f.yaml:3:10"
    assert ("a", "b") not in copied.places


def test_plain_data_without_a_file_is_validated_too():
    document = LocatedDocument({"name": "x", "wire": {"bandwidth": "1GB/s", "count": 0}}, "scenario")
    with pytest.raises(InputError, match=r"^scenario: wire\.count: must be at least 1, got 0$"):
        validate(Net, document)
