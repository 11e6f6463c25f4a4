/* prepare.c - see prepare.h.  Several threads prepare at once: a pool runs one thing at a time, so the tower is entered one by one. */
#include "tools/serve/prepare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/output.h"
#include "tools/serve/form.h"

nb_status nb_prepare_init(nb_prepare *p, const nb_model *model, const nb_service_options *options, nb_error *err)
{
    int threads = options->vision_threads > 0 ? options->vision_threads : nb_pool_threads(model->ops.pool);
    p->options = options;
    p->view = *model;
    p->shares_device = model->ops.isa == NB_ISA_LEVELS;
    pthread_mutex_init(&p->device, NULL);
    NB_TRY(nb_visual_cache_new(&p->cache, options->vision_cache_bytes, err));
    NB_TRY(nb_token_trie_new(&p->trie, model->tokenizer, model->config.vocab, model->generation.eos, model->generation.eos_count, err));
    if (p->shares_device) return NB_OK;
    NB_TRY(nb_pool_new(&p->pool, threads, err));
    nb_ops_init(&p->view.ops, model->ops.isa, p->pool);
    return NB_OK;
}

void nb_prepare_free(nb_prepare *p)
{
    if (!p->options) return;
    nb_visual_cache_free(p->cache);
    nb_token_trie_free(p->trie);
    nb_pool_free(p->pool);
    pthread_mutex_destroy(&p->device);
}

void nb_prepare_lock(nb_prepare *p)
{
    if (p->shares_device) pthread_mutex_lock(&p->device);
}

void nb_prepare_unlock(nb_prepare *p)
{
    if (p->shares_device) pthread_mutex_unlock(&p->device);
}

/* Messages of media and templates name the place in the request; what the system or a library said stays in the log. */
static bool refuse(nb_api_error *error, const nb_error *err, const nb_call *c)
{
    nb_detail("%s: %s", c->id, err->text);
    if (err->status == NB_ERR_IO) return nb_api_fail(error, 422, "messages", "a picture or video of this request could not be fetched or read");
    nb_api_fail_from(error, err, "messages");
    if (error->status == 400 && (c->request.images || c->request.videos) && err->status == NB_ERR_INPUT) error->status = 422;
    return false;
}

static bool build(nb_prepare *p, nb_call *c, nb_api_error *error)
{
    nb_error         err;
    nb_prompt_source source = nb_model_source(&p->view);
    double           start = nb_seconds();
    nb_status        status = c->request.kind == NB_CALL_CHAT
                                  ? nb_prompt_build(&c->prompt, &c->request.chat, &source, &c->request.prompt, &err)
                                  : nb_prompt_from_ids(&c->prompt, c->request.ids.data, c->request.ids.count, &p->view.config, &err);
    c->fetch_s = nb_seconds() - start;
    return status == NB_OK || refuse(error, &err, c);
}

/* Tokens against the context, with everything that a user needs to know to make it fit. */
static bool count(const nb_prepare *p, nb_call *c, nb_api_error *error)
{
    size_t limit = p->options->max_model_len, total = c->prompt.count, visual;
    for (size_t i = 0; i < total; i++) {
        c->image_tokens += c->prompt.modality[i] == NB_TOKEN_IMAGE;
        c->video_tokens += c->prompt.modality[i] == NB_TOKEN_VIDEO;
    }
    visual = c->image_tokens + c->video_tokens;
    c->prompt_tokens = total;
    if (total >= limit || (c->request.max_tokens > 0 && (size_t)c->request.max_tokens > limit - total)) {
        char made_of[160] = "", advice[96] = "";
        if (visual) {
            snprintf(made_of, sizeof made_of, " = %zu from %d image%s and %d video%s + %zu text", visual, c->request.images,
                     c->request.images == 1 ? "" : "s", c->request.videos, c->request.videos == 1 ? "" : "s", total - visual);
            size_t others = total - visual + (c->request.max_tokens > 0 ? (size_t)c->request.max_tokens : 1);
            int    media = c->request.images + c->request.videos;
            if (others < limit && media)
                snprintf(advice, sizeof advice, "; set max_pixels to %zu or less", (limit - others) / (size_t)media * 784);
        }
        if (c->request.max_tokens > 0)
            return nb_api_fail(error, 400, "messages", "prompt of %zu tokens%s and max_tokens of %lld are together %zu, more than the context "
                               "of %zu%s", total, made_of, (long long)c->request.max_tokens, total + (size_t)c->request.max_tokens, limit,
                               advice);
        return nb_api_fail(error, 400, "messages", "prompt of %zu tokens%s leaves no room for an answer in the context of %zu%s", total,
                           made_of, limit, advice);
    }
    c->request.generate.max_new_tokens = (int)(c->request.max_tokens >= 0 ? (size_t)c->request.max_tokens : limit - total);
    return true;
}

static bool encode(nb_prepare *p, nb_call *c, nb_api_error *error)
{
    nb_error err;
    int      n = c->prompt.media_count;
    double   start = nb_seconds();
    if (n == 0) return true;
    if (nb_alloc(&c->visual, (size_t)n, sizeof *c->visual, "pictures", &err) != NB_OK) return nb_api_fail_from(error, &err, "");
    for (int i = 0; i < n; i++) {
        if (atomic_load(&c->cancelled)) return error->status = 0, false;
        pthread_mutex_lock(&p->device);
        nb_status status = nb_visual_get(&c->visual[i], &p->view, &c->prompt.media[i], p->cache, &err);
        pthread_mutex_unlock(&p->device);
        if (status != NB_OK) {
            nb_warn("%s: %s", c->id, err.text);
            return nb_api_fail_from(error, &err, "messages");
        }
        nb_patches_free(&c->prompt.media[i]); /* pixels are large, and not needed again */
    }
    c->encode_s = nb_seconds() - start;
    return true;
}

/* A grammar for every answer; before any work on pictures, since a form that cannot be had is a mistake of the request. */
static bool make_grammars(nb_prepare *p, nb_call *c, nb_api_error *error)
{
    nb_error err;
    for (int i = 0; c->request.form && i < c->request.n; i++)
        if (nb_form_grammar(&c->grammars[i], c->request.form, p->trie, &err) != NB_OK) return nb_api_fail_from(error, &err, "response_format");
    return true;
}

bool nb_prepare_call(nb_prepare *p, nb_call *c, nb_api_error *error)
{
    if (!make_grammars(p, c, error) || !build(p, c, error) || !count(p, c, error) || !encode(p, c, error)) return false;
    if (c->request.return_token_ids) {
        nb_error err;
        for (size_t i = 0; i < c->prompt.count; i++)
            if (nb_ids_push(&c->prompt_ids, c->prompt.ids[i], &err) != NB_OK) return nb_api_fail_from(error, &err, "");
    }
    c->prepared = nb_seconds();
    return true;
}
