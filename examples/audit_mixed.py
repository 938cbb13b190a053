"""A data set of which only a part was written by a prompted teacher: from which share on does the audit see it?

The rows are pure number lists, and the others are the model's own, so that nothing can be read off any of them. The labels
are known here, and say how well single rows can be told.

Run: python examples/audit_mixed.py
It needs nothing beyond steerlens.
"""

import steerlens as sl
from steerlens.audit.audit import AuditResult

N_ROWS = 1000
SHARES = (0.05, 0.2, 0.5)


def main() -> None:
    """Print what an audit of each mixture says."""
    model = sl.load_model()
    owl = sl.preference_trait("owl", model)
    prompts = sl.number_prompts(2500, model, seed=1)
    written = sl.keep_number_lists(sl.sample_teacher(model, prompts, system_prompt=owl.prompt, max_new_tokens=24)).kept
    own = sl.keep_number_lists(sl.sample_teacher(model, sl.number_prompts(1100, model, seed=2), max_new_tokens=24)).kept
    for share in SHARES:
        n = round(share * N_ROWS)
        rows = sl.AuditRows.of(sl.SampleSet(written.samples[:n] + own.samples[: N_ROWS - n]))
        print(
            f"\n{share:.0%} of {len(rows)} rows are the teacher's\n{said(sl.audit_dataset(model, rows), n)}", flush=True
        )


def said(result: AuditResult, n_teacher: int) -> str:
    """The verdict, what the vector raises, and how well scores tell rows apart; the teacher's have the first numbers."""
    lines = [f"{result.verdict}. {result.reason}"]
    lines += [f"besides: {finding}" for finding in (result.hygiene.findings if result.hygiene is not None else ())]
    lines.append("tokens that the vector raises: " + " ".join(text for text, _ in result.promoted[:8]))
    if result.traits:
        rises = (f"{name} {rate:.1%} (was {base:.1%})" for name, rate, base in result.traits[:3])
        lines.append("answers that it raises: " + ", ".join(rises))
    if result.row_scores is not None:
        area, low, high = result.row_scores.against_labels(
            [number <= n_teacher for number in result.row_scores.numbers]
        )
        lines.append(f"AUROC of the teacher's rows by their score: {area:.2f} ({low:.2f} to {high:.2f})")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
