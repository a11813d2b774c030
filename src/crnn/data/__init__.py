"""Data: from files to batches.

dataset: Example and Dataset, what readers make and everything else consumes.
read: which reader a source needs; readers/: one file a format.
split: train, validation and test; groups, duplicates, what a run has seen.
batch: length buckets and epochs of Sequences.
augment, augment_images: random changes of training sequences, and of line images.
check: everything a training run would trip over, found before it; summary: what a data set holds.
"""
