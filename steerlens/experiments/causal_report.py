def write_causal_report(run, claims, measures, students, dissections):
    return run.directory / "report.html"
