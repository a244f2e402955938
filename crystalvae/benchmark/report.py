"""Metrics as one table for people."""

from __future__ import annotations

from typing import Any

ROWS = {
    "draws": "draws, all counted",
    "complete": "complete",
    "structural_validity": "structural validity (0.5 Å with own images, 0.1 Å³)",
    "smact_validity": "SMACT validity",
    "valid": "both",
    "unique": "unique (StructureMatcher)",
    "novel": "novel against the training set",
    "valid_and_novel": "valid, unique and novel",
    "new_templates": "new Wyckoff templates",
    "p1_share": "P1 share",
    "group_found": "spglib finds the declared group",
    "cov_recall": "COV-R",
    "cov_precision": "COV-P",
    "density_wasserstein": "density, Wasserstein (g/cm³)",
    "num_elements_wasserstein": "number of elements, Wasserstein",
    "group_chi_square": "space groups, χ²",
    "group_jensen_shannon": "space groups, Jensen-Shannon (bits)",
    "element_jensen_shannon": "elements, Jensen-Shannon (bits)",
}
"""Metric → what the table calls it."""


def metrics_table(metrics: dict[str, Any], data: dict[str, Any] | None) -> str:
    """Markdown table of metrics with intervals, the data's own beside them.

    Args:
        metrics: of :func:`crystalvae.benchmark.generation.generation_metrics`.
        data: the same of the reference set, judged against the training set.
    """
    lines = ["| metric | value | 95 % interval | the reference data's own |"]
    lines.append("|---|---|---|---|")
    for name, label in ROWS.items():
        if name not in metrics:
            continue
        bounds = metrics.get(f"{name}_interval")
        between = f"{bounds[0]:.4f} – {bounds[1]:.4f}" if bounds else ""
        own = _number(data[name]) if data and name in data else ""
        lines.append(f"| {label} | {_number(metrics[name])} | {between} | {own} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
