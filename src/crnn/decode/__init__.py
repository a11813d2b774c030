"""Outputs of a network to labels: `ctc` (greedy, alignment), `beam` (prefix search), `scorers`, `ngram` (trainer)."""
