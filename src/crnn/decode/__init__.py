"""Outputs of a network to labels, and what is known of a language.

ctc: greedy decoding and forced alignment; beam: prefix beam search, whole or in parts; scorers: language models, lists
of words, words to listen for; ngram: trains language models; sentences: text files for that.
crf: the best path of labels.
"""
