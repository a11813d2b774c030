"""C: a step engine for streams, strict C99 that the C exporter writes out as well; recurrences for training.

kernels.h: sums and functions on rows of floats; spectrum.h: the Fourier transform; engine.h: frames, node by node;
binding.c: all of it as a shared library; library: finds and loads that library for this machine.
training.c, a library of its own: a GRU, forward and backward; recurrences: it as an operator of torch, compiled or not;
memory: large arrays whose memory is used again.
"""
