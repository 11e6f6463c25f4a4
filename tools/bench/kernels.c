/* kernels.c - see kernels.h.
 *
 * Time.  A case gets the part of the time left that its least work has of the least work left: rounds go on until that is used up, but
 * there is one at least, and of a long case that is its first call.  A call that would take too long by itself is left out.
 *
 * Share of the limit.  The least time of an operation is that of its bytes at the rate of reading or that of its operations at the peak
 * of its arithmetic, whichever is longer; that is its bound, and the share is the least time over the measured one.  What stays in the
 * caches is not bound by memory, and what is small not by anything but the call: such cases have no share.
 */
#include "tools/bench/kernels.h"

#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench/kernel_run.h"
#include "tools/bench/roofline.h"
#include "tools/cli/stop.h"

static const nb_column columns[] = {
    { .key = "op", .title = "op" },
    { .key = "shape", .title = "shape" },
    { .key = "part", .title = "part" },
    { .key = "weights", .title = "weights" },
    { .key = "level", .title = "level" },
    { .key = "n_threads" },
    { .key = "rows", .title = "rows" },
    { .key = "depth", .title = "depth" },
    { .key = "n" },
    { .key = "k" },
    { .key = "median_ns", .title = "time", .right = true },
    { .key = "min_ns", .title = "least", .right = true },
    { .key = "max_ns", .title = "most", .right = true },
    { .key = "bytes" },
    { .key = "ops" },
    { .key = "bytes_per_s", .title = "bytes", .right = true },
    { .key = "ops_per_s", .title = "operations", .right = true },
    { .key = "bound", .title = "bound" },
    { .key = "percent", .title = "%", .digits = 1 },
    { .key = "rounds" },
    { .key = "repeated_rounds" },
    { .key = "disturbed_rounds" },
    { .key = "note", .title = "note" },
    { .key = "probe_read" },
    { .key = "probe_ops" },
    { .key = "build_version" },
};

/* ---- what is to be done, and what came of it --------------------------------------------------------------------------- */

typedef struct {
    const nb_kernel_case *c;
    nb_isa                isa;
    double                least;  /* seconds that a call takes at the limits */
    bool                  cached;
    int                   sites;
    nb_kernel_part        part;   /* as it was measured */
    nb_work               work[NB_KERNEL_SITES + 1]; /* the last: of all */
    nb_rounds             time[NB_KERNEL_SITES + 1];
    char                  note[96];
} job;

typedef struct {
    job    *items;
    size_t  count, capacity;
    double  end; /* on the clock of nb_seconds */
    nb_ops  ops[NB_ISA_LEVELS];
} job_list;

/* The longest that a call may take by what is expected, as a part of all the time; and how many times the least time is expected. */
static const double longest_call = 0.1, expected_factor = 2, ref_factor = 4, least_cost = 0.05;
/* What is shorter always has a round that is not the first. */
static const double long_round = 0.05;

static double expected_seconds(const job *j)
{
    return j->least * (j->isa == NB_ISA_REF ? ref_factor : expected_factor);
}

/* What is short has several rounds, and each of them goes through all places. */
static double cost(const job *j)
{
    double s = expected_seconds(j);
    return s > least_cost ? s : least_cost;
}

static nb_status plan(job_list *l, const nb_kernels_options *o, const nb_kernel_cases *cases, nb_error *err)
{
    regex_t wanted;
    if (o->filter && regcomp(&wanted, o->filter, REG_EXTENDED | REG_NOSUB) != 0)
        return nb_fail(err, NB_ERR_ARGUMENT, "--filter: '%s' is not a regular expression (POSIX, extended)", o->filter);
    nb_status status = NB_OK;
    for (size_t i = 0; i < cases->count && status == NB_OK; i++)
        for (nb_isa isa = NB_ISA_LEVELS; isa-- > NB_ISA_REF && status == NB_OK;) {
            char label[160];
            nb_kernel_label(label, &cases->items[i], nb_isa_name(isa));
            if (!o->levels.has[isa] || (o->filter && regexec(&wanted, label, 0, NULL, 0) != 0)) continue;
            status = nb_grow(&l->items, &l->capacity, l->count + 1, sizeof *l->items, "cases", err);
            if (status == NB_OK) l->items[l->count++] = (job){ .c = &cases->items[i], .isa = isa };
        }
    if (o->filter) regfree(&wanted);
    if (status == NB_OK && !l->count)
        return nb_fail(err, NB_ERR_ARGUMENT, "no case is left: none of the labels (\"matmul 7b layer bf16 rows 8 avx2\") has '%s'", o->filter);
    return status;
}

