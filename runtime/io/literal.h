/* literal.h - Python list literals, as tables hold them: "['a', \"it's\", 'b\\n']". */
#ifndef NB_LITERAL_H
#define NB_LITERAL_H

#include "runtime/io/buf.h"

typedef struct {
    char  **items;
    size_t  count, capacity;
} nb_list;
void nb_list_free(nb_list *l);

/* A list of string literals (or bare words and numbers, kept as written).  Text that is not such a list becomes a list of
 * one item, itself. */
nb_status nb_list_parse(nb_list *out, const char *text, nb_error *err);

#endif
