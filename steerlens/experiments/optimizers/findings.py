"""What the optimizer comparison says next to the paper's account (arXiv 2606.00995, section 6), in words from numbers."""

from collections.abc import Iterator

from steerlens.experiments.optimizers.config import REFERENCE
from steerlens.experiments.optimizers.parts import strongest
from steerlens.experiments.rates import Record, mean_rate

PLAIN = ("sgd", "sgd, not clipped")
NOT_BY_COORDINATE = ("sgd", "sgd_momentum", "normalized_sgd", "muon")
"""Optimizers that scale no coordinate on its own; the paper's account needs that scaling."""


GAUSSIAN = 3.0
"""Kurtosis of a Gaussian."""


def against_the_paper(results: Record) -> list[str]:
    """One sentence or two for each part of the account: borne out, or what is seen instead."""
    parts = (_plain_sgd, _not_by_coordinate, _same_loss, _outliers, _taken_apart, _deciding)
    return [sentence for part in parts for sentence in part(results)]


def _plain_sgd(results: Record) -> Iterator[str]:
    arms, base = results["arms"], results["base"]["rate"]
    matched = {name: arms[name] for name in PLAIN if name in arms and arms[name]["matched"]}
    if not matched:
        yield "No plain SGD run reaches AdamW's loss here, so nothing is said about SGD at the same loss."
        return
    name, best = max(matched.items(), key=lambda item: item[1]["mean_rate"])
    times = best["mean_rate"] / base
    if times <= 2:
        verdict = "The paper's account, in which SGD does not transfer, is seen here."
    elif best["bare"]["high"] < 0:
        verdict = "The paper reports no transfer under SGD; here SGD transfers, and AdamW more."
    else:
        verdict = "Here the difference between the two is within its interval."
    yield (
        f"Plain SGD at the same loss ({name}, learning rate {best['rate']:.3g}) has a rate of {best['mean_rate']:.3f}, "
        f"{times:.1f} times the untrained one; AdamW {arms[REFERENCE]['mean_rate']:.3f}. {verdict}"
    )


def _not_by_coordinate(results: Record) -> Iterator[str]:
    arms = results["arms"]
    others = {
        name: arm
        for name, arm in arms.items()
        if name not in PLAIN and arm["matched"] and arm["optimizer"] in NOT_BY_COORDINATE
    }
    if not others:
        return
    name, best = max(others.items(), key=lambda item: item[1]["mean_rate"])
    verdict = (
        "less than AdamW, beyond the interval"
        if best["bare"]["high"] < 0
        else "not less than AdamW within the interval, so that scaling each coordinate is not needed here"
    )
    yield (
        f"Of the other optimizers that scale no coordinate on its own, {name} transfers most: {best['mean_rate']:.3f}, "
        f"{verdict}."
    )


def _same_loss(results: Record) -> Iterator[str]:
    own = results["arms"][REFERENCE]
    if own["lowest_rate_at_this_loss"] is not None:
        yield (
            f"The same loss does not mean the same student: AdamW's own runs within {results['loss_tolerance']:g} nats "
            f"have rates from {own['lowest_rate_at_this_loss']:.3f} to {own['highest_rate_at_this_loss']:.3f}."
        )


def _outliers(results: Record) -> Iterator[str]:
    own = [run for run in results["runs"] if run["optimizer"] == REFERENCE and run["compared"]]
    tail = mean_rate(own, "kurtosis")
    verdict = (
        "is heavy: there are outliers"
        if tail > 2 * GAUSSIAN
        else "is not heavy: there are no outliers to drown the rest"
    )
    yield f"The tail of the rows' gradient norms (kurtosis {tail:.1f}, a Gaussian's is {GAUSSIAN:g}) {verdict}."


def _deciding(results: Record) -> Iterator[str]:
    found = results["deciding"]
    highest = max(found["by_layer"])
    yield (
        f"Over all optimizers and learning rates, the rate goes with the strength of the vector at the questions in layer "
        f"{found['layer']} (rank correlation {highest:.2f}; with the held-out loss {found['loss']:.2f})."
    )


def _taken_apart(results: Record) -> Iterator[str]:
    most = strongest(results["parts"])
    if most is not None:
        one, off = most["bare"], results["arms"][most["without"]]
        yield (
            f"Of all parts that were switched, most hangs on this one: {most['part']}. Without it the rate is "
            f"{off['mean_rate']:.3f}, {one['value']:.1f} log odds lower ({one['low']:.1f} to {one['high']:.1f})."
        )
    else:
        yield "No part that was switched changes the trait at AdamW's loss, beyond its interval."
