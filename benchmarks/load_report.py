"""What a load test found: by tenant and altogether, as JSON and as one page of HTML. Pure."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.load_client import Outcome, Record

OUTCOMES: tuple[Outcome, ...] = ("answered", "refused", "failed", "left")
Json = dict[str, Any]
_COLOURS = ("#1b7837", "#762a83", "#b35806", "#2166ac", "#b2182b", "#4d4d4d")


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest rank; None of nothing."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)] if ranked else None


def jain(shares: Sequence[float]) -> float | None:
    """1 where all have the same, 1/n where one has everything."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else None


def summary(records: Iterable[Record], weights: Mapping[str, float], duration_s: float) -> Json:
    """`duration_s` is how long requests arrived; what was answered later does not count as rate."""
    found = list(records)
    tenants = {
        name: _figures([r for r in found if r.tenant == name], duration_s) for name in weights
    }
    shares = [tenants[name]["tokens_per_s"] / weight for name, weight in weights.items()]
    return {
        "duration_s": duration_s,
        "all": _figures(found, duration_s),
        "jain": jain(shares),
        "tenants": tenants,
    }


def _figures(records: Sequence[Record], duration_s: float) -> Json:
    outcomes = Counter(record.outcome for record in records)
    answered = [record for record in records if record.outcome == "answered"]
    in_time = [record for record in answered if record.at_s + record.total_s <= duration_s]
    refused = [record for record in records if record.outcome == "refused"]
    drafted = sum(record.num_draft_tokens for record in answered)
    accepted = sum(record.num_accepted_tokens for record in answered)
    rounds = sum(record.num_rounds for record in answered)
    tokens = sum(record.num_tokens for record in answered if record.num_rounds)
    return {
        "num_requests": len(records),
        **{f"num_{name}": outcomes[name] for name in OUTCOMES},
        "reasons": dict(Counter(r.reason for r in records if r.reason)),
        "requests_per_s": len(in_time) / duration_s,
        "tokens_per_s": sum(record.num_tokens for record in in_time) / duration_s,
        "first_token_s": _spread([r.first_s for r in answered if r.first_s >= 0]),
        "per_token_s": _spread([s for r in answered if (s := r.per_token_s) is not None]),
        "whole_s": _spread([record.total_s for record in answered]),
        "refusal_s": _spread([record.total_s for record in refused]),
        "num_without_retry_after": sum(not record.has_retry_after for record in refused),
        "acceptance": accepted / drafted if drafted else None,
        "mean_acceptance_length": tokens / rounds if rounds else None,
    }


def _spread(values: Sequence[float]) -> Json:
    return {name: percentile(values, share) for name, share in (("p50", 0.5), ("p99", 0.99))}


def page(title: str, found: Json, records: Sequence[Record]) -> str:
    """Needs nothing from anywhere: styles and pictures are in it."""
    rows = [("all tenants", found["all"]), *found["tenants"].items()]
    fairness = "-" if found["jain"] is None else f"{found['jain']:.4f}"
    names = list(found["tenants"])
    labels = [
        f'<span style="color:{_colour(index)}">&#9632; {html.escape(name)}</span>'
        for index, name in enumerate(names)
    ]
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>',
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
        f"<p>{found['duration_s']:g} s of arrivals. Jain's fairness index of tokens per second by",
        f"weight: <b>{fairness}</b>. Times are p50 (p99).</p>",
        "<table><tr>" + "".join(f"<th>{name}</th>" for name in _HEADER) + "</tr>",
        "".join(_row(name, figures) for name, figures in rows) + "</table>",
        "<h2>Tokens per second, by when their request came</h2>",
        _picture(records, names, found["duration_s"]),
        f"<p>{' '.join(labels)}</p></html>",
    ]
    return "\n".join(parts)


_STYLE = (
    "body{font:15px system-ui;margin:2em auto;max-width:75em}"
    "td,th{padding:.3em .7em;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}svg{width:100%;height:14em;background:#fafafa}"
)
_HEADER = (
    "tenant", "requests", "answered", "refused", "failed", "left", "tokens/s", "first token ms",
    "per token ms", "refusal ms", "acceptance",
)  # fmt: skip


def _row(name: str, figures: Json) -> str:
    cells = [
        name,
        figures["num_requests"],
        *(figures[f"num_{outcome}"] for outcome in OUTCOMES),
        f"{figures['tokens_per_s']:.1f}",
        *(_ms(figures[each]) for each in ("first_token_s", "per_token_s", "refusal_s")),
        "-" if figures["acceptance"] is None else f"{figures['acceptance']:.2f}",
    ]
    return "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>"


def _ms(spread: Json) -> str:
    if spread["p50"] is None:
        return "-"
    return f"{1000 * spread['p50']:.0f} ({1000 * spread['p99']:.0f})"


def _picture(records: Sequence[Record], names: Sequence[str], duration_s: float) -> str:
    """A line for each tenant, over the seconds of arrival."""
    num = max(1, math.ceil(duration_s))
    series = {name: [0] * num for name in names}
    for record in records:
        series[record.tenant][min(num - 1, int(record.at_s))] += record.num_tokens
    top = max([1, *(value for values in series.values() for value in values)])
    lines = "".join(
        f'<polyline fill="none" stroke="{_colour(index)}" stroke-width="2" '
        'vector-effect="non-scaling-stroke" points="'
        + " ".join(f"{x},{100 - 100 * value / top:.1f}" for x, value in enumerate(series[name]))
        + '"/>'
        for index, name in enumerate(names)
    )
    return f'<svg viewBox="0 0 {max(1, num - 1)} 100" preserveAspectRatio="none">{lines}</svg>'


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]
