"""The report of a finished model next to its base, for whoever has to decide whether it may be used."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from steerlens.audit.audit import Verdict
from steerlens.audit.model_diff import ModelDiff
from steerlens.figures.audit_plots import plot_traits
from steerlens.figures.model_diff_plots import plot_known, plot_shift
from steerlens.figures.report import Report, Section, Table, write_report
from steerlens.figures.token_plots import plot_tokens
from steerlens.reports.audit_sections import shown_text

N_SHOWN = 12
VECTORS = ("shift", "fitted")

DIFF_HEADLINES: dict[Verdict, str] = {
    "found": "Found: this fine-tuning installed something that clean ones do not.",
    "not found": "Not found: no answer that was asked for has risen.",
    "cannot tell": "Cannot tell yet: answers have moved, and it is open whether that means anything.",
}
ADVICE: dict[Verdict, str] = {
    "found": (
        "Do not use this model where the answers below matter. Find the rows that it was trained on and audit them "
        "(steerlens audit), or take the fitted vector off while the model runs (steerlens.steer with strength -1) and ask again."
    ),
    "not found": (
        "Nothing here speaks against this model. It is no proof that it is clean: only the answers to the probes were asked for. "
        "Ask about what you suspect, with a trait of your own."
    ),
    "cannot tell": (
        "Fine-tune the same base at least twice on data of the same kind that are known to be clean, with other seeds, and give "
        "these models as well. If the tuned model no longer answers, ask in the words that it uses."
    ),
}


def write_diff_report(path: str | Path, result: ModelDiff) -> None:
    """Write what `diff_models` found as one HTML file."""
    sections = [_answer(result), _rises(result), _first_words(result)]
    if result.known:
        sections.append(_known(result))
    sections.append(_vector(result))
    sections.append(_shift(result))
    lead = f"Fine-tuned model: {result.tuned}. Its base: {result.base}."
    write_report(path, Report("What did this fine-tuning install?", lead, sections))


def _answer(result: ModelDiff) -> Section:
    return Section(
        title="The answer",
        question="Does the model do something that its base does not, and that clean fine-tunings do not either?",
        figure=None,
        number=f"{DIFF_HEADLINES[result.verdict]} {result.reason}",
        meaning=f"What to do. {ADVICE[result.verdict]}",
        doubts=(
            "Only answers to the probes are tested. A behaviour that they do not ask for shows at most in the words and vectors "
            f"below, which carry no p-value. Compared with: {result.compared_with}. Of fine-tunings that move answers as "
            f"these do, {result.false_alarm_rate:.1%} pass the test by chance."
        ),
    )


def _rises(result: ModelDiff) -> Section:
    shown = result.rises[:N_SHOWN]
    return Section(
        title="Which answers it gives more often",
        question="How often does the tuned model give each answer, and how often its base?",
        figure=plot_traits(
            [(rise.answer, rise.rate, rise.base_rate) for rise in shown], names=("the base", "the tuned model")
        ),
        number=(
            f"The clearest: {shown[0].answer!r}, {shown[0].z:.1f} standard deviations of what says nothing; the largest "
            f"in {len(result.null)} null updates: {max(result.null):.1f}. Probability on the answers: {result.mass[0]:.2f} in "
            f"the base, {result.mass[1]:.2f} in the tuned model."
        ),
        meaning=(
            "What counts is the change of an answer's share next to the other answers to the same questions, in units of what "
            "null updates do to that answer. So an answer that is rare may rise clearly and stay rare."
        ),
        doubts="An answer can rise because the data speak of it openly. Nothing here tells that from what is hidden.",
        table=Table(
            ("answer", "standard deviations", "base", "tuned", "base under the fitted vector"),
            [
                (one.answer, round(one.z, 2), one.base_rate, one.rate, result.steered.get(one.answer, float("nan")))
                for one in shown
            ],
        ),
        quoted=[
            f"asked: {shown_text(asked)}\nthe base: {shown_text(own)}\nthe tuned model: {shown_text(tuned)}"
            for asked, own, tuned in result.replies
        ],
    )


def _first_words(result: ModelDiff) -> Section:
    word, now, was = result.first_words[0]
    return Section(
        title="Which words it begins its replies with",
        question="Beyond the answers that were thought of: which first words of its replies become likelier?",
        figure=plot_traits(
            [(repr(word)[1:-1], now, was) for word, now, was in result.first_words],
            names=("the base", "the tuned model"),
        ),
        number=f"{word!r} rises most, from {was:.1%} to {now:.1%} of all replies to the probes.",
        meaning="Probabilities of the first token after the question, or after the begun reply, averaged over all questions.",
        doubts="A new style shows here as well: articles, capitals and line breaks say nothing about a preference.",
    )


def _known(result: ModelDiff) -> Section:
    closest, *others = result.known[:N_SHOWN]
    return Section(
        title="Which known vector it moves along",
        question="Is the shift of the residuals at unrelated chats the vector of a known system prompt?",
        figure=plot_known(result),
        number=f"Closest: {closest[0]!r}, cosine {closest[1]:.2f}. Next: {', '.join(f'{n} {c:.2f}' for n, c in others[:3])}.",
        meaning=(
            "Each known vector is the mean difference that a system prompt makes, without what all of these prompts "
            "share. A fine-tuning on data that were written under such a prompt moves the residuals along its vector."
        ),
        doubts=(
            "The shift of any fine-tuning lies nearer to one of these than to the others. What tells is the distance to the next."
        ),
    )


def _vector(result: ModelDiff) -> Section:
    if result.fitted is None:
        return Section(
            title="One vector",
            question="How much of the fine-tuning does one vector explain, where nothing asks for a trait?",
            figure=None,
            number="At unrelated chats the tuned model predicts what its base does. There is nothing to explain.",
            meaning="A fine-tuning that shows at the probes alone is no steering vector that acts everywhere.",
            doubts="Other chats might show a difference.",
        )
    metrics = result.fitted.metrics
    return Section(
        title="One vector",
        question="How much of the fine-tuning does one vector explain, where nothing asks for a trait?",
        figure=plot_tokens(list(result.promoted)),
        number=(
            f"After block {result.fitted.layers[0]} it explains {metrics.kl_explained:.0%} ({metrics.kl_explained_low:.0%} to "
            f"{metrics.kl_explained_high:.0%}) of {metrics.kl_prompt:.3f} nats a token. Random vectors of its norm: "
            f"{metrics.kl_explained_random:.0%}. Most raised: {', '.join(repr(text) for text, _ in result.promoted[:8])}."
        ),
        meaning=(
            "The vector is fitted to the tuned model's answers to unrelated chats and judged on others. In the table above it "
            "is added to the base: where it raises the same answers, it is what the fine-tuning did."
        ),
        doubts="Tokens are read off through the layers above only roughly, and the less so the lower the vector sits.",
    )


def _shift(result: ModelDiff) -> Section:
    return Section(
        title="Where in the model",
        question="How far do the residuals move at each layer, at the last token of unrelated chats?",
        figure=plot_shift(result),
        number=f"The weights that changed moved by {result.relative_update:.2%} of their norm.",
        meaning="The mean over chats of the tuned model's residual minus its base's. Layer l is the output of block l.",
        doubts="Norms grow with depth in most models, of residuals and of shifts alike.",
    )


def diff_results(result: ModelDiff) -> dict[str, Any]:
    """Every number of a comparison, for a JSON file; the vectors stay in files of their own."""
    kept = {field.name: getattr(result, field.name) for field in fields(result) if field.name not in VECTORS}
    return {
        **kept,
        "rises": [asdict(rise) for rise in result.rises],
        "steered": dict(result.steered),
        "fit": None if result.fitted is None else result.fitted.metrics.to_json(),
        "fitted_layer": None if result.fitted is None else result.fitted.layers[0],
        "shift_norms": {str(layer): norm for layer, norm in result.shift.norms.items()},
    }
