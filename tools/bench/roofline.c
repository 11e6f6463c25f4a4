/* roofline.c - see roofline.h. */
#include "tools/bench/roofline.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

static const nb_column columns[] = {
    { .key = "probe", .title = "probe" },
    { .key = "level", .title = "level" },
    { .key = "instruction", .title = "instruction" },
    { .key = "n_threads", .title = "threads" },
    { .key = "there" },
    { .key = "unit" },
    { .key = "median", .title = "median", .right = true },
    { .key = "min", .title = "least", .right = true },
    { .key = "max", .title = "most", .right = true },
    { .key = "rounds" },
    { .key = "repeated_rounds" },
    { .key = "disturbed_rounds" },
    { .key = NULL, .title = "note" },
    { .key = "memory_bytes" },
    { .key = "huge_page_bytes" },
    { .key = "build_version" },
    { .key = "test_time" },
};

void nb_human_rate(char out[32], double rate, bool bytes)
{
    static const struct {
        double      unit;
        const char *name;
    } steps[] = { { 1e12, "T" }, { 1e9, "G" }, { 1e6, "M" }, { 1, "" } };
    size_t i = 0;
    while (i + 1 < NB_COUNT(steps) && rate < steps[i].unit) i++;
    double value = rate / steps[i].unit;
    if (isfinite(rate))
        snprintf(out, 32, "%.*f %s%s/s", value < 10 ? 2 : value < 100 ? 1 : 0, value, steps[i].name, bytes ? "B" : "op");
    else
        snprintf(out, 32, "-");
}

static void add_rate(nb_table *t, const nb_probe *p, double rate)
{
    char text[32];
    nb_human_rate(text, rate, p->read != NULL);
    nb_table_pair(t, text, rate);
}

static void add_row(nb_table *t, const nb_limits *l, const nb_probe *p, const nb_limit *measured, int threads, const char *when)
{
    static const nb_rounds none;
    const nb_rounds       *r = measured ? &measured->rate : &none;
    char                   note[96] = "";
    if (!measured)
        snprintf(note, sizeof note, "not on this machine");
    else if (r->disturbed)
        snprintf(note, sizeof note, "%d of %d rounds disturbed", r->disturbed, r->count);
    nb_table_text(t, p->name);
    nb_table_text(t, p->level);
    nb_table_text(t, p->instruction);
    nb_table_int(t, threads);
    nb_table_bool(t, measured != NULL);
    nb_table_text(t, p->read ? "bytes/s" : "op/s");
    for (int i = 0; i < 3; i++) add_rate(t, p, nb_rounds_at(r, i == 0 ? 0.5 : i == 1 ? 0 : 1));
    nb_table_int(t, r->count);
    nb_table_int(t, r->repeated);
    nb_table_int(t, r->disturbed);
    nb_table_text(t, note);
    nb_table_int(t, p->read ? (int64_t)l->memory : 0);
    nb_table_int(t, p->read ? (int64_t)l->huge : 0);
    nb_table_text(t, NIBBLE_VERSION);
    nb_table_text(t, when);
}

static const nb_limit *find(const nb_limits *l, const nb_probe *p, const nb_pool *pool)
{
    for (size_t i = 0; i < l->count; i++)
        if (l->items[i].probe == p && l->items[i].pool == pool) return &l->items[i];
    return NULL;
}

static nb_status measure(nb_table *t, nb_limits *l, const nb_roofline_options *o, nb_pool *const pools[2], nb_meter *meter, nb_error *err)
{
    char      when[32];
    time_t    now = time(NULL);
    struct tm utc;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    for (int n = 0; n < 2 && pools[n]; n++)
        for (size_t i = 0; i < nb_probe_count(); i++) {
            const nb_probe *p = nb_probe_at(i);
            if (o->levels.has[p->isa] && nb_probe_there(p)) NB_TRY(nb_limits_add(l, p, pools[n], err));
        }
    NB_TRY(nb_limits_measure(l, o->memory, o->rounds, meter, err));
    for (size_t i = 0; i < nb_probe_count(); i++)
        for (int n = 0; n < 2 && pools[n]; n++) {
            const nb_probe *p = nb_probe_at(i);
            if (o->levels.has[p->isa]) add_row(t, l, p, find(l, p, pools[n]), nb_pool_threads(pools[n]), when);
        }
    return NB_OK;
}

nb_status nb_roofline(nb_table **out, const nb_roofline_options *o, nb_meter *meter, nb_error *err)
{
    nb_pool  *pools[2] = { NULL, NULL }; /* one thread, and all of them when that is more */
    nb_limits limits = { 0 };
    *out = NULL;
    NB_TRY(nb_table_new(out, columns, NB_COUNT(columns), err));
    nb_status status = nb_pool_new(&pools[0], 1, err);
    if (status == NB_OK && o->threads != 1) status = nb_pool_new(&pools[1], o->threads, err);
    if (status == NB_OK && pools[1] && nb_pool_threads(pools[1]) == 1) {
        nb_pool_free(pools[1]);
        pools[1] = NULL;
    }
    if (status == NB_OK) status = measure(*out, &limits, o, pools, meter, err);
    nb_limits_free(&limits);
    nb_pool_free(pools[0]);
    nb_pool_free(pools[1]);
    return status;
}
