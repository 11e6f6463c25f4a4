/* dataset.h - rows of chat data as conversations, one at a time, in the form the user already has.
 *
 * Forms: OpenAI-style JSONL or JSON ({"messages": [...], "tools"?, "images"?}), LLaMA-Factory sharegpt (through
 * dataset_info.json beside the file or given, or told from the row itself).  A row that cannot be used is an error that
 * names file, line and JSON path.
 */
#ifndef NB_DATASET_H
#define NB_DATASET_H

#include "runtime/io/json.h"
#include "runtime/text/chat.h"

typedef enum { NB_DATA_AUTO, NB_DATA_OPENAI, NB_DATA_SHAREGPT } nb_data_form;
nb_status nb_data_form_parse(nb_data_form *out, const char *name, nb_error *err); /* "auto", "openai", "sharegpt" */
const char *nb_data_form_name(nb_data_form form);

typedef struct {
    nb_data_form form;
    const char  *dataset_info; /* path or NULL: dataset_info.json beside the file is used when it lists the file */
    const char  *image_root;   /* NULL: the folder of the data file */
    bool         need_answer;  /* rows whose last message is not the assistant's are refused */
} nb_dataset_options;

typedef struct nb_dataset nb_dataset;
nb_status    nb_dataset_open(nb_dataset **out, const char *path, const nb_dataset_options *options, nb_error *err);
void         nb_dataset_close(nb_dataset *d);
nb_data_form nb_dataset_form(const nb_dataset *d);   /* what was found */
const char  *nb_dataset_root(const nb_dataset *d);   /* folder for relative media */
/* The next row; *end true after the last.  where: "FILE line N" (or "FILE row N" in a JSON array), for messages. */
nb_status    nb_dataset_next(nb_dataset *d, nb_chat *out, char where[256], bool *end, nb_error *err);

#endif
