from moesim.profile.command import summary, uneven_load
from moesim.profile.points import Point


def uneven(shape, tokens=64):
    return Point("grouped_gemm_up", tokens=tokens, experts_local=8, hidden=64, inter=32, load_shape=shape)


def test_uneven_load_is_compared_with_its_balanced_twin(row):
    times = {"balanced": 10.0, "zipf1.2": 12.0, "one-hot": 80.0}
    rows = [
        row(uneven(shape, tokens), median_us=str(scale * time))
        for tokens, scale in ((64, 1), (128, 2))
        for shape, time in times.items()
    ]
    rows.append(row(uneven("one-hot", 8), median_us="1"))  # has no twin
    rows.append(row(uneven("zipf1.2", 256), median_us="", status="failed: x"))
    one_hot, zipf = uneven_load(rows)
    assert (one_hot.load_shape, one_hot.factor, one_hot.fullest, one_hot.points) == ("one-hot", 8.0, 8.0, 2)
    assert zipf.factor == 1.2
    assert 3 < zipf.fullest < 4


def test_the_summary_counts_rows_and_names_drift(row):
    rows = [row(Point("copy", dtype="", tokens=size)) for size in (4096, 8192)]
    rows.append(row(Point("swiglu", tokens=1, inter=8), status="unsupported: no", median_us=""))
    assert summary(rows, "a.csv", "budget", 9) == "a.csv: 3 rows, 2 ok, 1 unsupported; budget, 9 points left"
    rows += [row(Point("anchor_copy", variant=when, tokens=8), median_us=us) for when, us in (("s", "10"), ("e", "11"))]
    assert "anchors moved by anchor_copy 9.5 % (the device drifted, the table is marked; limit 3 %)" in summary(
        rows, "a.csv", "finished", 0
    )
    rows += [row(uneven(shape), median_us="7") for shape in ("balanced", "one-hot")]
    assert summary(rows, "a.csv", "finished", 0).splitlines()[-1] == (
        "grouped_gemm_up bf16, one-hot: 1.00 x the balanced time, fullest expert 8.00 x the mean (1 sizes)"
    )
