/* dataset_row.h - inside calib: which columns of a row mean what, and a row turned into OpenAI-style messages.
 *
 * Every form ends in the same place: an array of {role, content, tool_calls?} and an array of tools, which
 * nb_chat_from_json reads.  So there is one meaning of a conversation, however the file spells it.
 */
#ifndef NB_DATASET_ROW_H
#define NB_DATASET_ROW_H

#include "calib/dataset.h"

/* Names in the file.  info NULL: nothing is given and the usual names are looked for in each row.  With info, a NULL
 * column is one that the entry does not name, and the row is not searched for it. */
typedef struct {
    cJSON      *info; /* the parsed dataset_info.json; owns the strings */
    const char *messages, *system, *tools, *images, *videos, *audios;
    const char *prompt, *query, *response, *history;                   /* alpaca; text: the document is in prompt */
    const char *role, *content;                                        /* keys of a message */
    const char *user, *assistant, *observation, *function, *system_role; /* values of the role key */
} nb_row_map;

/* Find the entry of `data` in a dataset_info.json.  *found false: it does not list the file. */
nb_status nb_row_map_read(nb_row_map *out, bool *found, nb_data_form *form, const char *info, const char *data, nb_error *err);
void      nb_row_map_free(nb_row_map *map);

/* A row and what was made of it: turns borrow from the row, messages and tools from both. */
typedef struct {
    cJSON *row;
    cJSON *turns;    /* alpaca, swift, text: the columns as a list of {role, content}; or the list that was kept as text; NULL:
                      * the row has its own list */
    cJSON *messages; /* OpenAI-style */
    cJSON *tools;    /* NULL: none */
} nb_row;
void nb_row_free(nb_row *r); /* zeroes it */

/* The form of a row that nothing else tells. */
nb_data_form nb_row_form(const cJSON *row);
/* Can rows of these two forms stand in one file?  Lists of messages in their spellings, yes; columns and lists, no. */
bool         nb_row_forms_mix(nb_data_form a, nb_data_form b);
/* A row of the text form that holds nothing but white space. */
bool         nb_row_is_blank(const cJSON *row, const nb_row_map *map);

/* From r->row to the rest of r. */
nb_status nb_row_messages(nb_row *r, const nb_row_map *map, nb_data_form form, const char *where, nb_error *err);

/* Inside: columns to turns, and the rows that are refused whole (preference data, grounding marks). */
nb_status nb_row_turns(cJSON **turns, const cJSON *row, const nb_row_map *map, nb_data_form form, const char *where,
                       nb_error *err);
nb_status nb_row_refuse(const cJSON *row, const char *where, nb_error *err);

#endif
