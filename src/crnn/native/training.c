/* Recurrences for training: forward with everything kept that backward needs, and backward in one reverse pass, in which
   the gradients of all weights are added up. Compiled with -ffp-contract=fast, so that sums use fused multiply-adds. */

#include "vectors.h"

#include "products.h"

#include "recurrence.h"

#include "gru.h"
#include "gru_before.h"
#include "lstm.h"
#include "rnn.h"
#include "scans.h"

EXPORT int64_t crnn_training_width(void) { return WIDTH; }

/* MOST sequences after another. */
#define IN_PARTS(call)                                                     \
  const unsigned mode = flush_denormals();                                 \
  Batch part = *batch;                                                     \
  for (int64_t at = 0; at < batch->count; at += MOST) {                    \
    part.order = batch->order + at;                                        \
    part.count = batch->count - at < MOST ? batch->count - at : MOST;      \
    call;                                                                  \
  }                                                                        \
  restore_denormals(mode)

#define CELL(name, layout)                                             \
  EXPORT void crnn_##name##_forward(const Forward *f, const Batch *batch) { \
    IN_PARTS(forward(f, &part, layout.gates, name##_step));            \
  }                                                                    \
  EXPORT void crnn_##name##_backward(const Backward *b, const Batch *batch) { \
    IN_PARTS(backward(b, &part, layout, name##_backward_step));        \
  }

CELL(gru, GRU)
CELL(gru_before, GRU_BEFORE)
CELL(lstm, LSTM)
CELL(rnn, RNN)
CELL(mingru, MINGRU)
CELL(minlstm, MINLSTM)
CELL(qrnn, QRNN)
