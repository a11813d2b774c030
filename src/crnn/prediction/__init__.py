"""Predictions for many files: parts (what one worker does), journal (what is done), ray (workers of a cluster), write."""
