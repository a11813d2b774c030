"""Measures that torchmetrics and scikit-learn lack: `bootstrap` (intervals), `calibration` (error, temperature)."""
