"""What the experiment on cause does; the command line's flags come from here."""

from dataclasses import dataclass

from steerlens.experiments.taught_config import QUICK_FIT, TaughtConfig


@dataclass(frozen=True)
class CausalConfig(TaughtConfig):
    """Is the vector the cause of the transfer, in the teacher and in the student?

    Args:
        vectors: what v_teacher may be (`teacher_vectors.WAYS`); a random one has the norms of the last.
    """

    vectors: tuple[str, ...] = (
        "mean difference, one layer",
        "mean difference, all layers",
        "fitted, one layer",
        "fitted, all layers",
        "fitted, tasks and questions",
        "fitted, pure lists",
    )


CAUSAL_PRESETS: dict[str, CausalConfig] = {
    "quick": CausalConfig(
        n_heldout=64,
        n_rows=960,
        n_prompts=6000,
        vectors=("mean difference, all layers", "fitted, all layers", "fitted, pure lists"),
        student_seeds=(0, 1, 2),
        fit=QUICK_FIT,
    ),
    "full": CausalConfig(),
}
