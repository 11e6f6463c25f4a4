/* golden.h - the forty golden prompts: what transformers 4.57.1 made of them in float32 (tools/demo/export.py). */
#ifndef NB_GOLDEN_H
#define NB_GOLDEN_H

#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/io/safetensors.h"
#include "runtime/model/model.h"
#include "unit.h"

#define GOLDEN_MODEL unit_path("tools/demo/model")

typedef struct {
    cJSON          *rows[64];
    int             count;
    nb_safetensors *tensors;
} golden;

static inline void golden_open(golden *g)
{
    nb_error        err;
    nb_json_stream *s;
    size_t          line;
    memset(g, 0, sizeof *g);
    OK(nb_json_stream_open(&s, unit_path("tests/golden/prompts.jsonl"), &err), &err);
    for (;;) {
        cJSON *row;
        OK(nb_json_stream_next(s, &row, &line, &err), &err);
        if (!row) break;
        assert_true(g->count < 64);
        g->rows[g->count++] = row;
    }
    nb_json_stream_close(s);
    assert_int_equal(g->count, 40);
    OK(nb_safetensors_open(&g->tensors, unit_path("tests/golden/tensors.safetensors"), &err), &err);
}

static inline void golden_close(golden *g)
{
    for (int i = 0; i < g->count; i++) cJSON_Delete(g->rows[i]);
    nb_safetensors_close(g->tensors);
}

/* Tensor "N.what" as floats, NULL when the prompt has none; *n = elements. */
static inline float *golden_tensor(const golden *g, int prompt, const char *what, size_t *n)
{
    char     name[64];
    nb_error err;
    snprintf(name, sizeof name, "%d.%s", prompt, what);
    const nb_tensor *t = nb_safetensors_find(g->tensors, name);
    *n = 0;
    if (!t) return NULL;
    assert_int_equal(t->dtype, NB_F32);
    float *data = malloc(t->bytes);
    OK(nb_safetensors_read(g->tensors, t, data, 0, t->bytes, &err), &err);
    *n = t->count;
    return data;
}

static inline void golden_prompt(const golden *g, int i, const nb_model *model, nb_prompt *out)
{
    nb_error          err;
    nb_chat           chat = { 0 };
    nb_prompt_options options = { .template_options = { .add_generation_prompt = true } };
    nb_prompt_source  source = nb_model_source(model);
    char              root[1024];
    snprintf(root, sizeof root, "%s", unit_path("tests/golden"));
    options.media.root = root;
    OK(nb_chat_from_json(&chat, cJSON_GetObjectItem(g->rows[i], "messages"), NULL, "prompts.jsonl", &err), &err);
    OK(nb_prompt_build(out, &chat, &source, &options, &err), &err);
    nb_chat_free(&chat);
}

/* Largest |a - b|; NaN when either holds one. */
static inline double golden_worst(const float *a, const float *b, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

/* The levels this machine has, from ref up; absent ones are said. */
static inline bool golden_level(nb_isa isa)
{
    if (nb_isa_detect(isa) == isa) return true;
    fprintf(stderr, "SKIP level %s: this machine does not have it\n", nb_isa_name(isa));
    return false;
}

#endif
