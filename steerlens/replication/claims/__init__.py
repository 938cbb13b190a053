"""One experiment, one file: the question, what is done, what is measured, and the claims with their thresholds."""
