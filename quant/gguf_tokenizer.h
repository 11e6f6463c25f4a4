/* gguf_tokenizer.h - the tokenizer and the chat template as llama.cpp keeps them: inside the file. */
#ifndef NB_GGUF_TOKENIZER_H
#define NB_GGUF_TOKENIZER_H

#include "quant/gguf_file.h"

/* tokenizer.json (byte-level BPE) of a checkpoint directory, its special ids and its template, as keys of g.  vocab: rows of the
 * embedding; ids without a token get a name that no text makes. */
nb_status nb_gguf_tokenizer(nb_gguf_out *g, const char *directory, int vocab, nb_error *err);

#endif
