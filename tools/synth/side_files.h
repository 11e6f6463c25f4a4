/* side_files.h - the tokenizer, chat template and processor settings of the demo model, embedded in the program by the
 * build. */
#ifndef NB_SYNTH_SIDE_FILES_H
#define NB_SYNTH_SIDE_FILES_H

#include <stddef.h>

typedef struct {
    const char          *name; /* "tokenizer.json" */
    const unsigned char *data;
    size_t               size;
} nb_side_file;

extern const nb_side_file nb_side_files[];
extern const size_t       nb_side_file_count;

#endif
