/* target_nibble.c - nibble itself: not a replay, but its own readers, with whatever they say. */
#include "runtime/model/config.h"
#include "runtime/text/chat.h"
#include "runtime/vision/preprocess.h"
#include "tools/verify/verify.h"

static void say(const nb_rules *r, const char *rule, const char *where, const nb_error *why)
{
    nb_found(r->out, NB_ERROR, NB_FOR_NIBBLE, 0, rule, where, "as the message says", "%s", why->text);
}

nb_status nb_rules_nibble(const nb_rules *r, nb_error *err)
{
    (void)err;
    nb_config            config;
    nb_generation_config generation;
    nb_processor         processor;
    nb_error             why = {0};
    nb_buf               notes = {0};
    if (nb_config_open(&config, r->d->path, &notes, &why) != NB_OK) {
        say(r, "config", "config.json", &why);
    } else {
        if (nb_generation_config_open(&generation, r->d->path, &why) != NB_OK) say(r, "side-file", "generation_config.json", &why);
        if (nb_processor_open(&processor, r->d->path, &why) != NB_OK)
            say(r, "side-file", "preprocessor_config.json", &why);
        else if (processor.patch != config.v_patch || processor.temporal != config.v_temporal || processor.merge != config.v_merge)
            nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "patches", "preprocessor_config.json", "take config.json and processor of the same model",
                     "cuts patches of %d, %d frames, merged by %d; config.json says %d, %d, %d", processor.patch, processor.temporal, processor.merge,
                     config.v_patch, config.v_temporal, config.v_merge);
        if (nb_template_check(r->d->path, &notes, &why) != NB_OK) say(r, "chat-template", "chat_template.json", &why);
    }
    nb_buf_free(&notes);
    for (size_t i = 0; i < r->d->module_count; i++) {
        const nb_module *m = &r->d->modules[i];
        nb_scheme        stored;
        if (m->part != NB_PART_DECODER && m->stored >= NB_STORED_WORDS && m->part == NB_PART_HEAD)
            nb_found(r->out, NB_ERROR, NB_FOR_NIBBLE, 0, "head-quantized", m->name, "keep it in float", "a quantized head is not read");
        if (!nb_scheme_stored(&stored, m) || !stored.quantized) continue;
        if (stored.bits != (int)r->d->block.base.bits && r->d->block.kind != NB_BLOCK_CT && m->scheme.quantized)
            nb_found(r->out, NB_ERROR, NB_FOR_NIBBLE, 0, "mixed", m->name, "use one width for all layers", "has %d bits, the checkpoint %d: mixed widths are not read",
                     stored.bits, r->d->block.base.bits);
        if (m->tensor[NB_T_CT_G_IDX])
            nb_found(r->out, NB_ERROR, NB_FOR_NIBBLE, 0, "ct-actorder", m->name, "use actorder static", "weight_g_idx is not read");
        if (m->stored == NB_STORED_PACKED && !m->tensor[NB_T_SHAPE])
            nb_found(r->out, NB_ERROR, NB_FOR_NIBBLE, 0, "ct-shape", m->name, "write weight_shape", "has no weight_shape");
    }
    return NB_OK;
}
