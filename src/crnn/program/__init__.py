"""A trained network as a flat list of simple operations: what the native engine runs and the exporters write out.

ops: the operations; program: nodes in order, their lengths and cost; lower: from a network to a program.
"""
