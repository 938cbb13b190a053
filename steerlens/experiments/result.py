"""What every experiment returns."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlens.experiments.claims import Claim


@dataclass(frozen=True)
class ExperimentResult:
    """Claims with their verdicts, everything that was measured (as in results.json), and where the report stands."""

    claims: tuple[Claim, ...]
    measures: dict[str, Any]
    report: Path
