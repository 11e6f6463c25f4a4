/* metrics.h - counters and histograms of the server, and their Prometheus text.
 *
 * Every function may be called from any thread.
 */
#ifndef NB_METRICS_H
#define NB_METRICS_H

#include "runtime/io/buf.h"

typedef struct nb_metrics nb_metrics;

typedef enum {
    NB_HIST_TTFT, NB_HIST_ITL, NB_HIST_TPOT, NB_HIST_E2E, NB_HIST_QUEUE, NB_HIST_PREFILL, NB_HIST_DECODE, NB_HIST_INFERENCE,
    NB_HIST_FETCH, NB_HIST_VISION, NB_HIST_PROMPT_TOKENS, NB_HIST_GENERATION_TOKENS, NB_HIST_STEP_TOKENS, NB_HIST_N, NB_HIST_MAX_TOKENS,
    NB_HISTOGRAMS
} nb_histogram;

typedef enum { NB_OUTCOME_STOP, NB_OUTCOME_LENGTH, NB_OUTCOME_TOOL_CALLS, NB_OUTCOME_ABORT, NB_OUTCOME_ERROR, NB_OUTCOMES } nb_outcome;

typedef enum { NB_COUNT_ACCEPTED, NB_COUNT_REJECTED, NB_COUNT_PROMPT_TOKENS, NB_COUNT_GENERATION_TOKENS, NB_COUNT_REQUEST_BYTES,
               NB_COUNT_DRAFTED, NB_COUNT_DRAFT_ACCEPTED, NB_COUNTERS } nb_counter;

nb_status nb_metrics_new(nb_metrics **out, const char *model_name, nb_error *err);
void      nb_metrics_free(nb_metrics *m);
void      nb_metrics_observe(nb_metrics *m, nb_histogram h, double value);
void      nb_metrics_count(nb_metrics *m, nb_counter c, uint64_t n);
void      nb_metrics_outcome(nb_metrics *m, nb_outcome o);
uint64_t  nb_metrics_counter(nb_metrics *m, nb_counter c);
uint64_t  nb_metrics_outcomes(nb_metrics *m, nb_outcome o);

/* Gauges of the moment, read when the page is asked for. */
typedef struct {
    int      running, waiting;
    double   kv_usage; /* 0 .. 1 */
    uint64_t prefix_queries, prefix_hits, vision_queries, vision_hits, preemptions, steps;
    size_t   vision_bytes;
} nb_gauges;
/* vllm: names with the prefix vllm: instead of nibble:, for dashboards that exist. */
void      nb_metrics_print(nb_metrics *m, const nb_gauges *g, bool vllm, nb_buf *out);
/* What belongs to the process: memory, descriptors, start time; and HTTP answers by handler, method and status. */
typedef struct nb_http_counts nb_http_counts;
nb_status nb_http_counts_new(nb_http_counts **out, nb_error *err);
void      nb_http_counts_free(nb_http_counts *c);
void      nb_http_counts_add(nb_http_counts *c, const char *handler, const char *method, int status, double seconds);
void      nb_http_counts_print(nb_http_counts *c, nb_buf *out);
void      nb_process_print(nb_buf *out, double start); /* start: Unix time */

#endif