/* What comes first when time is short: operations without matrices, then products, and ref, which nobody waits for, at the end.  Cases
 * that use the same matrices follow each other. */
static int by_haste(const void *a, const void *b)
{
    const job *x = a, *y = b;
    int        late[2] = { x->isa == NB_ISA_REF ? 2 : x->c->form != NULL, y->isa == NB_ISA_REF ? 2 : y->c->form != NULL };
    if (late[0] != late[1]) return late[0] - late[1];
    if (x->c != y->c) return x->c < y->c ? -1 : 1;
    return (int)y->isa - (int)x->isa;
}

/* ---- measuring --------------------------------------------------------------------------------------------------------- */

static void add_times(job *j, const double *seconds, double lost, bool *again)
{
    double all = 0;
    *again = false;
    for (int s = 0; s < j->sites; s++) {
        all += seconds[s];
        *again |= !nb_rounds_add(&j->time[s], seconds[s], lost);
    }
    nb_rounds_add(&j->time[NB_KERNEL_SITES], all, lost);
}

static nb_status run_rounds(job *j, nb_kernel_run *r, int rounds, double slice, nb_error *err)
{
    double    seconds[NB_KERNEL_SITES], lost, from = nb_seconds();
    bool      again;
    nb_clocks first = nb_clocks_now();
    nb_kernel_round(r, seconds); /* pages, threads and clocks get ready */
    double took = nb_clocks_since(&first, 0, &lost);
    if (took > slice / 2 && took > long_round) { /* there is no time for another: it counts, and cannot be made again */
        for (int s = 0; s <= NB_KERNEL_SITES; s++) j->time[s].repeated = NB_ROUND_REPEATS;
        add_times(j, seconds, lost, &again);
        for (int s = 0; s <= NB_KERNEL_SITES; s++) j->time[s].repeated = 0;
        return NB_OK;
    }
    for (int i = 0; i < rounds && (i == 0 || nb_seconds() - from + took < slice);) {
        NB_TRY(nb_stop_status(err));
        nb_clocks clocks = nb_clocks_now();
        nb_kernel_round(r, seconds);
        nb_clocks_since(&clocks, 0, &lost);
        add_times(j, seconds, lost, &again);
        i += !again;
    }
    return NB_OK;
}

static nb_status measure(job *j, job_list *l, nb_kernel_room *room, const nb_kernels_options *o, double slice, nb_error *err)
{
    nb_kernel_run r;
    nb_error      why = { 0 };
    if (nb_seconds() > l->end) {
        snprintf(j->note, sizeof j->note, "left out: the time was up");
        return NB_OK;
    }
    if (expected_seconds(j) > longest_call * o->seconds) {
        snprintf(j->note, sizeof j->note, "left out: about %.0f s a call", expected_seconds(j));
        return NB_OK;
    }
    nb_status status = nb_kernel_begin(&r, j->c, &l->ops[j->isa], room, &why);
    if (status == NB_ERR_BUDGET) {
        snprintf(j->note, sizeof j->note, "left out: %.70s", why.text);
        return NB_OK;
    }
    if (status != NB_OK) {
        *err = why;
        return status;
    }
    j->cached = r.cached;
    j->sites = r.sites;
    j->part = nb_kernel_part_at(&j->c->part, j->isa);
    for (int s = 0; s < r.sites; s++) {
        j->work[s] = r.work[s];
        j->work[NB_KERNEL_SITES] = nb_work_sum(j->work[NB_KERNEL_SITES], r.work[s]);
    }
    if (j->c->op == NB_KERNEL_MATMUL && j->isa == NB_ISA_REF)
        snprintf(j->note, sizeof j->note, "%d outputs of each matrix", NB_KERNEL_REF_OUTPUTS);
    status = run_rounds(j, &r, o->rounds, slice, err);
    nb_kernel_end(&r);
    return status;
}

