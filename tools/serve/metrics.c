/* metrics.c - one lock, fixed tables, text format 0.0.4. */
#include "tools/serve/metrics.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_BUCKETS = 24, MAX_RESPONSES = 256 };

static const double seconds_ttft[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560};
static const double seconds_token[] = {.001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
static const double seconds_request[] = {.01, .05, .1, .3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 1920, 7680};
static const double tokens[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000};
static const double few[] = {1, 2, 4, 8, 16, 20};

typedef struct {
    const char   *name, *help;
    const double *bounds;
    int           count;
} shape;
#define SHAPE(n, h, b) {n, h, b, (int)NB_COUNT(b)}
static const shape shapes[NB_HISTOGRAMS] = {
    [NB_HIST_TTFT] = SHAPE("time_to_first_token_seconds", "from the arrival of a request to its first token", seconds_ttft),
    [NB_HIST_ITL] = SHAPE("inter_token_latency_seconds", "between two tokens of an answer", seconds_token),
    [NB_HIST_TPOT] = SHAPE("request_time_per_output_token_seconds", "mean time of a token after the first", seconds_token),
    [NB_HIST_E2E] = SHAPE("e2e_request_latency_seconds", "from the arrival of a request to its end", seconds_request),
    [NB_HIST_QUEUE] = SHAPE("request_queue_time_seconds", "waiting for a place in the batch", seconds_request),
    [NB_HIST_PREFILL] = SHAPE("request_prefill_time_seconds", "from the place in the batch to the first token", seconds_request),
    [NB_HIST_DECODE] = SHAPE("request_decode_time_seconds", "from the first token to the last", seconds_request),
    [NB_HIST_INFERENCE] = SHAPE("request_inference_time_seconds", "in the batch", seconds_request),
    [NB_HIST_FETCH] = SHAPE("request_media_seconds", "fetching, decoding and resizing the pictures of a request", seconds_request),
    [NB_HIST_VISION] = SHAPE("request_vision_seconds", "the vision tower over the pictures of a request", seconds_request),
    [NB_HIST_PROMPT_TOKENS] = SHAPE("request_prompt_tokens", "tokens of a prompt, visual ones included", tokens),
    [NB_HIST_GENERATION_TOKENS] = SHAPE("request_generation_tokens", "tokens of an answer", tokens),
    [NB_HIST_STEP_TOKENS] = SHAPE("iteration_tokens_total", "tokens computed in one step", tokens),
    [NB_HIST_N] = SHAPE("request_params_n", "answers asked for", few),
    [NB_HIST_MAX_TOKENS] = SHAPE("request_params_max_tokens", "answer tokens allowed", tokens),
};

static const struct {
    const char *name, *help;
} counters[NB_COUNTERS] = {
    [NB_COUNT_ACCEPTED] = {"requests_accepted_total", "requests taken into the queue"},
    [NB_COUNT_REJECTED] = {"requests_rejected_total", "requests refused because the queue was full or the server was stopping"},
    [NB_COUNT_PROMPT_TOKENS] = {"prompt_tokens_total", "prompt tokens taken in"},
    [NB_COUNT_GENERATION_TOKENS] = {"generation_tokens_total", "tokens generated"},
    [NB_COUNT_REQUEST_BYTES] = {"request_bytes_total", "bytes of the bodies of requests"},
    [NB_COUNT_DRAFTED] = {"spec_decode_num_draft_tokens_total", "tokens guessed by prompt lookup"},
    [NB_COUNT_DRAFT_ACCEPTED] = {"spec_decode_num_accepted_tokens_total", "guessed tokens that were right"},
};
static const char *const outcomes[NB_OUTCOMES] = {"stop", "length", "tool_calls", "abort", "error"};

struct nb_metrics {
    pthread_mutex_t lock;
    char            label[256]; /* of model_name, escaped */
    uint64_t        counts[NB_COUNTERS], outcomes[NB_OUTCOMES], buckets[NB_HISTOGRAMS][MAX_BUCKETS + 1], observed[NB_HISTOGRAMS];
    double          sum[NB_HISTOGRAMS];
};

/* A label value: backslash, quote and newline escaped. */
static void escape_label(char *out, size_t size, const char *text)
{
    size_t n = 0;
    for (; *text && n + 3 < size; text++) {
        if (*text == '\\' || *text == '"') out[n++] = '\\';
        if (*text == '\n') out[n++] = '\\';
        out[n++] = *text == '\n' ? 'n' : *text;
    }
    out[n] = 0;
}

nb_status nb_metrics_new(nb_metrics **out, const char *model_name, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "metrics", err));
    pthread_mutex_init(&(*out)->lock, NULL);
    escape_label((*out)->label, sizeof (*out)->label, model_name);
    return NB_OK;
}

