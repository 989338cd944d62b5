"""Charts of a sweep: the objective along each axis, against what it is traded for, and scaling with the ranks."""

from collections.abc import Iterator

import numpy as np

from moesim.report.charts import Chart, DotChart, LineChart, Mark, Series
from moesim.report.named_numbers import DRAWN, LOSSES, in_words, scaled
from moesim.report.palette import MARK, series_colour
from moesim.report.quantities import Floats
from moesim.report.sweep_answer import telling_axes
from moesim.report.sweep_data import Bools, Ints, SweepAxis, SweepData, short_key

_RANKS_KEY = "parallel.ep"
_MOST_TICKS = 12
_MEDIAN = "median of all points"
# Curves to compare with, drawn with dashes.
_LEVELS = (_MEDIAN, "perfect balance")
# Points of a cloud; the best of more.
_MOST_DOTS = 2000
_MOST_CURVES = 8
# Points closer than this part of the axes have their labels on each other.
_LABELS_APART = 0.05
_BEST_COLOUR = "#0072b2"
_FRONT_COLOUR = "#d55e00"


def axis_charts(data: SweepData) -> list[Chart]:
    """One chart per axis, the strongest first: the objective, other axes at the best point, and the median of all."""
    values, unit = data.scaled(data.key)
    label = _label(in_words(data.key), unit)
    anchored = "others at the best point" if data.best is not None else "others at the nearest point"
    charts: list[Chart] = []
    for index in _strongest_first(data):
        axis, held = data.axes[index], _held(data, index)
        medians = np.array([_median(values[data.places[:, index] == i]) for i in range(len(axis.values))])
        if not np.isfinite(medians).any():
            continue
        caption = f"Others held at {held}." if held else ""
        caption += " Limits do not count here." if data.limits else ""
        groups = {anchored if held else "points": _along_axis(data, index, values)}
        groups |= {_MEDIAN: medians} if held else {}
        title = axis.short if axis.words == axis.short else _capital(axis.words)
        charts.append(_along(f"axis_{index}", title, axis, caption, label, groups))
    return charts


def number_charts(data: SweepData) -> list[tuple[str, str, list[Chart]]]:
    """Imbalance, bandwidths and bytes along each axis, that of most values first, then the strongest.

    Returns:
        Per axis its name, at what the others are held, and its charts.
    """
    found = []
    for index in sorted(_strongest_first(data), key=lambda index: -len(data.axes[index].values)):
        axis, charts = data.axes[index], list[Chart]()
        for drawn in DRAWN:
            groups, label = scaled(drawn, lambda key, index=index: _along_axis(data, index, data.column(key)))  # type: ignore[misc]
            if groups:
                charts.append(_along(f"{drawn.key}_{index}", drawn.title, axis, drawn.caption, label, groups))
        losses = {
            words: _along_axis(data, index, data.column(key)) / data.losses_in_balance[key]
            for key, words in LOSSES.numbers.items()
            if data.losses_in_balance.get(key)
        }
        losses = {words: values for words, values in losses.items() if np.isfinite(values).any()}
        if losses:
            losses["perfect balance"] = np.ones(len(axis.values))
            charts.append(_along(f"losses_{index}", LOSSES.title, axis, LOSSES.caption, LOSSES.label, losses))
        if charts:
            found.append((axis.words, _held(data, index), charts))
    return found


def _strongest_first(data: SweepData) -> list[int]:
    """Axes of more than one value."""
    strength = {effect.axis: place for place, effect in enumerate(data.effects)}
    axes = [index for index, axis in enumerate(data.axes) if len(axis.values) > 1]
    return sorted(axes, key=lambda index: (strength.get(data.axes[index].name, 0), index))


def _held(data: SweepData, index: int) -> str:
    """At what the axes other than one are held."""
    others = (axis.label(int(data.places[data.anchor, a])) for a, axis in enumerate(data.axes) if a != index)
    return ", ".join(others)


def _along_axis(data: SweepData, index: int, values: Floats) -> Floats:
    """Values of the points along an axis, the others held at the best point; NaN where there is none."""
    line = data.line(index)
    return np.array([values[line[i]] if i in line else np.nan for i in range(len(data.axes[index].values))])


