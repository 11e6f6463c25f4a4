/* adapter.h - LoRA adapters (PEFT directories) that are merged into a float checkpoint while it is read.
 *
 *     W' = W + scale B A          B [rows, r], A [r, columns]; scale = factor * alpha / r, or factor * alpha / sqrt(r) (rslora)
 *     W' = m (W + scale B A) / |W + scale B A|         DoRA: m [rows], the norm is that of each row
 *
 * No merged checkpoint is ever made: each adapter leaves edits on the base (nb_checkpoint_edit), so whoever reads a tensor gets
 * it merged.  Which modules are changed is told by the adapter's tensors, not by target_modules.  Tensors that an adapter
 * holds whole (modules_to_save, biases, saved embeddings) go W' = W + factor (T - W).  Several adapters apply one after the
 * other.  Everything is checked when an adapter is added: names, shapes, ranks, finite values.
 */
#ifndef NB_ADAPTER_H
#define NB_ADAPTER_H

#include "runtime/io/checkpoint.h"

typedef struct nb_adapters nb_adapters;

/* base must be closed before nb_adapters_free.  tied: the base's head is its embedding (config.json: tie_word_embeddings). */
nb_status nb_adapters_new(nb_adapters **out, nb_checkpoint *base, bool tied, nb_error *err);
/* summary: gets one line about what changes; notes: warnings, one line each.  After a failure only nb_adapters_free may follow. */
nb_status nb_adapters_add(nb_adapters *a, const char *directory, double factor, nb_buf *summary, nb_buf *notes, nb_error *err);
void      nb_adapters_free(nb_adapters *a);

#endif
