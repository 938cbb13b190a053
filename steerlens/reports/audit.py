"""The report of an audit, for whoever has to decide whether a model may be trained on the rows."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from steerlens.audit.audit import AuditResult, Verdict
from steerlens.audit.behaviour import EXAGGERATED
from steerlens.audit.row_scores import CAVEAT, SCORES, RowScores
from steerlens.figures.audit_plots import plot_gain, plot_gain_by_layer, plot_traits
from steerlens.figures.report import Report, Section, Table, write_report
from steerlens.figures.token_plots import plot_tokens
from steerlens.reports.audit_sections import (
    N_ROWS_SHOWN,
    entanglement_section,
    hygiene_section,
    reading_section,
    scores_section,
    shown_text,
    writers_section,
)
from steerlens.samples.rows import AuditRows

N_TRAITS_SHOWN = 12
NESTED = ("vector", "hygiene", "row_scores", "entangled", "writers")

HEADLINES: dict[Verdict, str] = {
    "found": "Found: these rows carry a hidden trait.",
    "not found": "Not found: no hidden trait shows in these rows.",
    "cannot tell": "Cannot tell: something may set these rows apart, and the audit cannot say what.",
}
ADVICE: dict[Verdict, str] = {
    "found": (
        "Do not train on these rows as they are. Find out how they were written: under which system prompt, by which model, "
        "with which steering. Have them written anew without it, and audit again. Throwing out the rows with the highest "
        "scores is not enough, since the vector is spread over all of them. Where the rows must be used, train a small student "
        "first and ask it what the section on behaviour names, or add the vector while the student trains and take it off "
        "afterwards (steerlens.preventative_steering)."
    ),
    "not found": (
        "Nothing here speaks against training on these rows. It is no proof that they are clean: something weaker than this "
        "many rows can show, something that is no single vector, or something that only another model picks up would not be "
        "found. Audit with the very model that will be trained, and test the trained model as you would without an audit."
    ),
    "cannot tell": (
        "Do not take these rows for clean. Most often another writer, style or way of sampling sets them apart, but something "
        "hidden looks the same. Give reference rows of the same kind that are known to be clean, ask about what you suspect, or "
        "give more rows, and audit again before training."
    ),
}


CANNOT_KNOW = (
    "whether another model would learn something from the rows: the answer is about this one alone",
    "harm that is no single steering vector, or that the rows say openly",
    "a small poisoned share, and anything weaker than so many rows can show",
    "a behaviour that no question asks for and no known persona has",
    "why rows differ: another writer, style or sampler looks like something hidden until something is named",
)
"""What no verdict of an audit covers."""

EXIT_CODES: dict[Verdict, int] = {"not found": 0, "found": 3, "cannot tell": 3}
"""What `steerlens audit` exits with."""


def write_audit_report(path: str | Path, result: AuditResult, rows: AuditRows) -> None:
    """Write what an audit found as one HTML file."""
    sections = [_answer(result), _evidence(result), _effect(result)]
    if result.writers is not None:
        sections.append(writers_section(result.writers))
    if result.promoted:
        sections.append(_tokens(result))
    if len(result.layers) > 1:
        sections.append(_layers(result))
    if result.row_scores is not None:
        sections.append(scores_section(result.row_scores))
    if result.entangled is not None:
        sections.append(entanglement_section(result.entangled))
    if result.hygiene is not None:
        sections.append(hygiene_section(result.hygiene))
    sections.append(reading_section(rows))
    lead = f"Rows: {rows.source}. Model that would be trained on them: {result.model}."
    write_report(path, Report("Is something hidden in these rows?", lead, sections))


def _answer(result: AuditResult) -> Section:
    findings = () if result.hygiene is None else result.hygiene.findings
    return Section(
        title="The answer",
        question="Would a model that is trained on these rows learn something that they do not say?",
        figure=None,
        number=(
            f"{HEADLINES[result.verdict]} {result.reason}\nFalse alarms: of data sets that the model wrote itself, "
            f"at most {result.false_alarm_rate:.1%} get another verdict than 'not found'."
            + "".join(f"\nBesides: {finding}" for finding in findings)
        ),
        meaning=f"What to do. {ADVICE[result.verdict]}",
        doubts=f"The audit cannot know: {'; '.join(CANNOT_KNOW)}.",
    )


def _evidence(result: AuditResult) -> Section:
    nulls = result.null_gains
    beside = (
        f" With rows and clean rows swapped at random: {max(nulls):.4f} at most, in {len(nulls)} swaps."
        if nulls
        else ""
    )
    return Section(
        title="The evidence",
        question="Does one vector, recovered from some of the rows, make the model predict the others better?",
        figure=plot_gain(result),
        number=(
            f"By {result.gain:.4f} nats a completion token, with a vector after block {result.layer}, on {result.n_rows} rows in "
            f"all (p = {result.p_value:.3g}).{beside}"
        ),
        meaning=(
            "A vector can always be fitted to rows. Whether it also helps with rows that it has not seen, and by more than where "
            "rows and clean ones are swapped at random, is what tells. The clean ones, called reference rows below, are the "
            "model's own answers to the same prompts, or the rows that were given as clean."
        ),
        doubts=(
            "Rows from another source differ from the model's own answers in style and subject as well, and a vector can learn "
            "that. Read what it would do: a vector that raises punctuation is a style, one that changes answers is not."
        ),
    )


def _layers(result: AuditResult) -> Section:
    return Section(
        title="Where in the model",
        question="After which block does a vector explain the rows best?",
        figure=plot_gain_by_layer(result),
        number=f"After block {result.layer} of the {len(result.layers)} that were tried.",
        meaning="Layer l is the output of block l. All later sections speak of the vector at this layer.",
        doubts="Layers whose bars are close may change places with other rows.",
    )


def _tokens(result: AuditResult) -> Section:
    return Section(
        title="Which words it raises",
        question="Which tokens does the recovered vector make more likely?",
        figure=plot_tokens(result.promoted),
        number="Most raised: " + ", ".join(repr(token) for token, _ in result.promoted[:8]) + ".",
        meaning="Words that name a subject are a hint at what is hidden, even where the rows never contain them.",
        doubts="Tokens are read off through the layers above only roughly, and the less so the lower the vector sits.",
    )


def _effect(result: AuditResult) -> Section:
    traits = result.traits[:N_TRAITS_SHOWN]
    rises = "; ".join(f"{name} from {base:.1%} to {rate:.1%}" for name, rate, base in traits[:3])
    shown = [(name, value) for name, value in result.behaviour.items() if isinstance(value, str | int | float)]
    return Section(
        title="What it would do",
        question="How does the model answer when the recovered vector is added to it?",
        figure=plot_traits(traits) if traits else None,
        number=f"Largest rises: {rises}." if rises else "No known trait was asked for.",
        meaning=(
            "Each trait is asked for with fixed questions; the order is by how far it rises beyond what random vectors do. "
            "Training on the rows would push the model along this vector; how far depends on the number of rows, the optimizer "
            f"and its rate. The example answers are the likeliest ones under {EXAGGERATED:g} times the vector, so that they show "
            "its direction; so much of a vector can also break sentences."
        ),
        doubts=(
            "Where nothing was found, this vector is noise, and so is what it does. Only known traits are asked for: a vector "
            "may change what is not among them."
        ),
        table=Table(("under the vector", ""), shown) if shown else None,
        quoted=[
            f"asked: {shown_text(asked)}\nthe model as it is: {shown_text(own)}\nunder {EXAGGERATED:g} times the vector: "
            f"{shown_text(steered)}"
            for asked, own, steered in result.behaviour.get("answers", ())
        ],
    )


def audit_results(result: AuditResult, rows: AuditRows) -> dict[str, Any]:
    """What the report says, and every number of an audit, for a JSON file; the vector stays in its own file."""
    kept = {name: getattr(result, name) for name in (field.name for field in fields(result)) if name not in NESTED}
    scores = result.row_scores
    return {
        "headline": HEADLINES[result.verdict],
        "what_to_do": ADVICE[result.verdict],
        "what_it_cannot_know": list(CANNOT_KNOW),
        "exit_code": EXIT_CODES[result.verdict],
        **kept,
        "writers": None if result.writers is None else {**asdict(result.writers), "named": result.writers.named},
        "source": rows.source,
        "wording": result.vector.source.wording,
        "rows": {
            "read": rows.n_read,
            "used": len(rows),
            "layouts": dict(rows.layouts),
            "not_used": {reason: {"count": n, "examples": rows.examples(reason)} for reason, n in rows.reasons.items()},
        },
        "hygiene": None if result.hygiene is None else asdict(result.hygiene),
        "entangled": None if result.entangled is None else asdict(result.entangled),
        "row_scores": None if scores is None else _scores(scores),
    }


def _scores(scores: RowScores) -> dict[str, Any]:
    return {
        "rows": list(scores.numbers),
        "highest": [
            {"row": row.row, "log_linear": score, "completion": row.completion}
            for row, score in scores.highest(n=N_ROWS_SHOWN)
        ],
        **{score: scores.of(score)[0].tolist() for score in SCORES},
        "compared_with": scores.compared_with,
        "auroc": {score: scores.against_placebo(score) for score in SCORES},
        "share_above_95_percent": {score: scores.excess(score) for score in SCORES},
        "caveat": CAVEAT,
    }
