"""Live streams: `stream` (one), `streams` (many at once), `update` (their answer), `chunk` (what can be pushed),
`snapshot` (a stream as bytes), `steps` (what computes them), `streamed` (what a stream knows of its model),
`source` (pipes and growing files)."""
