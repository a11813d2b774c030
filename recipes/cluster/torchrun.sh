#!/bin/sh
# One machine: DATA RUN [processes]. One process a GPU, or a few on a CPU; started again three times if one dies.
set -e
exec torchrun --standalone --nproc_per_node "${3:-2}" --max-restarts 3 \
    -m crnn.cli.main train "$1" --out "$2"