void nb_metrics_free(nb_metrics *m)
{
    if (!m) return;
    pthread_mutex_destroy(&m->lock);
    free(m);
}

void nb_metrics_observe(nb_metrics *m, nb_histogram h, double value)
{
    int i = 0;
    while (i < shapes[h].count && !(value <= shapes[h].bounds[i])) i++;
    pthread_mutex_lock(&m->lock);
    m->buckets[h][i]++;
    m->observed[h]++;
    m->sum[h] += value;
    pthread_mutex_unlock(&m->lock);
}

void nb_metrics_count(nb_metrics *m, nb_counter c, uint64_t n)
{
    pthread_mutex_lock(&m->lock);
    m->counts[c] += n;
    pthread_mutex_unlock(&m->lock);
}

void nb_metrics_outcome(nb_metrics *m, nb_outcome o)
{
    pthread_mutex_lock(&m->lock);
    m->outcomes[o]++;
    pthread_mutex_unlock(&m->lock);
}

uint64_t nb_metrics_counter(nb_metrics *m, nb_counter c)
{
    pthread_mutex_lock(&m->lock);
    uint64_t n = m->counts[c];
    pthread_mutex_unlock(&m->lock);
    return n;
}

uint64_t nb_metrics_outcomes(nb_metrics *m, nb_outcome o)
{
    pthread_mutex_lock(&m->lock);
    uint64_t n = m->outcomes[o];
    pthread_mutex_unlock(&m->lock);
    return n;
}

/* ---- printing ------------------------------------------------------------------------------------------------------------ */

typedef struct {
    nb_buf     *out;
    const char *prefix, *label;
} page;

static void head(const page *p, const char *name, const char *help, const char *type)
{
    nb_buf_printf(p->out, "# HELP %s%s %s\n# TYPE %s%s %s\n", p->prefix, name, help, p->prefix, name, type);
}

static void value(const page *p, const char *name, const char *help, const char *type, double v)
{
    head(p, name, help, type);
    nb_buf_printf(p->out, "%s%s{model_name=\"%s\"} %.17g\n", p->prefix, name, p->label, v);
}

static void histogram(const page *p, const nb_metrics *m, nb_histogram h)
{
    uint64_t so_far = 0;
    head(p, shapes[h].name, shapes[h].help, "histogram");
    for (int i = 0; i < shapes[h].count; i++) {
        so_far += m->buckets[h][i];
        nb_buf_printf(p->out, "%s%s_bucket{model_name=\"%s\",le=\"%g\"} %llu\n", p->prefix, shapes[h].name, p->label, shapes[h].bounds[i],
                      (unsigned long long)so_far);
    }
    nb_buf_printf(p->out, "%s%s_bucket{model_name=\"%s\",le=\"+Inf\"} %llu\n", p->prefix, shapes[h].name, p->label,
                  (unsigned long long)m->observed[h]);
    nb_buf_printf(p->out, "%s%s_sum{model_name=\"%s\"} %.9g\n", p->prefix, shapes[h].name, p->label, m->sum[h]);
    nb_buf_printf(p->out, "%s%s_count{model_name=\"%s\"} %llu\n", p->prefix, shapes[h].name, p->label, (unsigned long long)m->observed[h]);
}

void nb_metrics_print(nb_metrics *m, const nb_gauges *g, bool vllm, nb_buf *out)
{
    const page p = {out, vllm ? "vllm:" : "nibble:", m->label};
    pthread_mutex_lock(&m->lock);
    value(&p, "num_requests_running", "requests in the batch", "gauge", g->running);
    value(&p, "num_requests_waiting", "requests that wait or are being prepared", "gauge", g->waiting);
    value(&p, "kv_cache_usage_perc", "share of the KV pages in use, 0 to 1", "gauge", g->kv_usage);
    value(&p, "prefix_cache_queries_total", "prompt tokens looked up", "counter", (double)g->prefix_queries);
    value(&p, "prefix_cache_hits_total", "prompt tokens found", "counter", (double)g->prefix_hits);
    value(&p, "mm_cache_queries_total", "pictures looked up", "counter", (double)g->vision_queries);
    value(&p, "mm_cache_hits_total", "pictures found", "counter", (double)g->vision_hits);
    value(&p, "mm_cache_bytes", "memory of the rows of pictures kept", "gauge", (double)g->vision_bytes);
    value(&p, "num_preemptions_total", "answers that gave their pages back for a while", "counter", (double)g->preemptions);
    value(&p, "engine_steps_total", "steps of the engine", "counter", (double)g->steps);
    for (int i = 0; i < NB_COUNTERS; i++) value(&p, counters[i].name, counters[i].help, "counter", (double)m->counts[i]);
    head(&p, "request_success_total", "requests by how they ended", "counter");
    for (int i = 0; i < NB_OUTCOMES; i++)
        nb_buf_printf(out, "%srequest_success_total{model_name=\"%s\",finished_reason=\"%s\"} %llu\n", p.prefix, p.label, outcomes[i],
                      (unsigned long long)m->outcomes[i]);
    for (int i = 0; i < NB_HISTOGRAMS; i++) histogram(&p, m, (nb_histogram)i);
    pthread_mutex_unlock(&m->lock);
}

