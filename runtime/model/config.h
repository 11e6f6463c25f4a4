/* config.h - config.json and generation_config.json, checked, with the defaults of transformers. */
#ifndef NB_CONFIG_H
#define NB_CONFIG_H

#include "kernels/float.h"
#include "runtime/io/json.h"

typedef enum { NB_QUANT_NONE, NB_QUANT_AWQ, NB_QUANT_GPTQ, NB_QUANT_CT } nb_quant_method;

enum { NB_QUANT_SCHEMES = 16 };

/* How some of the matrices are quantized. */
typedef struct {
    int  bits, group;
    bool sym, desc_act;
} nb_quant_scheme;

typedef struct {
    nb_quant_method method;
    int  bits, group; /* group -1 in the file (one group a row) is stored here as 0 */
    bool sym;
    bool desc_act;
    bool v2;          /* GPTQ zeros stored as they are */
    /* Other schemes that the file declares for some matrices (GPTQ's dynamic, compressed-tensors' groups).  Which matrix has which
     * is read off its tensors: their sizes tell. */
    int             more_count;
    nb_quant_scheme more[NB_QUANT_SCHEMES];
} nb_quant_config;

typedef struct {
    /* language model */
    int   hidden, intermediate, layers, heads, kv_heads, head_dim, vocab;
    float rms_eps, rope_theta;
    int   mrope[3];          /* frequencies of T, H, W; sum = head_dim / 2 */
    bool  yarn;              /* long-context scaling of the frequencies, transformers 4.57 rules */
    double yarn_factor, yarn_attention, yarn_beta_fast, yarn_beta_slow;
    int   yarn_original;     /* positions the model was trained on */
    bool  yarn_truncate;     /* correction range rounded to whole dimensions */
    int   max_positions;
    bool  tied;
    nb_dtype dtype;          /* torch_dtype of the file */
    /* vision tower */
    int   v_depth, v_dim, v_heads, v_head_dim, v_inner, v_patch, v_merge, v_temporal, v_channels, v_out;
    /* special ids */
    int32_t vision_start, vision_end, image_pad, video_pad;
    nb_quant_config quant;
} nb_config;

/* Warnings (a YaRN factor read differently by other versions, ...) are appended to `notes`, one line each. */
nb_status nb_config_open(nb_config *out, const char *directory, nb_buf *notes, nb_error *err);

typedef struct {
    bool    do_sample;
    int     top_k;             /* 0: off */
    double  top_p, temperature, repetition_penalty;
    int32_t eos[8];
    int     eos_count;
} nb_generation_config;
/* A missing file gives greedy decoding with the eos of config.json. */
nb_status nb_generation_config_open(nb_generation_config *out, const char *directory, nb_error *err);

#endif
