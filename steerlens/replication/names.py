"""Which experiments and profiles there are, found without importing any."""

from pathlib import Path

CLAIMS = Path(__file__).parent / "claims"
PROFILES = Path(__file__).parent / "models"


def known_experiments() -> tuple[str, ...]:
    """The names of all experiments, the argument first."""
    names = sorted(path.stem.replace("_", "-") for path in CLAIMS.glob("*.py") if path.stem != "__init__")
    return ("argument", *(name for name in names if name != "argument"))


def known_profiles() -> tuple[str, ...]:
    """The names of all profiles."""
    return tuple(sorted(path.stem for path in PROFILES.glob("*.toml")))
