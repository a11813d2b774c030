"""Streams in C: a step engine for programs, strict C99 that the C exporter writes out as well.

kernels.h: sums and functions on rows of floats; spectrum.h: the Fourier transform; engine.h: frames, node by node;
binding.c: all of it as a shared library; library: finds and loads that library for this machine.
"""
