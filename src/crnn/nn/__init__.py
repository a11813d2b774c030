"""Layers, and what stands behind them in a network.

layers: the contract (Layer, WindowedLayer, Chain, the registry). conv, pool, norm: local layers.
blocks: activation, dropout, residual and parallel blocks, and building layers from specs. recurrent: RNN, LSTM, GRU;
dispatch: what computes those of PyTorch; scan, gru_before, lru: cells of ours.
frontend, scale, spectral: from raw frames to features. spec_augment, jitter: blanks, noise and gain while training.
summary: one vector per sequence. head: the outputs; crf: the loss of paths through them.
"""
