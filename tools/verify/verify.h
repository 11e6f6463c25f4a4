/* verify.h - would this checkpoint load, and be the same model, elsewhere?
 *
 * One description of a checkpoint directory is made from config.json, the safetensors headers and a few small tensors
 * (describe.c).  Each target's rules read that description and add findings; none of them reads files of its own accord:
 *
 *     rules_files.c, rules_shapes.c   what is wrong for every loader: missing tensors, shapes, side files
 *     rules_deep.c                    --deep: the values
 *     target_vllm.c, target_sglang.c, target_transformers.c, target_nibble.c
 *     target_llamacpp.c               the GGUF pair, by its own headers
 *     sums.c                          SHA256SUMS
 *
 * Rules are those of loaders whose sources were read; no foreign loader is run.  A rule that differs between versions of a
 * loader is an error when it fails in the newest one and a warning when it fails in older ones only.
 */
#ifndef NB_VERIFY_H
#define NB_VERIFY_H

#include "runtime/io/checkpoint.h"
#include "runtime/io/json.h"

/* ---- findings ---------------------------------------------------------------------------------------------------------- */

typedef enum { NB_NOTE, NB_WARNING, NB_ERROR } nb_severity;
typedef enum { NB_FOR_ALL, NB_FOR_VLLM, NB_FOR_SGLANG, NB_FOR_TRANSFORMERS, NB_FOR_LLAMACPP, NB_FOR_NIBBLE, NB_TARGETS } nb_target;

const char *nb_target_name(nb_target target);
const char *nb_severity_name(nb_severity severity);

typedef struct {
    nb_severity severity;
    nb_target   target;
    int         tp;    /* ranks of tensor parallelism; 0: for any number */
    const char *rule;  /* "fused", "tp-groups": stable, for scripts */
    char       *where; /* tensor, module or file: JSON path */
    char       *what;
    const char *todo;
} nb_finding;

typedef struct {
    nb_finding *items;
    size_t      count, capacity;
    bool        failed; /* memory ran out while adding */
} nb_findings;

void nb_findings_free(nb_findings *f);
void nb_found(nb_findings *f, nb_severity severity, nb_target target, int tp, const char *rule, const char *where,
              const char *todo, const char *format, ...) __attribute__((format(printf, 8, 9)));
/* Errors that stop this target at this degree.  Those for all targets and all degrees count, but the GGUF pair has only a damaged
 * file in common with the other weights. */
size_t nb_findings_errors(const nb_findings *f, nb_target target, int tp);

/* ---- the checkpoint ---------------------------------------------------------------------------------------------------- */

typedef enum { NB_BLOCK_NONE, NB_BLOCK_AWQ, NB_BLOCK_GPTQ, NB_BLOCK_CT, NB_BLOCK_OTHER } nb_block_kind;

/* How one linear layer is quantized, by the config or by the shapes of its tensors. */
typedef struct {
    bool    quantized;
    int     bits;
    int64_t group;     /* inputs that share a scale; 0: a whole row */
    bool    sym, desc_act;
} nb_scheme;

typedef struct {
    const char  *name;       /* "group_0" */
    const cJSON *targets;    /* array, or NULL */
    nb_scheme    scheme;
    const char  *actorder;   /* NULL, "static", "group", "weight", ... */
    bool         activations, dynamic, other; /* input activations quantized; dynamic; neither group nor channel, not int */
} nb_ct_group;

enum { NB_CT_GROUPS = 16 };

/* quantization_config, or one of the files beside config.json that older writers used. */
typedef struct {
    nb_block_kind kind;
    const cJSON  *json;       /* NULL when there is none */
    char          where[64];  /* "config.json: quantization_config" */
    bool          in_text;    /* it stands inside text_config */
    char          method[32];
    nb_scheme     base;       /* AWQ and GPTQ */
    bool          has_bits, has_group, has_sym, has_desc_act, has_zero_point, zero_point, v2, lm_head;
    const char   *version;    /* AWQ version or GPTQ checkpoint_format, NULL if absent */
    const cJSON  *skip;       /* modules_to_not_convert or ignore: array, or NULL */
    const cJSON  *dynamic;    /* GPTQModel's object of patterns, or NULL */
    const cJSON  *only;       /* modules_in_block_to_quantize, or NULL when absent or empty */
    nb_ct_group   groups[NB_CT_GROUPS];
    int           group_count;
} nb_block;

typedef enum { NB_PART_DECODER, NB_PART_VISION, NB_PART_EMBED, NB_PART_HEAD } nb_part_of;
typedef enum { NB_STORED_NOT, NB_STORED_FLOAT, NB_STORED_WORDS /* qweight */, NB_STORED_PACKED /* weight_packed */ } nb_stored;
typedef enum {
    NB_T_WEIGHT, NB_T_BIAS, NB_T_QWEIGHT, NB_T_QZEROS, NB_T_SCALES, NB_T_G_IDX, NB_T_PACKED, NB_T_SCALE, NB_T_SHAPE, NB_T_ZERO_POINT,
    NB_T_CT_G_IDX, NB_T_COUNT
} nb_tensor_role;
extern const char *const nb_tensor_roles[NB_T_COUNT]; /* "weight", "bias", "qweight", ... */

