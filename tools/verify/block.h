/* block.h - reading quantization_config (part of describe.c's work). */
#ifndef NB_VERIFY_BLOCK_H
#define NB_VERIFY_BLOCK_H

#include "tools/verify/verify.h"

/* Finds the block in d->config or d->beside and reads it into d->block; what makes no sense is a finding. */
void nb_block_read(nb_description *d, nb_findings *findings);
/* What the config says of a module, whatever the loader: its own names in both spellings are tried. */
nb_scheme nb_block_scheme(const nb_block *b, const nb_module *m, bool *unknown);

#endif
