"""Predictions for many files: `parts` (of one worker), `journal` (what is done), `ray` (of a cluster), `write`."""
