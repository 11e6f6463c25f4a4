/* adapter_names.c - names of the tensors in adapter_model.safetensors.
 *
 *     base_model.model. MODULE .lora_A.weight            also lora_B.weight, lora_B.bias, lora_embedding_A and _B,
 *                                                        lora_magnitude_vector[.weight]
 *     base_model.model. MODULE .weight (or .bias)        held whole; with .base_layer or .modules_to_save in between
 *
 * The prefix may be missing, and some programs leave the adapter's name ("default") in.  MODULE is in any of the layouts that
 * checkpoints have. */
#include "runtime/io/adapter_names.h"

#include <stdio.h>
#include <string.h>

#define PREFIX "base_model.model."

static bool cut_end(char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    if (n <= m || strcmp(s + n - m, end)) return false;
    s[n - m] = 0;
    return true;
}

/* "lora_A.default.weight" -> NB_PART_A; also what is changed, the weight or the bias. */
static bool parse_tail(nb_part *part, const char **kind, const char *tail)
{
    static const struct {
        const char *text;
        nb_part     part;
        const char *kind;
    } tails[] = {{"lora_A.weight", NB_PART_A, "weight"},
                 {"lora_B.weight", NB_PART_B, "weight"},
                 {"lora_B.bias", NB_PART_ADD, "bias"},
                 {"lora_embedding_A", NB_PART_EMBED_A, "weight"},
                 {"lora_embedding_B", NB_PART_EMBED_B, "weight"},
                 {"lora_magnitude_vector", NB_PART_MAGNITUDE, "weight"},
                 {"lora_magnitude_vector.weight", NB_PART_MAGNITUDE, "weight"}};
    char  text[NB_ADAPTER_NAME];
    snprintf(text, sizeof text, "%s", tail);
    char *adapter = strstr(text, ".default");
    if (adapter) memmove(adapter, adapter + strlen(".default"), strlen(adapter + strlen(".default")) + 1);
    for (size_t i = 0; i < NB_COUNT(tails); i++)
        if (!strcmp(text, tails[i].text)) {
            *part = tails[i].part;
            *kind = tails[i].kind;
            return true;
        }
    return false;
}

bool nb_adapter_name_parse(nb_adapter_name *out, const char *name)
{
    char        module[NB_ADAPTER_NAME], joined[NB_ADAPTER_NAME + 8];
    const char *kind;
    if (!strncmp(name, PREFIX, strlen(PREFIX))) name += strlen(PREFIX);
    if (strlen(name) >= sizeof module) return false;
    strcpy(module, name);
    char *lora = strstr(module, ".lora_");
    if (lora) {
        if (!parse_tail(&out->part, &kind, lora + 1)) return false;
        *lora = 0;
    } else {
        out->part = NB_PART_WHOLE;
        kind = cut_end(module, ".weight") ? "weight" : cut_end(module, ".bias") ? "bias" : NULL;
        if (!kind) return false;
        if (!cut_end(module, ".base_layer") && !cut_end(module, ".modules_to_save.default")) cut_end(module, ".modules_to_save");
    }
    if (!module[0]) return false;
    strcpy(out->module, module);
    snprintf(joined, sizeof joined, "%s.%s", module, kind);
    return nb_checkpoint_canonical(out->target, sizeof out->target, joined);
}
