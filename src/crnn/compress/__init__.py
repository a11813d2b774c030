"""A trained network made smaller and faster, with what that costs in accuracy.

compress: a run folder in, a run folder and a comparison out; int8: weights and inputs of 8 bits; prune: small weights
become zero; units: whole channels and hidden units are taken out; distil: a student learns from the network;
tune: training after the network was changed; compare: two models on the same examples.
"""