enum { NB_MODULE = 96 };

typedef struct {
    char            name[NB_MODULE]; /* canonical: "model.layers.0.self_attn.q_proj" */
    nb_part_of      part;
    int             layer, index;    /* index in its layer: q k v o gate up down; qkv proj fc1 fc2 */
    uint64_t        n, k;
    bool            bias;            /* it has one in a float Qwen2-VL */
    nb_stored       stored;
    const nb_entry *tensor[NB_T_COUNT]; /* NULL: not there */
    nb_scheme       scheme;          /* by the config, for this module */
    bool            g_idx_read, g_idx_plain, g_idx_in_range; /* plain: element k is k / group */
} nb_module;

typedef struct {
    const char    *path;
    cJSON         *config, *beside;  /* config.json; quantize_config.json or quant_config.json */
    const char    *beside_name;
    nb_checkpoint *checkpoint;
    nb_block       block;
    int64_t hidden, inner, layers, heads, kv_heads, head_dim, vocab;
    int64_t v_depth, v_dim, v_heads, v_inner, v_out, v_patch, v_merge, v_temporal, v_channels;
    bool    tied;
    char    dtype[16];               /* "float16"; "" when the config has none */
    nb_module *modules;              /* decoder, vision, embedding, head */
    size_t     module_count;
    bool       any_quantized;
    bool       names_old, names_new, names_other; /* spellings that occur: model.layers; model.language_model; language_model.model */
} nb_description;

/* Reads what describes a checkpoint.  What cannot be read is a finding, and then *usable is false.  An error status is for
 * failures of the system only. */
nb_status nb_describe(nb_description *out, const char *directory, nb_findings *findings, bool *usable, nb_error *err);
void      nb_description_free(nb_description *d);

/* Spellings of module names: the published one; transformers 4.52 and later; vLLM's own. */
typedef enum { NB_NAMES_OLD, NB_NAMES_NEW, NB_NAMES_VLLM } nb_naming;
void nb_module_name(char out[NB_MODULE], const nb_module *m, nb_naming naming);
/* The weights of a stored layer as its tensors' shapes tell it; false when they do not. */
bool nb_scheme_stored(nb_scheme *out, const nb_module *m);
/* A quantization that the block's dynamic patterns give `name` (GPTQModel's "-:" and "+:"), on top of base; *unknown is set
 * when a pattern cannot be judged. */
nb_scheme nb_scheme_dynamic(const nb_block *b, const char *name, nb_scheme base, bool *unknown);
bool      nb_scheme_same(nb_scheme a, nb_scheme b);
/* The config group of compressed-tensors that takes a module of this name; linear: the target "Linear" takes it too.  NULL: none. */
const nb_ct_group *nb_block_group(const nb_block *b, const char *name, bool linear, bool *unknown);
/* The string items of a JSON array of strings (or of arrays of strings), one after the other; NULL at the end. */
const char *nb_list_item(const cJSON *list, int i);

/* ---- rules ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    const nb_description *d;
    const int            *tp;     /* degrees asked about */
    int                   tp_count;
    nb_findings          *out;
} nb_rules;

nb_status nb_rules_files(const nb_rules *r, nb_error *err);
void      nb_rules_shapes(const nb_rules *r);
nb_status nb_rules_deep(const nb_rules *r, bool *stop, nb_error *err);
nb_status nb_rules_vllm(const nb_rules *r, nb_error *err);
nb_status nb_rules_sglang(const nb_rules *r, nb_error *err);
nb_status nb_rules_transformers(const nb_rules *r, nb_error *err);
nb_status nb_rules_nibble(const nb_rules *r, nb_error *err);
nb_status nb_rules_llamacpp(const char *directory, bool deep, nb_findings *out, nb_error *err);

/* What vLLM and SGLang share (serving.c). */
void nb_serving_degrees(const nb_rules *r, nb_target target);
void nb_serving_names(const nb_rules *r, nb_target target);
void nb_serving_gptq(const nb_rules *r, nb_target target);
/* Every part of the fused layers must be quantized alike. */
nb_status nb_serving_fused(const nb_rules *r, nb_target target, nb_error *err);
/* Does "modules_in_block_to_quantize" name this module (at its end; with `anywhere`: in any place)? */
bool nb_block_names(const nb_block *b, const char *name, bool anywhere);

/* ---- SHA256SUMS -------------------------------------------------------------------------------------------------------- */

/* Checks the files that directory/SHA256SUMS lists; nothing when it is not there. */
nb_status nb_sums_check(const char *directory, nb_findings *out, nb_error *err);
/* Writes it, atomically, over all files of the directory; *files: how many. */
nb_status nb_sums_write(const char *directory, size_t *files, nb_error *err);

#endif
