/* plain.h - the tensors that are not quantised: which number type they are written in, and what that costs them.
 *
 * Served int4 and int8 checkpoints are float16 files.  All values of the source are looked at first: one that float16 cannot
 * hold (above 65504) keeps every tensor in its source type, one that is not finite is refused by name.
 */
#ifndef NB_PLAIN_H
#define NB_PLAIN_H

#include "quant/choice.h"
#include "quant/writer.h"
#include "runtime/model/model.h"

typedef struct {
    bool     f16;         /* float tensors become F16; otherwise each keeps its type */
    uint64_t lossy, lost; /* values that changed by more than float16's rounding; of these, became zero */
    double   worst;       /* the largest relative change */
    char     worst_name[128], overflow_name[128];
} nb_plain;

/* True for what a checkpoint should not carry: a tied head, rotary tables. */
bool nb_plain_dropped(const nb_config *config, const char *name);
/* True for the seven linears of a decoder layer and for what a checkpoint should not carry (a tied head, rotary tables). */
bool nb_plain_skips(const nb_config *config, const char *name);

/* Values of one more tensor, a linear that stays float. */
nb_status nb_plain_look(nb_plain *p, const nb_entry *e, nb_error *err);
nb_status nb_plain_scan(nb_plain *out, const nb_checkpoint *c, const nb_config *config, nb_error *err);
/* The same; watch sees all values of every tensor that is scanned, in order, some rows at a time. */
typedef void nb_plain_watcher(void *context, const nb_entry *e, const float *values, size_t n);
nb_status nb_plain_scan_with(nb_plain *out, const nb_checkpoint *c, const nb_config *config, nb_plain_watcher *watch, void *context,
                             nb_error *err);
/* The type that a tensor of this type is written in. */
nb_dtype  nb_plain_dtype(const nb_plain *p, nb_dtype source);
/* All plain tensors outside the decoder layers, but for those that the choice gives codes.  A head that is no longer tied is a
 * copy of the embedding. */
nb_status nb_plain_declare(const nb_plain *p, nb_writer *w, const nb_checkpoint *c, const nb_config *config, const nb_choice *choice,
                           nb_error *err);
nb_status nb_plain_write(const nb_plain *p, nb_writer *w, const nb_checkpoint *c, const nb_config *config, const nb_choice *choice,
                         nb_error *err);
/* What there is to tell, one line each. */
void      nb_plain_notes(const nb_plain *p, nb_buf *notes);

#endif
