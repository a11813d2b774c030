"""From a spec to a network: `spec` (what a network is, in YAML) and `network` (layers, summary, head);
`vgsl` reads and writes the network strings of Tesseract and kraken."""
