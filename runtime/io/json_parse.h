/* json_parse.h - between json.c and json_stream.c: parse a value that stands inside a larger file. */
#ifndef NB_JSON_PARSE_H
#define NB_JSON_PARSE_H

#include "runtime/io/json.h"

/* nb_json_parse of text whose first byte is at this line and column (1-based) of the file `name`. */
nb_status nb_json_parse_at(cJSON **out, const char *text, size_t n, const char *name, size_t line, size_t column,
                           nb_error *err);

#endif