static nb_status measure_all(job_list *l, nb_kernel_room *room, const nb_kernels_options *o, nb_meter *meter, nb_error *err)
{
    double left = 0;
    char   label[160];
    for (size_t i = 0; i < l->count; i++) left += cost(&l->items[i]);
    for (size_t i = 0; i < l->count; i++) {
        job *j = &l->items[i];
        NB_TRY(nb_stop_status(err));
        nb_kernel_label(label, j->c, nb_isa_name(j->isa));
        if (meter) nb_meter_update(meter, i, l->count, label);
        double slice = (l->end - nb_seconds()) * cost(j) / left;
        left -= cost(j);
        NB_TRY(measure(j, l, room, o, slice, err));
    }
    if (meter) nb_meter_update(meter, l->count, l->count, "limits");
    return NB_OK;
}

/* ---- the table --------------------------------------------------------------------------------------------------------- */

static const char *arithmetic(const nb_work *w)
{
    return w->ints > 0 ? "int" : w->doubles > 0 ? "f64" : "f32";
}

static void add_time(nb_table *t, double seconds)
{
    char text[32] = "";
    if (isfinite(seconds))
        snprintf(text, sizeof text, seconds < 1e-5 ? "%.2f us" : seconds < 1e-3 ? "%.0f us" : seconds < 0.1 ? "%.2f ms" : "%.0f ms",
                 seconds * (seconds < 1e-3 ? 1e6 : 1e3));
    nb_table_pair(t, text, seconds * 1e9);
}

static void add_per_second(nb_table *t, double amount, double seconds, bool bytes)
{
    char   text[32] = "";
    double rate = amount > 0 ? amount / seconds : NAN;
    if (isfinite(rate)) nb_human_rate(text, rate, bytes);
    nb_table_pair(t, text, rate);
}

static void add_row(nb_table *t, const job *j, int site, const nb_rates *rates, int threads)
{
    const nb_kernel_case *c = j->c;
    bool                  one = site < NB_KERNEL_SITES;
    const nb_work        *w = &j->work[site];
    const nb_rounds      *r = &j->time[site];
    double seconds = nb_rounds_at(r, 0.5), read = nb_work_read_seconds(w, rates), compute = nb_work_compute_seconds(w, rates);
    double operations = w->ints + w->floats + w->doubles, least = j->cached || read < compute ? compute : read;
    char   name[64] = "";
    if (c->form) snprintf(name, sizeof name, one ? "%s.%s" : "%s", c->part.name, one ? c->part.site[site].name : "");
    nb_table_text(t, nb_kernel_op_name(c->op));
    nb_table_text(t, c->shape);
    nb_table_text(t, name);
    nb_table_text(t, c->form ? c->form->name : "");
    nb_table_text(t, nb_isa_name(j->isa));
    nb_table_int(t, threads);
    nb_table_int(t, (int64_t)c->rows);
    if (c->op == NB_KERNEL_ATTEND) nb_table_int(t, (int64_t)c->past);
    else nb_table_text(t, NULL);
    if (one && c->op == NB_KERNEL_MATMUL) {
        nb_table_int(t, j->part.site[site].n);
        nb_table_int(t, j->part.site[site].k);
    } else {
        nb_table_text(t, NULL);
        nb_table_text(t, NULL);
    }
    for (int i = 0; i < 3; i++) add_time(t, nb_rounds_at(r, i == 0 ? 0.5 : i == 1 ? 0 : 1));
    nb_table_number(t, r->count && w->bytes > 0 ? w->bytes : NAN);
    nb_table_number(t, r->count && operations > 0 ? operations : NAN);
    add_per_second(t, w->bytes, seconds, true);
    add_per_second(t, operations, seconds, false);
    bool shared = r->count && !j->cached && least > 0;
    nb_table_text(t, !r->count ? "" : j->cached ? "call" : read > compute ? "memory" : arithmetic(w));
    nb_table_number(t, shared ? 100 * least / seconds : NAN);
    nb_table_int(t, r->count);
    nb_table_int(t, r->repeated);
    nb_table_int(t, r->disturbed);
    char note[160];
    snprintf(note, sizeof note, "%s%s", j->note, r->disturbed ? *j->note ? "; disturbed" : "disturbed" : "");
    nb_table_text(t, note);
    nb_table_number(t, rates->read);
    nb_table_number(t, operations > 0 ? operations / compute : NAN);
    nb_table_text(t, NIBBLE_VERSION);
}

