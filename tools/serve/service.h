/* service.h - one model that answers calls: admission, preparing (fetch, decode, resize, vision tower), the engine, cancellation.
 *
 * Threads: one engine thread, which alone touches the engine; one thread for calls with pictures and one for calls without, so that a
 * question of five words does not wait behind ten photographs.  The vision tower runs beside the engine on a pool of its own, so
 * decoding slows down under it but never stands still.  A call is counted the moment it is submitted, before any work is done for
 * it; what it may cost is checked again when its tokens are counted, before the tower runs.
 */
#ifndef NB_SERVICE_H
#define NB_SERVICE_H

#include "tools/serve/call.h"
#include "tools/serve/metrics.h"

typedef struct nb_service nb_service;

typedef struct {
    nb_engine_options engine;           /* prefix_cache and overcommit as wanted */
    size_t            max_model_len;    /* tokens of a prompt and its answer; 0: the model's own, at most the engine's */
    size_t            vision_cache_bytes;
    int               max_queue;        /* calls in all; more are refused with 503 */
    int               max_images, max_videos; /* of one call */
    double            request_timeout_s; /* 0: none */
    nb_media_options  media;
    nb_pixel_limits   limits;           /* of the server: a call can narrow them, never widen the maximum */
    int               draft;            /* prompt lookup while few calls run; 0: none */
    bool              greedy_default;   /* sampling fields that a call leaves out: temperature 1 as OpenAI's, not the checkpoint's */
    int               vision_threads;   /* 0: as many as the pool has */
} nb_service_options;

/* model must outlive the service. */
nb_status nb_service_start(nb_service **out, const nb_model *model, const nb_service_options *options, nb_metrics *metrics, nb_error *err);
/* No new calls; those there are get up to drain_s to end, then they are cancelled.  Frees the service. */
void      nb_service_stop(nb_service *s, double drain_s);

const nb_model *nb_service_model(const nb_service *s);
const nb_service_options *nb_service_settings(const nb_service *s); /* with the defaults filled in */
bool      nb_service_healthy(nb_service *s); /* false once the engine failed for good */

/* Takes a holder of its own.  Refused (false): the queue is full, or the service is stopping or dead. */
bool      nb_service_submit(nb_service *s, nb_call *call, nb_api_error *error);

typedef struct {
    int    queued, preparing, waiting, running;
    nb_engine_stats       engine;
    nb_visual_cache_stats vision;
} nb_service_load;
nb_service_load nb_service_look(nb_service *s);

#endif
