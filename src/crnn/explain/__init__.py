"""What a trained model looks at: `attribution` (integrated gradients, occlusion), `mutagenesis` (every substitution),
`motifs` (filters as position weight matrices, MEME files), `page` (one HTML file), `explain` (all of it in one call).
"""
