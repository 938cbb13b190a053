"""What the experiments share: profiles of models, teachers, comparisons, figures, reports."""
