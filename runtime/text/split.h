/* split.h - the Qwen2 pre-tokenizer: cuts text into the pieces inside which bytes may merge. */
#ifndef NB_SPLIT_H
#define NB_SPLIT_H

#include <stddef.h>

/* The pattern that nb_split_next follows, exactly as tokenizer.json spells it. */
extern const char nb_split_pattern[];

/* Length in bytes of the first piece of text[0..n), n >= 1; always >= 1.  Linear time over a whole text. */
size_t nb_split_next(const char *text, size_t n);

#endif
