"""Live streams: `stream` (one), `streams` (many at once), `update` (what they give), `answers` (what makes it of the
network's outputs), `chunk` (what can be pushed), `place` (where a stream stands), `snapshot` (that as bytes), `steps`
(what computes them), `streamed` (what a stream knows of its model), `source` (pipes and growing files)."""
