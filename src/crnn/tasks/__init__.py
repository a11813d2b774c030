"""Tasks: `task` (the contract), `classify`, `multilabel`, `regress`, `infer` (which task the targets ask for)."""
