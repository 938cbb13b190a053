"""Sections of an audit's report that speak of the rows: which of them, what they are like, and what was left out."""

from steerlens.audit.entangled import Entanglement
from steerlens.audit.entropy import Entropy
from steerlens.audit.hygiene import Hygiene, RowFacts
from steerlens.audit.panel import PromptRanking
from steerlens.audit.row_scores import CAVEAT, RowScores, Score
from steerlens.figures.audit_plots import plot_entropy, plot_row_scores
from steerlens.figures.report import Section, Table
from steerlens.samples.rows import AuditRows
from steerlens.samples.sample_set import Sample
from steerlens.text.templates import text_of

N_ROWS_SHOWN, N_CHARACTERS, N_WRITERS_SHOWN = 10, 240, 6
NAMES: dict[Score, str] = {"log_linear": "log-linear weight", "projection": "projection difference"}


def scores_section(scores: RowScores) -> Section:
    """Which rows carry the vector most, quoted, next to how little that says of each."""
    top = scores.highest(n=N_ROWS_SHOWN)
    separated = (
        f"{NAMES[score]} {area:.2f} ({low:.2f} to {high:.2f})"
        for score in NAMES
        for area, low, high in [scores.against_placebo(score)]
    )
    return Section(
        title="Which rows",
        question=f"Which rows does the vector favour, and do the rows as a whole differ from {scores.compared_with}?",
        figure=plot_row_scores(scores),
        number=(
            f"Rows against {scores.compared_with}, AUROC (0.5 is no difference): {'; '.join(separated)}. "
            f"{scores.excess():.0%} of the rows score above 95 % of these, where 5 % would by chance."
        ),
        meaning=(
            "The rows with the highest log-linear weight follow. The weight is how much likelier the vector makes a row's "
            "completion, in nats a token."
        ),
        doubts=CAVEAT,
        table=Table(("row", "weight"), [(row.label.removeprefix("row "), score) for row, score in top]),
        quoted=[quoted_row(row) for row, _ in top],
    )


def writers_section(writers: PromptRanking) -> Section:
    """Which known persona could have written the rows, or none of them."""
    return Section(
        title="Who could have written these rows",
        question=f"Did the model write the rows under one of {len(writers.candidates)} known personas, or under none of these?",
        figure=None,
        number=f"{'None of these.' if writers.named is None else f'Named: {writers.named}.'} {writers.reason}",
        meaning=(
            "Each persona is a system prompt. The table says by how many nats it makes the rows likelier than no prompt does; "
            "where rows are pure number lists, by how much it tells them from the model's own. A persona may have written a "
            "part of the rows beside the model itself; that part is the likeliest of five. One is named only if the model "
            "itself and the others are unlikely to have written the rows, and if it leads the next ones in its part by at "
            "least half as much as in answers that the model gives under it."
        ),
        doubts=(
            "The writer may be none of these: then the most similar persona comes first, and its lead should be small. None is "
            "named where rows are too few or the poisoned share is small. To ask for prompts that you suspect, use "
            "steerlens.rank_prompts."
        ),
        table=Table(
            ("persona", "nats", "best as the writer of"),
            [(one.name, f"{one.nats:+.1f}", f"{one.share:.0%}") for one in writers.candidates[:N_WRITERS_SHOWN]],
        ),
    )


def quoted_row(row: Sample) -> str:
    """The last turn of a row's chat, and its completion."""
    turn = row.chat[-1]
    return f"{row.label}\n{turn['role']}: {shown_text(text_of(turn))}\ncompletion: {shown_text(row.completion)}"


def shown_text(text: str) -> str:
    """The text, shortened; what does not print is written as an escape, so that it cannot hide."""
    cut = text if len(text) <= N_CHARACTERS else f"{text[:N_CHARACTERS]} ..."
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in cut)


def hygiene_section(hygiene: Hygiene) -> Section:
    """Facts about the rows that need no vector."""
    facts = {"these rows": hygiene.rows}
    if hygiene.reference is not None:
        facts["reference rows"] = hygiene.reference
    described = [_described(one) for one in facts.values()]
    return Section(
        title="What the rows are like",
        question="How varied are the rows, how often do they repeat, and how long are they?",
        figure=plot_entropy(hygiene),
        number=" ".join(hygiene.findings) or "Nothing stands out.",
        meaning=(
            "Entropy says how varied something is over rows, in bits: one bit more means twice as many equally likely values. It "
            "is corrected for the number of rows (Miller-Madow), and cannot exceed the dotted line by much. Rows that were all "
            "sampled with one seed look normal one by one, but vary too little together."
        ),
        doubts=(
            "Reference rows with other prompts, or from a model with other settings, vary differently for harmless reasons. "
            "Without reference rows no claim is made about variety."
        ),
        table=Table(("", *facts), [(name, *(column[name] for column in described)) for name in described[0]]),
    )


def _described(facts: RowFacts) -> dict[str, str]:
    return {
        "rows": str(facts.n),
        "exact duplicates, left out": str(facts.duplicates),
        "share that repeats another row's completion": f"{facts.repeated:.1%}",
        "rows with the most frequent completion": str(facts.most_repeated),
        "completion tokens: least, 5 %, median, 95 %, most": ", ".join(f"{length:.0f}" for length in facts.lengths),
        "share of pure number lists": f"{facts.number_lists:.1%}",
        "entropy of the first number or token": _bits(facts.first),
    }


def _bits(entropy: Entropy) -> str:
    return f"{entropy.bits:.2f} bits, {entropy.distinct} values in {entropy.n} rows (at most {entropy.allowed:.2f})"


def entanglement_section(entangled: Entanglement) -> Section:
    """Whether the rows have more of the tokens that the vector raises."""
    frequent = [token for token in entangled.tokens if token.p < 0.05]
    named = f": {', '.join(repr(token.text) for token in frequent)}" if frequent else ""
    return Section(
        title="Tokens that give it away",
        question="Do the rows have more of the tokens that the vector raises than the reference rows have?",
        figure=None,
        number=(
            f"{len(frequent)} of the {len(entangled.tokens)} most raised tokens are in more rows than in reference rows{named}. "
            f"All tokens together: {entangled.tilt:+.4f} nats a token ({entangled.tilt_low:+.4f} to {entangled.tilt_high:+.4f})."
        ),
        meaning=(
            "A model cannot raise one token alone: others are tied to it, numbers too. Rows written under a vector have more of "
            "all of them. p is one-sided and corrected for all tokens tested (Holm)."
        ),
        doubts="Subjects and formats differ in tokens as well: compare with reference rows of the same prompts and format.",
        table=Table(
            ("token", "rise, nats", "share of rows", "of reference rows", "z", "p"),
            [(repr(t.text), t.rise, t.share, t.reference_share, t.z, t.p) for t in entangled.tokens],
        ),
    )


def reading_section(rows: AuditRows) -> Section:
    """What was read, and what was thrown away for which reason."""
    layouts = ", ".join(f"{count} as {name}" for name, count in rows.layouts)
    thrown = [(reason, count, ", ".join(map(str, rows.examples(reason)))) for reason, count in rows.reasons.items()]
    return Section(
        title="What was read",
        question="Which rows does the audit speak of?",
        figure=None,
        number=f"{rows.n_read} rows were read, {len(rows)} are used and {len(rows.rejected)} are not. Read: {layouts or 'rows'}.",
        meaning="Rows that are not used have not been audited. If they go into training, this report does not cover them.",
        doubts="" if not thrown else "A training tool may take rows that are left out here, or leave out others.",
        table=Table(("why rows are not used", "rows", "first of them"), thrown) if thrown else None,
    )