def _along(key: str, title: str, axis: SweepAxis, caption: str, label: str, groups: dict[str, Floats]) -> Chart:
    """Curves over a number line, dots beside words."""
    if axis.numbers is None:
        return DotChart(key, title, caption, label, axis.labels, groups, source="points.parquet")
    x, unit, name = axis.numbers
    order = np.argsort(x)
    series = [
        Series(group, x[order], y[order], series_colour(i), "dashed" if group in _LEVELS else "line")
        for i, (group, y) in enumerate(groups.items())
        if np.isfinite(y).any()
    ]
    if len(axis.keys) > 1:
        caption = f"{' + '.join(map(short_key, axis.keys))} move together. {caption}".strip()
    return LineChart(
        key=key,
        title=title,
        caption=caption,
        x_label=_label(name, unit),
        y_label=label,
        series=tuple(series),
        log_x=_geometric(x),
        x_ticks=tuple(x[order].tolist()) if _geometric(x) and len(x) <= _MOST_TICKS else (),
        source="points.parquet",
    )


def pareto_charts(data: SweepData) -> list[LineChart]:
    """The objective against each thing it is traded for; points on the front of all of them stand out."""
    y, unit = data.scaled(data.key)
    charts = []
    for traded, (word, meaning) in data.traded.items():
        x, traded_unit = data.scaled(traded)
        known = np.isfinite(x) & np.isfinite(y)
        if traded == data.key or not known.any() or np.ptp(x[known]) == 0:
            continue
        front = np.zeros(len(known), bool)
        front[list(data.front)] = True
        best = np.zeros(len(known), bool)
        if data.best is not None:
            best[data.best] = True
        clouds = (
            ("outside the limits", ~data.within, MARK),
            ("within the limits" if data.limits else "points", data.within & ~front & ~best, _BEST_COLOUR),
            ("on the front", front & ~best, _FRONT_COLOUR),
        )
        series = [
            Series(name, x[chosen], y[chosen], colour, "points")
            for name, mask, colour in clouds
            if len(chosen := _first(data, known & mask))
        ]
        series += [Series("best", x[best], y[best], "#009e73", "points", ("★",))] if (best & known).any() else []
        charts.append(
            LineChart(
                key=f"pareto_{traded}",
                title=f"{_capital(in_words(data.key))} against {word}",
                caption=f"Each dot is a point of the sweep; to the right is more of {meaning}. On the front: no other "
                f"point within the limits is better in objective, {_names(data)} at once.",
                x_label=_label(word, traded_unit),
                y_label=_label(in_words(data.key), unit),
                series=tuple(series),
                source="points.parquet",
            )
        )
    return charts


def _names(data: SweepData) -> str:
    return " and ".join(word for word, _ in data.traded.values())


def group_charts(data: SweepData) -> list[LineChart]:
    """The objective against the gate mass lost, a curve for each group that has a best point of its own.

    A curve joins the points of its group that no other of the group beats in both, whether within the limits or not.
    """
    kept = [data.per[k] for k in telling_axes(data)] if data.groups else []
    x, x_unit = data.scaled("gate_mass_lost")
    y, unit = data.scaled(data.key)
    known = np.isfinite(x) & np.isfinite(y)
    if not kept or data.key == "gate_mass_lost" or not known.any() or np.ptp(x[known]) == 0:
        return []
    held = [a for a in data.per if a not in kept]
    free = [a for a in range(len(data.axes)) if a not in data.per and len(data.axes[a].values) > 1]
    here = known & (data.places[:, held] == data.places[data.anchor, held]).all(axis=1)
    families = np.unique(data.places[here][:, kept], axis=0)
    if not 0 < len(families) <= _MOST_CURVES:
        return []
    series = []
    for position, family in enumerate(families):
        points = np.flatnonzero(here & (data.places[:, kept] == family).all(axis=1))
        points = points[np.lexsort((data.cost[points], x[points]))]
        points = points[np.diff(np.minimum.accumulate(data.cost[points]), prepend=np.inf) < 0]
        labels = _apart(
            x[points] / np.ptp(x[known]),
            y[points] / max(float(np.ptp(y[known])), 1e-30),
            [" / ".join(data.axes[a].labels[data.places[point, a]] for a in free) for point in points],
            [point in data.starred for point in points],
        )
        name = ", ".join(data.axes[a].named(int(place)) for a, place in zip(kept, family, strict=True))
        series.append(Series(name, x[points], y[points], series_colour(position), "line", labels))
    limit = data.bounds.get("gate_mass_lost")
    if limit is not None:
        ends = np.concatenate([one.y for one in series])
        across = np.array([ends.min(), ends.max()])
        at = np.full(2, limit * (100 if x_unit == "%" else 1))
        series.append(Series("limit", at, across, MARK, "dashed"))
    names = " / ".join(data.axes[a].short for a in free)
    fixed = ", ".join(data.axes[a].named(int(data.places[data.anchor, a])) for a in held)
    caption = f"A curve for each {', '.join(data.axes[a].short for a in kept)}{f' at {fixed}' if fixed else ''}: "
    return [
        LineChart(
            key="groups",
            title=f"{_capital(in_words(data.key))} against gate mass lost",
            caption=f"{caption}its points that no other of the curve beats in both, named by {names}; ★ is the best "
            f"{'within the limits' if data.limits else 'one'}.",
            x_label=_label("gate mass lost", x_unit),
            y_label=_label(in_words(data.key), unit),
            series=tuple(series),
            source="points.parquet",
        )
    ]


