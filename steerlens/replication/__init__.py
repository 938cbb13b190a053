"""The paper (arXiv 2606.00995), experiment by experiment, written in the public names of steerlens.

`claims/` has one file for each experiment, `prose/` the text of its report, `models/` a profile of each model, and `lab/` what
the experiments share. `steerlens replicate NAME --on PROFILE --out DIR` runs one.
"""
