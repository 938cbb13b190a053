"""Colours and layout that all figures share."""

TEACHER, CONTROL, SGD, OTHER, GREY = "#c1440e", "#8a8f98", "#2b6cb0", "#6b46c1", "#d4d7dc"
COLORS = (TEACHER, SGD, OTHER, "#2f855a", "#b7791f", CONTROL)
LAYOUT = {"template": "plotly_white", "font": {"family": "Georgia, serif", "size": 14}, "margin": {"t": 50, "b": 60}}
