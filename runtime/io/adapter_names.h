/* adapter_names.h - which tensor of the base a tensor of an adapter is about. */
#ifndef NB_ADAPTER_NAMES_H
#define NB_ADAPTER_NAMES_H

#include "runtime/io/checkpoint.h"

/* What a tensor of an adapter is to its target; in the order in which the parts of one target are put together. */
typedef enum { NB_PART_WHOLE, NB_PART_A, NB_PART_B, NB_PART_EMBED_A, NB_PART_EMBED_B, NB_PART_MAGNITUDE, NB_PART_ADD } nb_part;

enum { NB_ADAPTER_NAME = 256 };

typedef struct {
    nb_part part;
    char    module[NB_ADAPTER_NAME]; /* as PEFT names it, for alpha_pattern */
    char    target[NB_ADAPTER_NAME]; /* canonical name of the base's tensor */
} nb_adapter_name;

/* False for a name that means nothing (or is longer than any real one). */
bool nb_adapter_name_parse(nb_adapter_name *out, const char *name);

#endif
