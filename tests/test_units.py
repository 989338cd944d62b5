import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from moesim.errors import InputError
from moesim.units import (
    Bandwidth,
    ByteSize,
    Count,
    Duration,
    NicBandwidth,
    Number,
    exact_bandwidth,
    exact_bytes,
    exact_duration,
    format_bandwidth,
    format_bytes,
    format_duration,
    parse_bandwidth,
    parse_bytes,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "bytes_per_s"),
    [
        ("400Gb/s", 50e9),
        ("50GB/s", 50e9),
        ("3.2Tb/s", 400e9),
        ("100MiB/s", 100 * 2**20),
        ("8kb/s", 1000.0),
        (" 1e3 B/s ", 1000.0),
    ],
)
def test_bits_and_bytes_per_second_are_told_apart(text, bytes_per_s):
    assert parse_bandwidth(text) == bytes_per_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2us", 2e-6), ("1.5ms", 1.5e-3), ("0us", 0.0), ("3s", 3.0), ("100ns", 1e-7), ("7µs", 7e-6)],
)
def test_durations_are_read_to_the_nearest_float(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("64KiB", 65536), ("20MB", 20e6), ("7472B", 7472), ("1GiB", 2**30)])
def test_decimal_and_binary_prefixes_of_a_size_differ(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("parse", "text", "says"),
    [
        (parse_bandwidth, 400, "has no unit"),
        (parse_bandwidth, "400", "such as 400Gb/s"),
        (parse_bandwidth, "400Gbps", "did you mean 400Gb/s? (b is a bit, B a byte)"),
        (parse_bandwidth, "400 Gbit/s", "did you mean 400Gb/s?"),
        (parse_bandwidth, "50gb/s", "did you mean 50GB/s or 50Gb/s?"),
        (parse_bandwidth, "50GB", "did you mean 50GB/s"),
        (parse_bandwidth, "0GB/s", "more than 0"),
        (parse_bandwidth, "-4GB/s", "more than 0"),
        (parse_bandwidth, "1e400GB/s", "finite"),
        (parse_bandwidth, True, "is not a bandwidth"),
        (parse_bandwidth, "fast", "is not a bandwidth"),
        (parse_duration, 0, "has no unit"),
        (parse_duration, "3", "such as 2us, 1.5ms or 0us"),
        (parse_duration, "3 sec", "unknown unit 'sec'"),
        (parse_duration, "3US", "did you mean 3us?"),
        (parse_duration, "-1us", "0 or more"),
        (parse_duration, None, "is not a duration"),
        (parse_bytes, "64K", "unknown unit 'K'"),
        (parse_bytes, "3KB", "did you mean 3kB?"),
        (parse_bytes, "nanB", "is not a size"),
        (parse_bytes, "9" * 100 + "B", "is not a size"),
    ],
)
def test_a_quantity_that_is_not_clear_is_refused_and_the_right_form_is_shown(parse, text, says):
    with pytest.raises(InputError) as refused:
        parse(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_bandwidth(50e9), "50 GB/s"),
        (format_bandwidth(43.456e9), "43.46 GB/s"),
        (format_bandwidth(999.96e9), "1 TB/s"),
        (format_duration(1.234567e-5), "12.35 us"),
        (format_duration(0.0), "0 us"),
        (format_duration(2.5), "2.5 s"),
        (format_duration(3e-13), "0.0003 ns"),
        (format_bytes(65536), "65.54 kB"),
        (format_bytes(12), "12 B"),
        (format_duration(math.inf), "inf ns"),
    ],
)
def test_people_read_four_significant_digits(text, expected):
    assert text == expected


positive = st.floats(min_value=1.0, max_value=1e18, allow_nan=False)


@given(positive, st.floats(min_value=1e-15, max_value=1e9))
def test_exact_text_reads_back_to_the_same_float_and_is_never_longer_than_what_is_read(size, duration):
    texts = exact_bandwidth(size), exact_bytes(size), exact_duration(duration)
    assert [parse_bandwidth(texts[0]), parse_bytes(texts[1]), parse_duration(texts[2])] == [size, size, duration]
    assert max(map(len, texts)) <= 60


@given(st.sampled_from((Bandwidth, NicBandwidth, Duration, ByteSize)), st.decimals(allow_nan=False), st.sampled_from(
    ("B/s", "Gb/s", "TiB/s", "s", "us", "ps", "B", "PB")
))  # fmt: skip
def test_what_a_field_takes_it_writes_so_that_it_takes_it_again(kind, number, unit):
    field = TypeAdapter(kind)
    try:
        value = field.validate_python(f"{number}{unit}")
    except ValidationError:
        return
    assert field.validate_python(field.dump_python(value)) == value


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (NicBandwidth, "4000GB/s", "more than 1 TB/s, which no bandwidth here can be; did you mean 4000Gb/s?"),
        (NicBandwidth, "50kB/s", "less than 1 MB/s, which no bandwidth here can be; did you mean 50MB/s?"),
        (Bandwidth, "1e-300B/s", "less than 1 kB/s"),
        (Bandwidth, "1e290PB/s", "more than 100 TB/s"),
        (Duration, "1e12s", "more than 3600 s, which no duration here can be; did you mean 1e12ns?"),
        (Duration, "1e-320s", "less than 0.000001 ns"),
        (ByteSize, "1e30B", "more than 1000000 TB"),
    ],
)
def test_what_no_cluster_comes_near_is_refused_with_a_question(kind, text, says):
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(kind).validate_python(text)
    assert says in str(refused.value.errors()[0]["ctx"]["error"])


@given(positive)
def test_text_for_people_is_right_to_four_digits(value):
    assert parse_bandwidth(format_bandwidth(value)) == pytest.approx(value, rel=5.1e-4)


@pytest.mark.parametrize(
    ("kind", "given", "value", "text"),
    [
        (Bandwidth, "400Gb/s", 50e9, "50GB/s"),
        (Duration, "1500us", 1.5e-3, "1.5ms"),
        (ByteSize, "64KiB", 65536, "65.536kB"),
    ],
)
def test_pydantic_fields_read_text_and_write_exact_text(kind, given, value, text):
    adapter = TypeAdapter(kind)
    assert adapter.validate_python(given) == value
    assert adapter.dump_python(value) == text
    assert adapter.json_schema()["type"] == "string"


@pytest.mark.parametrize("value", [True, "8", 1.5, None, [1]])
def test_a_count_is_a_whole_number_and_nothing_that_looks_like_one(value):
    with pytest.raises(ValidationError):
        TypeAdapter(Count).validate_python(value)


def test_a_count_may_be_written_with_an_exponent():
    assert TypeAdapter(Count).validate_python(1e9) == 10**9


@pytest.mark.parametrize("value", [True, "0.5", None])
def test_a_number_is_neither_truth_nor_text(value):
    with pytest.raises(ValidationError):
        TypeAdapter(Number).validate_python(value)
