/* call.c - life of a call. */
#include "tools/serve/call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

void nb_call_request_free(nb_call_request *r)
{
    free(r->model);
    nb_chat_free(&r->chat);
    nb_ids_free(&r->ids);
    for (int i = 0; i < NB_CALL_MAX_STOPS; i++) free(r->stops[i]);
    free(r->bias);
    nb_buf_free(&r->ignored);
    cJSON_Delete(r->form);
    memset(r, 0, sizeof *r);
}

/* 24 characters that nobody can guess. */
static bool random_id(char out[25])
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuv";
    uint8_t           bytes[24];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) return false;
    for (size_t i = 0; i < sizeof bytes; i++) out[i] = digits[bytes[i] & 31];
    out[24] = 0;
    return true;
}

nb_status nb_call_new(nb_call **out, nb_call_request *request, const char *id_prefix, nb_error *err)
{
    char id[25];
    *out = NULL;
    if (!random_id(id)) return nb_fail(err, NB_ERR_IO, "the system gives no random numbers");
    NB_TRY(nb_alloc(out, 1, sizeof **out, "a request", err));
    nb_call *c = *out;
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->wake_lock, NULL);
    atomic_init(&c->holders, 1);
    snprintf(c->id, sizeof c->id, "%s%s", id_prefix, id);
    c->created = (int64_t)time(NULL);
    c->arrived = nb_seconds();
    c->request = *request;
    memset(request, 0, sizeof *request);
    /* What points into the request moved with it. */
    c->request.generate.stop = (const char *const *)c->request.stops;
    c->request.generate.stop_ids = c->request.stop_ids;
    c->request.generate.sampling.bias = c->request.bias;
    return NB_OK;
}

nb_call *nb_call_hold(nb_call *c)
{
    atomic_fetch_add(&c->holders, 1);
    return c;
}

void nb_call_drop(nb_call *c)
{
    if (!c || atomic_fetch_sub(&c->holders, 1) > 1) return;
    for (int i = 0; i < NB_CALL_MAX_CHOICES; i++) {
        nb_buf_free(&c->choices[i].text);
        free(c->choices[i].tokens);
    }
    nb_ids_free(&c->prompt_ids);
    nb_call_request_free(&c->request);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->wake_lock);
    free(c);
}

void nb_call_cancel(nb_call *c) { atomic_store(&c->cancelled, true); }

void nb_call_wake(nb_call *c)
{
    pthread_mutex_lock(&c->wake_lock);
    if (c->wake) c->wake(c->wake_context);
    pthread_mutex_unlock(&c->wake_lock);
}

void nb_call_listen(nb_call *c, void (*wake)(void *context), void *context)
{
    pthread_mutex_lock(&c->wake_lock);
    c->wake = wake;
    c->wake_context = context;
    pthread_mutex_unlock(&c->wake_lock);
}
