"""Measures that torchmetrics and scikit-learn lack.

`bootstrap` (intervals), `calibration` (error, temperature), `edits` (error rates of text), `text` (named profiles),
`matthews` (correlation from a confusion matrix), `segments` (overlap of secondary structure).
"""
