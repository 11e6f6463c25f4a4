/* benchmark.h - the rows of a benchmark asked of a model, here or at a server, and what came of them. */
#ifndef NB_BENCHMARK_H
#define NB_BENCHMARK_H

#include "tools/client/api.h"
#include "tools/eval/report.h"
#include "tools/eval/row_log.h"
#include "tools/session.h"

typedef struct {
    bool                  missing_as_pandas;
    size_t                limit;    /* 0: all rows */
    nb_score_rules        scoring;
    int                   parallel, predict;
    const nb_media_flags *media;
    nb_row_log           *log;      /* NULL: none */
    const char           *log_path; /* for a note */
    bool                  resume;   /* rows that the log answers are not asked */
} nb_benchmark;

/* spec: NAME:FILE.tsv.  Answers come from the session's engine, or from the server when api is given, whose model is of->model. */
nb_status nb_benchmark_run(const nb_benchmark *b, const char *spec, nb_session *s, const nb_api *api, const nb_row_log_of *of, nb_eval_row *row,
                           nb_error *err);
/* The same benchmark as an earlier run's log answers it. */
nb_status nb_benchmark_load(const nb_benchmark *b, const char *spec, const char *log, nb_eval_row *row, nb_error *err);

#endif
