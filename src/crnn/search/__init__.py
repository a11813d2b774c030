"""Search for better options: `space` (what is varied), `search` (trials, shared by any number of workers)."""
