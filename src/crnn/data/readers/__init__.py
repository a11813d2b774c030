"""Readers, one file a format: audio, ts, ucr, arff, table (CSV, Parquet, JSON lines) and npy.

`reader` is their contract, `registry` their table; `files`, `official` and `columns` hold what several formats share:
folders of one sequence a file, TRAIN/TEST pairs, and columns by name.
"""
