/* target_nibble.c - nibble itself: not a replay, but its own readers, with whatever they say. */
#include "runtime/model/model.h"
#include "runtime/text/chat.h"
#include "runtime/vision/preprocess.h"
#include "tools/verify/verify.h"

static void say(const nb_rules *r, const char *rule, const char *where, const nb_error *why)
{
    nb_found(r->out, NB_ERROR, NB_FOR_NIBBLE, 0, rule, where, "as the message says", "%s", why->text);
}

/* A layer that is quantized in another way than most: whether it can be read is asked of the reader. */
static void try_reading(const nb_rules *r, const nb_config *config, const nb_module *m)
{
    const nb_quant_config *q = &config->quant;
    nb_linear              linear;
    nb_error               why = {0};
    nb_scheme              stored;
    bool                   usual =
        nb_scheme_stored(&stored, m) && (m->stored == NB_STORED_FLOAT || (stored.bits == q->bits && stored.group == q->group));
    if (m->stored == NB_STORED_PACKED) usual = usual && m->tensor[NB_T_SHAPE] && !m->tensor[NB_T_CT_G_IDX];
    if (usual || m->stored == NB_STORED_NOT || m->n > INT32_MAX || m->k > INT32_MAX) return;
    if (nb_linear_read(&linear, r->d->checkpoint, q, m->name, (int)m->n, (int)m->k, -1, &why) == NB_OK) nb_linear_free(&linear);
    else say(r, "reading", m->name, &why);
}

nb_status nb_rules_nibble(const nb_rules *r, nb_error *err)
{
    nb_config            config;
    nb_generation_config generation;
    nb_processor         processor;
    nb_error             why = {0};
    nb_buf               notes = {0};
    if (nb_config_open(&config, r->d->path, &notes, &why) != NB_OK) {
        say(r, "config", "config.json", &why);
    } else {
        if (nb_names_check(r->d->checkpoint, &config, &why) != NB_OK) say(r, "unknown", "tensors", &why);
        if (nb_generation_config_open(&generation, r->d->path, &why) != NB_OK)
            say(r, "side-file", "generation_config.json", &why);
        if (nb_processor_open(&processor, r->d->path, &why) != NB_OK) say(r, "side-file", "preprocessor_config.json", &why);
        else if (processor.patch != config.v_patch || processor.temporal != config.v_temporal ||
                 processor.merge != config.v_merge)
            nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "patches", "preprocessor_config.json",
                     "take config.json and processor of the same model",
                     "cuts patches of %d, %d frames, merged by %d; config.json says %d, %d, %d", processor.patch,
                     processor.temporal, processor.merge, config.v_patch, config.v_temporal, config.v_merge);
        if (nb_template_check(r->d->path, &notes, &why) != NB_OK) say(r, "chat-template", "chat_template.json", &why);
        for (size_t i = 0; i < r->d->module_count; i++) try_reading(r, &config, &r->d->modules[i]);
    }
    nb_buf_free(&notes);
    return nb_serving_fused(r, NB_FOR_NIBBLE, err); /* q k v are one matrix here too, and so are gate and up */
}
