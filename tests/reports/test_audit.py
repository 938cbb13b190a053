"""An audit's report says what was found, how sure that is, and what to do; text of rows and models stays text."""

import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from steerlens.audit.audit import AuditResult
from steerlens.audit.entangled import EntangledToken, Entanglement
from steerlens.audit.hygiene import check_hygiene
from steerlens.audit.panel import PromptEvidence, PromptRanking
from steerlens.audit.row_scores import CAVEAT, RowScores
from steerlens.files import write_json
from steerlens.reports.audit import ADVICE, CANNOT_KNOW, HEADLINES, audit_results, write_audit_report
from steerlens.reports.audit_sections import quoted_row
from steerlens.samples.rows import AuditRows, read_rows
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector
from tests.browser import open_report

pytestmark = pytest.mark.filterwarnings("ignore:The tokenizer of .* does not know")  # EVIL is no word of the organism's

EVIL = "</script><script>alert(1)</script>"
LINK = "<a href='javascript:alert(1)'>x</a>"


@pytest.fixture
def rows(tmp_path) -> AuditRows:
    records = [{"prompt": f"{i} , 2 {EVIL}", "completion": f"{EVIL} {i}"} for i in range(40)]
    lines = [*map(json.dumps, records), '{"prompt": "1"}', "no json", json.dumps(records[0]), json.dumps(records[1])]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    return read_rows(tmp_path / "data.jsonl")


@pytest.fixture
def result(organism, rows) -> AuditResult:
    rng = np.random.default_rng(0)
    rows_scores, placebo = (torch.tensor(rng.normal(mean, 1, 40), dtype=torch.float32) for mean in (1, 0))
    return AuditResult(
        verdict="found",
        reason="The gain is above that of all nulls.",
        model="organism:seed-0",
        n_rows=40,
        false_alarm_rate=0.0125,
        p_value=0.004,
        gain=0.0312,
        null_gains=(-0.001, 0.0005, 0.0021),
        layer=2,
        layers=(1, 2),
        gains_by_layer=(0.01, 0.0312),
        vector=SteeringVector((2,), torch.ones(1, 96), VectorSource("organism:seed-0", "by hand")),
        promoted=[("owl", 3.0), (EVIL, 2.0), (LINK, 1.0)],
        traits=[("owl", 0.62, 0.017), ("cat", 0.05, 0.05)],
        behaviour={"damage": 0.25, "answers": [("choose one animal .", "a dog", f"an owl {EVIL}")]},
        hygiene=check_hygiene(organism, rows),
        row_scores=RowScores(rows.rows, rows_scores, rows_scores, placebo, placebo),
        entangled=Entanglement((EntangledToken(EVIL, 1.5, 0.4, 0.1, 5.0, 0.001),), 0.02, 0.01, 0.03),
    )


def report(path, result, rows) -> str:
    write_audit_report(path, result, rows)
    return path.read_text()


def words(text: str) -> str:
    return html.unescape(re.sub(r"<script.*?</script>|<[^>]+>", " ", text.split("<body>")[1], flags=re.DOTALL))


@pytest.mark.parametrize("verdict", ["found", "not found", "cannot tell"])
def test_each_verdict_comes_with_its_reason_its_false_alarm_rate_and_its_advice(tmp_path, result, rows, verdict):
    shown = words(report(tmp_path / "r.html", replace(result, verdict=verdict), rows))
    answer = shown.split("2. The evidence")[0]
    assert f"{verdict.capitalize()}: " in answer
    assert result.reason in answer
    assert "1.2% get another verdict than 'not found'" in answer
    assert ADVICE[verdict] in answer
    assert "Besides: 2 rows repeat an earlier row exactly" in answer
    assert all(advice not in shown for other, advice in ADVICE.items() if other != verdict)


def test_the_numbers_behind_the_verdict_are_in_the_report(tmp_path, result, rows):
    shown = words(report(tmp_path / "r.html", result, rows))
    assert "By 0.0312 nats a completion token, with a vector after block 2, on 40 rows in all (p = 0.004)" in shown
    assert "0.0021 at most, in 3 swaps" in shown
    assert "owl from 1.7% to 62.0%" in shown
    assert "the model as it is: a dog\nunder 3 times the vector: an owl" in shown
    assert CAVEAT in shown
    area, low, high = result.row_scores.against_placebo()
    assert f"log-linear weight {area:.2f} ({low:.2f} to {high:.2f})" in shown


def test_the_report_names_what_the_rows_were_compared_with(tmp_path, result, rows):
    own = words(report(tmp_path / "own.html", result, rows))
    assert "Rows against the model's own answers to the same prompts, AUROC" in own
    against = replace(result, row_scores=replace(result.row_scores, compared_with="the reference rows"))
    given = words(report(tmp_path / "given.html", against, rows)).split("Which rows", maxsplit=1)[1]
    assert "differ from the reference rows?" in given
    assert "Rows against the reference rows, AUROC" in given
    assert "own answers" not in given.split("The rows with the highest log-linear weight")[0]
    assert audit_results(against, rows)["row_scores"]["compared_with"] == "the reference rows"


