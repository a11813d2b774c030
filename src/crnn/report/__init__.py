"""Reports: `evaluation` measures, `floor` runs the trivial methods, `plots` draws, `html` writes the one file."""