static int by_case(const void *a, const void *b)
{
    const job *x = a, *y = b;
    if (x->c != y->c) return x->c < y->c ? -1 : 1;
    return (int)y->isa - (int)x->isa;
}

static void fill_table(nb_table *t, job_list *l, const nb_limits *limits, const nb_kernels_options *o, int threads)
{
    qsort(l->items, l->count, sizeof *l->items, by_case);
    for (size_t i = 0; i < l->count; i++) {
        const job *j = &l->items[i];
        nb_rates   rates = nb_rates_of(limits, j->isa);
        for (int s = 0; o->sites && s < j->sites && j->sites > 1; s++) add_row(t, j, s, &rates, threads);
        add_row(t, j, NB_KERNEL_SITES, &rates, threads);
    }
}

/* ---- all of it --------------------------------------------------------------------------------------------------------- */

enum { ROUNDS_BEFORE = 3, ROUNDS_AFTER = 2 };

static nb_status run_list(nb_table *t, job_list *l, const nb_kernels_options *o, nb_pool *pool, nb_limits *limits, nb_meter *meter, nb_error *err)
{
    nb_kernel_room room = { 0 };
    size_t         memory = o->memory ? o->memory : nb_limits_memory(), rotation = memory / 4, largest = 256u << 20;
    for (nb_isa isa = NB_ISA_REF; isa < NB_ISA_LEVELS; isa++) {
        if (!o->levels.has[isa]) continue;
        nb_ops_init(&l->ops[isa], isa, pool);
        NB_TRY(nb_limits_add_level(limits, isa, pool, err));
    }
    NB_TRY(nb_limits_measure(limits, o->memory, ROUNDS_BEFORE, NULL, err));
    for (size_t i = 0; i < l->count; i++) {
        job     *j = &l->items[i];
        nb_rates rates = nb_rates_of(limits, j->isa);
        nb_work  w = nb_kernel_expected(j->c, j->isa);
        j->least = fmax(nb_work_read_seconds(&w, &rates), nb_work_compute_seconds(&w, &rates));
    }
    const nb_kernel_case *first = l->items[0].c, *last = first;
    for (size_t i = 0; i < l->count; i++) {
        if (l->items[i].c < first) first = l->items[i].c;
        if (l->items[i].c > last) last = l->items[i].c;
    }
    nb_status status = nb_kernel_room_new(&room, pool, rotation < largest ? rotation : largest, first, (size_t)(last - first) + 1, err);
    l->end = nb_seconds() + o->seconds;
    if (status == NB_OK) status = measure_all(l, &room, o, meter, err);
    nb_kernel_room_free(&room);
    if (status == NB_OK) status = nb_limits_measure(limits, o->memory, ROUNDS_AFTER, NULL, err);
    if (status == NB_OK) fill_table(t, l, limits, o, nb_pool_threads(pool));
    return status;
}

nb_status nb_kernels(nb_table **out, const nb_kernels_options *o, nb_meter *meter, nb_error *err)
{
    nb_kernel_cases cases;
    job_list        list = { 0 };
    nb_limits       limits = { 0 };
    nb_pool        *pool = NULL;
    *out = NULL;
    NB_TRY(nb_table_new(out, columns, NB_COUNT(columns), err));
    NB_TRY(nb_kernel_cases_new(&cases, o->shapes, err));
    nb_status status = plan(&list, o, &cases, err);
    if (status == NB_OK) qsort(list.items, list.count, sizeof *list.items, by_haste);
    if (status == NB_OK) status = nb_pool_new(&pool, o->threads, err);
    if (status == NB_OK) status = run_list(*out, &list, o, pool, &limits, meter, err);
    nb_limits_free(&limits);
    nb_pool_free(pool);
    free(list.items);
    nb_kernel_cases_free(&cases);
    return status;
}
