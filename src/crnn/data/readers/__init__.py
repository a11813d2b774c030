"""Readers, one file a format: audio, images (of text lines), page_xml (PAGE and ALTO), manifest (a table that
names files), ts, ucr, arff, npy, frames (a table a sequence), table (CSV, Parquet, JSON lines).

`reader` is their contract, `registry` lists them. Shared by several: `files` (folders of one sequence a file and their
labels), `official` (TRAIN/TEST pairs), `columns` (columns by name), `layout` (what a data frame means), `text` (lines
and numbers of text files).
"""