/* ---- HTTP ---------------------------------------------------------------------------------------------------------------- */

struct nb_http_counts {
    pthread_mutex_t lock;
    struct {
        const char *handler, *method; /* static texts */
        int         status;
        uint64_t    count;
        double      seconds;
    } rows[MAX_RESPONSES];
    int count;
};

nb_status nb_http_counts_new(nb_http_counts **out, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "metrics", err));
    pthread_mutex_init(&(*out)->lock, NULL);
    return NB_OK;
}

void nb_http_counts_free(nb_http_counts *c)
{
    if (!c) return;
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void nb_http_counts_add(nb_http_counts *c, const char *handler, const char *method, int status, double seconds)
{
    int i = 0;
    pthread_mutex_lock(&c->lock);
    while (i < c->count && (strcmp(c->rows[i].handler, handler) || strcmp(c->rows[i].method, method) || c->rows[i].status != status)) i++;
    if (i == c->count && c->count < MAX_RESPONSES) {
        c->rows[c->count].handler = handler;
        c->rows[c->count].method = method;
        c->rows[c->count++].status = status;
    }
    if (i < c->count) {
        c->rows[i].count++;
        c->rows[i].seconds += seconds;
    }
    pthread_mutex_unlock(&c->lock);
}

void nb_http_counts_print(nb_http_counts *c, nb_buf *out)
{
    pthread_mutex_lock(&c->lock);
    nb_buf_str(out, "# HELP http_requests_total answers by route, method and status\n# TYPE http_requests_total counter\n");
    for (int i = 0; i < c->count; i++)
        nb_buf_printf(out, "http_requests_total{handler=\"%s\",method=\"%s\",status=\"%d\"} %llu\n", c->rows[i].handler, c->rows[i].method,
                      c->rows[i].status, (unsigned long long)c->rows[i].count);
    nb_buf_str(out, "# HELP http_request_duration_seconds from the request line to the last byte\n"
                    "# TYPE http_request_duration_seconds summary\n");
    for (int i = 0; i < c->count; i++)
        nb_buf_printf(out, "http_request_duration_seconds_sum{handler=\"%s\",method=\"%s\",status=\"%d\"} %.9g\n"
                      "http_request_duration_seconds_count{handler=\"%s\",method=\"%s\",status=\"%d\"} %llu\n", c->rows[i].handler,
                      c->rows[i].method, c->rows[i].status, c->rows[i].seconds, c->rows[i].handler, c->rows[i].method, c->rows[i].status,
                      (unsigned long long)c->rows[i].count);
    pthread_mutex_unlock(&c->lock);
}

/* ---- the process --------------------------------------------------------------------------------------------------------- */

static size_t resident_bytes(void)
{
    size_t pages = 0, all;
    FILE  *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%zu %zu", &all, &pages) != 2) pages = 0;
    if (f) fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static int open_descriptors(void)
{
    int  n = -1; /* the directory's own */
    DIR *d = opendir("/proc/self/fd");
    if (!d) return 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

void nb_process_print(nb_buf *out, double start)
{
    nb_buf_printf(out, "# HELP process_resident_memory_bytes memory in use\n# TYPE process_resident_memory_bytes gauge\n"
                  "process_resident_memory_bytes %zu\n# HELP process_open_fds open descriptors\n# TYPE process_open_fds gauge\n"
                  "process_open_fds %d\n# HELP process_start_time_seconds Unix time of the start\n# TYPE process_start_time_seconds gauge\n"
                  "process_start_time_seconds %.0f\n", resident_bytes(), open_descriptors(), start);
}
