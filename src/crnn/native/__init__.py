"""C: a step engine for streams, strict C99 that the C exporter writes out as well; recurrences for training.

kernels.h: sums and functions on rows of floats; spectrum.h: the Fourier transform; engine.h: frames, node by node;
binding.c: all of it as a shared library; library: finds and loads that library for this machine.
training.c, a library of its own: recurrences for training, of vectors.h, products.h, recurrence.h (what all cells
share) and gru.h, lstm.h, rnn.h, scans.h; recurrence: it as an operator of torch; cells: each step in plain torch;
memory: large arrays whose memory is used again.
"""
