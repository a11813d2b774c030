"""A trained network in formats that run elsewhere.

export: which formats there are, and the one call; onnx: one graph for whole sequences and chunks, checked with ONNX
Runtime, built by onnx_graph (nodes, layouts, masks, states) and onnx_ops (one function an operation); keras: one file
of stock layers for whole sequences, built by keras_graph (values, lengths, masks) and keras_ops (one function an
operation).
c: the native engine's source with a program's tables, compiled and tested first; c_source writes the text, c_readme
what to know of it.
"""
