"""Training: `config`, `loop` (fit), `optim`, `checkpoint`, `doctor`, `progress`, `history`, `outputs`, `device`."""