def _apart(x: Floats, y: Floats, labels: list[str], starred: list[bool]) -> tuple[str, ...]:
    """Star the best, and name no point that lies on one named already; ``x`` and ``y`` in parts of their ranges."""
    named: dict[int, str] = {}
    for i in sorted(range(len(labels)), key=lambda i: not starred[i]):
        if all(np.hypot(x[i] - x[j], y[i] - y[j]) > _LABELS_APART for j in named):
            named[i] = f"{labels[i]} ★" if starred[i] else labels[i]
    return tuple(named.get(i, "") for i in range(len(labels)))


def _first(data: SweepData, mask: Bools) -> Ints:
    """The points of a mask, the best ones of too many."""
    chosen: Ints = data.order[mask[data.order]][:_MOST_DOTS]
    return chosen


def scaling_charts(data: SweepData) -> list[LineChart]:
    """Layer time, throughput and efficiency against the number of ranks, where that is an axis.

    Ideal are as many tokens per second and rank as at the fewest ranks on the same curve; efficiency is the part of
    that which is reached.
    """
    index = next((a for a, axis in enumerate(data.axes) if _RANKS_KEY in axis.keys), None)
    if index is None or len(data.axes[index].values) < 2:
        return []
    time, unit = data.scaled("layer_time_s")
    rate = data.column("tokens") / data.column("layer_time_s") / data.column("ranks")
    times, rates, shares = [], [], []
    for position, (name, points) in enumerate(_families(data, index)):
        ranks = data.column("ranks")[points]
        order = [point for point in points[np.argsort(ranks, kind="stable")] if np.isfinite(rate[point])]
        x, colour = data.column("ranks")[order], series_colour(position)
        if len(order) < 2 or (np.diff(x) <= 0).any():  # other keys move along with the ranks: that is no curve
            continue
        times.append(Series(name, x, time[order], colour))
        per_s = rate[order] * x / 1e6
        rates += [
            Series(name or "simulated", x, per_s, colour),
            Series(f"{name}, ideal".strip(", "), x, per_s[0] / x[0] * x, colour, "dashed"),
        ]
        shares.append(Series(name, x, 100 * rate[order] / rate[order[0]], colour))
    if not times:
        return []
    held = "Axes that have no curve of their own are held at the best point." if len(data.axes) > 2 else ""
    return [
        LineChart("scaling_time", "Layer time against ranks", held, "ranks (EP)", _label("layer time", unit),
                  tuple(times), source="points.parquet"),
        LineChart("scaling_throughput", "Throughput against ranks",
                  f"Through this layer. Ideal: as many per GPU as at the fewest ranks. {held}".strip(),
                  "ranks (EP)", "million tokens per second", tuple(rates), source="points.parquet"),
        LineChart("scaling_efficiency", "Efficiency against ranks",
                  f"Tokens per second and GPU over that at the fewest ranks. {held}".strip(), "ranks (EP)",
                  "efficiency (%)", tuple(shares), (Mark("as at the fewest ranks", 100.0),), source="points.parquet"),
    ]  # fmt: skip


def _families(data: SweepData, index: int) -> Iterator[tuple[str, Ints]]:
    """Curves along one axis: one per value of the smallest other axis, the rest at the best point."""
    sizes = {a: len(axis.values) for a, axis in enumerate(data.axes) if a != index and len(axis.values) > 1}
    curves = min(sizes, key=lambda a: (sizes[a], a), default=None)
    if curves is None or sizes[curves] > _MOST_CURVES:
        yield "others at the best point" if sizes else "", np.array(sorted(data.line(index).values()))
        return
    held = data.places[data.anchor]
    others = [a for a in range(len(data.axes)) if a not in (index, curves)]
    same = (data.places[:, others] == held[others]).all(axis=1)
    for place in range(sizes[curves]):
        yield data.axes[curves].label(place), np.flatnonzero(same & (data.places[:, curves] == place))


def _label(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _median(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def _geometric(x: Floats) -> bool:
    """Whether numbers are spaced more evenly on a logarithmic line: 100, 200, 400 rather than 1, 2, 3."""
    if len(x) < 3 or x.min() <= 0:
        return False
    steps, ratios = np.diff(np.sort(x)), np.diff(np.sort(np.log(x)))
    return bool(steps.std() / steps.mean() > 1.2 * ratios.std() / ratios.mean())