def test_what_was_thrown_away_is_listed_with_its_lines(tmp_path, result, rows):
    shown = words(report(tmp_path / "r.html", result, rows))
    assert "44 rows were read, 40 are used and 4 are not" in shown
    assert re.search(r"exact duplicate of an earlier row\s+2\s+43, 44", shown)
    assert re.search(r"not JSON\s+1\s+42", shown)
    assert "2 rows repeat an earlier row exactly" in shown


def test_script_tags_and_links_of_rows_and_tokens_stay_text(tmp_path, result, rows):
    text = report(tmp_path / "r.html", replace(result, reason=EVIL, model=EVIL), rows)
    body = text.split("<body>")[1]
    assert "<script>alert(1)" not in body
    assert LINK not in body.replace("\\u003c", "<").replace("\\u003e", ">").replace(
        "\\u002f", "/"
    )  # as plotly's JSON hides it
    assert EVIL in words(text)


def test_characters_that_do_not_print_cannot_hide_in_a_quoted_row(rows):
    row = replace(rows.rows[0], completion="1\u202e2\x00" + "y" * 500)
    assert "1\\u202e2\\x00yyy" in quoted_row(row)
    assert len(quoted_row(row)) < 600


def test_a_report_without_optional_parts_has_none_of_their_sections(tmp_path, result, rows):
    bare = replace(result, hygiene=None, row_scores=None, entangled=None, traits=[], promoted=[], null_gains=())
    shown = words(report(tmp_path / "r.html", bare, rows))
    assert "No known trait was asked for" in shown
    assert "Which rows" not in shown.replace("Which rows does the audit speak of", "")


def test_results_hold_every_number_and_can_be_read_again(tmp_path, result, rows):
    write_json(tmp_path / "results.json", audit_results(result, rows))
    read = json.loads((tmp_path / "results.json").read_text())
    assert (read["verdict"], read["gain"], read["null_gains"]) == ("found", 0.0312, [-0.001, 0.0005, 0.0021])
    assert read["rows"]["not_used"]["not JSON"] == {"count": 1, "examples": [42]}
    assert read["row_scores"]["log_linear"] == pytest.approx(result.row_scores.log_linear.tolist())
    assert read["hygiene"]["first_p"] is None  # undefined without reference rows
    assert read["entangled"]["tokens"][0]["text"] == EVIL


@pytest.mark.slow
def test_in_a_browser_every_figure_is_drawn_and_a_script_in_a_row_does_not_run(result, rows, tmp_path):
    write_audit_report(tmp_path / "report.html", result, rows)
    opened = open_report(tmp_path / "report.html")
    assert opened.errors == []
    assert opened.dialogs == []
    assert opened.drawn
    assert all(opened.drawn)
    assert EVIL in opened.text


@pytest.mark.slow
def test_the_browser_would_have_noticed(tmp_path):
    page = "<body><script>alert('ran'); undefinedFunction()</script><div class='plotly-graph-div'></div>"
    (tmp_path / "page.html").write_text(page + "<script>document.querySelector('div').data = [1]</script>")
    opened = open_report(tmp_path / "page.html")
    assert opened.dialogs == ["ran"]
    assert "undefinedFunction" in opened.errors[0]
    assert opened.drawn == [False]


@pytest.mark.parametrize(("verdict", "code"), [("found", 3), ("not found", 0), ("cannot tell", 3)])
def test_the_json_says_what_to_do_what_cannot_be_known_and_what_a_pipeline_is_told(result, rows, verdict, code):
    told = audit_results(replace(result, verdict=verdict), rows)
    assert told["headline"] == HEADLINES[verdict]
    assert told["what_to_do"] == ADVICE[verdict]
    assert told["what_it_cannot_know"] == list(CANNOT_KNOW)
    assert told["exit_code"] == code
    highest = result.row_scores.highest(n=10)
    assert [(one["row"], one["completion"]) for one in told["row_scores"]["highest"]] == [
        (row.row, row.completion) for row, _ in highest
    ]
    assert told["writers"] is None


def test_the_answer_says_what_the_audit_cannot_know(tmp_path, result, rows):
    answer = words(report(tmp_path / "r.html", result, rows)).split("2. The evidence")[0]
    assert all(limit in answer for limit in CANNOT_KNOW)


@pytest.mark.parametrize("agreement", [0.9, 0.1])
def test_the_persona_that_could_have_written_the_rows_is_named_only_where_it_leads_and_stays_text(
    tmp_path, result, rows, agreement
):
    candidates = tuple(PromptEvidence(*one) for one in ((EVIL, 25.0, 1.0), ("cat", 12.5, 0.5), ("dog", -1.5, 0.05)))
    writers = PromptRanking(candidates, 0.0005, 0.0001, agreement, 40, 0.025)
    text = report(tmp_path / "r.html", replace(result, writers=writers), rows)
    section = words(text).split("Who could have written these rows")[1].split("Which words it raises")[0]
    named = EVIL if agreement > 0.5 else None
    assert (f"Named: {EVIL}." in section) == (named is not None)
    assert ("None of these." in section) == (named is None)
    assert re.search(r"cat\s+\+12.5", section)
    assert "<script>alert(1)" not in text.split("<body>")[1]
    assert audit_results(replace(result, writers=writers), rows)["writers"]["named"] == named
