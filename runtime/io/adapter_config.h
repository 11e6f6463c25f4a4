/* adapter_config.h - what nibble needs to know from a LoRA adapter's adapter_config.json. */
#ifndef NB_ADAPTER_CONFIG_H
#define NB_ADAPTER_CONFIG_H

#include <regex.h>

#include "runtime/io/json.h"

/* One key of rank_pattern or alpha_pattern: matches a module whose name ends with it, at a dot. */
typedef struct {
    char   *text;
    regex_t regex;
    bool    plain; /* letters, digits, '_' and '.' only: compared as text */
    double  value;
} nb_module_pattern;

typedef struct {
    nb_module_pattern *items;
    size_t             count;
} nb_module_patterns;

typedef struct {
    double             alpha, rank;
    bool               rslora, dora;
    nb_module_patterns alphas, ranks; /* the first that matches wins over alpha, rank */
} nb_adapter_config;

/* Reads directory/adapter_config.json; kinds of adapters that B A alone does not describe are refused by name. */
nb_status nb_adapter_config_open(nb_adapter_config *out, const char *directory, nb_error *err);
void      nb_adapter_config_free(nb_adapter_config *c);
/* module: as PEFT names it in the base model ("model.layers.0.self_attn.q_proj"). */
double    nb_adapter_alpha(const nb_adapter_config *c, const char *module);
double    nb_adapter_rank(const nb_adapter_config *c, const char *module);

#endif
