"""What came out of the trials, kept by measure, subject and figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

__all__ = ["Results", "Series"]


@dataclass
class Series:
    """One figure's values, one for each round."""

    values: list[float] = field(default_factory=list)

    @property
    def middle(self) -> float:
        """Give the median."""
        return median(self.values)


@dataclass
class Results:
    """Every figure that was measured, and the reason for every one that was not."""

    series: dict[tuple[str, str, str], Series] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, measure: str, subject: str, answer: dict[str, Any]) -> None:
        """Keep the answer of one trial: its figures, or the reason that there are none."""
        if reason := answer.get("reason"):
            self.reasons[measure, subject] = reason
        for figure, value in answer.get("figures", {}).items():
            self.series.setdefault((measure, subject, figure), Series()).values.append(value)

    def get(self, measure: str, subject: str, figure: str) -> Series | None:
        """Look up the values of a figure; None where it was not measured."""
        return self.series.get((measure, subject, figure))

    def middle(self, measure: str, subject: str, figure: str) -> float | None:
        """Look up the median of a figure; None where it was not measured."""
        found = self.get(measure, subject, figure)
        return found.middle if found else None

    def derive(self) -> None:
        """Add the CPU of each further event in microseconds: the whole less the start."""
        for measure, subject, figure in list(self.series):
            start = self.middle("start", subject, "cpu_ms")
            if (measure, figure) != ("delivery", "cpu_ms") or start is None:
                continue
            whole = self.series[measure, subject, figure].values
            arrived = self.series[measure, subject, "arrived"].values
            further = [
                max(0.0, cpu - start) * 1e3 / count
                for cpu, count in zip(whole, arrived, strict=True)
            ]
            self.series[measure, subject, "further_us"] = Series(further)
