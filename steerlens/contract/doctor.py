"""The contract on the user's own model, as a table that is printed while it is measured."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from steerlens.contract.check import Outcome, Subject, examine
from steerlens.contract.checks import CHECKS
from steerlens.models.bridge import huggingface_model
from steerlens.models.identity import bridge_mode, model_name

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def doctor(load: Callable[[], "TransformerBridge"], adapter: Path | None, write: Callable[[str], None]) -> bool:
    """Examine the model that `load` gives; whether nothing fails. A check that cannot run is no failure."""
    try:
        model = load()
    except Exception as error:
        write(f"{'loading':15} fails       {type(error).__name__}: {error}")
        return False
    write(
        f"{model_name(model)}: {type(huggingface_model(model)).__name__}, {model.cfg.n_layers} layers, "
        f"d_model {model.cfg.d_model}, {bridge_mode(model)}\n"
    )
    failed = []
    for outcome in examine(Subject(model, adapter), CHECKS):
        write(_line(outcome))
        failed += [outcome.check.name] if outcome.status == "fails" else []
    write(f"\n{len(failed)} of {len(CHECKS)} checks fail: {', '.join(failed)}." if failed else "\nNothing fails.")
    return not failed


def _line(outcome: Outcome) -> str:
    measured = ""
    if outcome.measurement is not None:
        sign = ">=" if outcome.measurement.at_least else "<="
        measured = f"{outcome.measurement.value:.3g} {sign} {outcome.measurement.bound:g}"
    note = f" ({outcome.note})" if outcome.note else ""
    return f"{outcome.check.name:15} {outcome.status:11} {measured:20} {outcome.check.claim}{note}"
