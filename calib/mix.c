/* mix.c - see mix.h.  A source that is being read keeps its file open only while it is its turn, but for files read in order,
 * which go on where they stopped when a shortfall is shared out. */
#include "calib/mix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A permutation of the rows, made as far as it is used: places 0 .. drawn-1 are settled, those before `end` may be drawn. */
typedef struct {
    size_t  *rows;
    size_t   count, drawn, end;
    uint64_t state;
} row_draw;

typedef struct {
    nb_dataset *data;     /* NULL: not open */
    size_t      row;      /* of the next one in the open file */
    size_t      want, taken;
    bool        dry;      /* has no more rows */
    bool        drawing;  /* draw and chosen are made */
    row_draw    draw;
    bool       *chosen;   /* [rows] of this walk, with shuffle */
    size_t      rows;     /* of the file, with shuffle */
    size_t      first, end; /* rows in order, without: from first to before end */
    bool        ranged;   /* first and end are known */
} source_state;

struct nb_mix {
    const nb_data_source *sources;
    source_state         *states; /* [count] */
    bool                 *able;   /* [count] work space */
    size_t               *take;   /* [count] work space */
    size_t                count, at, taken;
    nb_mix_options        o;
};

/* ---- shares ------------------------------------------------------------------------------------------------------ */

void nb_mix_shares(size_t *take, size_t samples, const nb_data_source *sources, const bool *able, size_t count)
{
    double total = 0;
    size_t given = 0;
    for (size_t i = 0; i < count; i++) total += !able || able[i] ? sources[i].weight : 0;
    for (size_t i = 0; i < count; i++) {
        take[i] = !able || able[i] ? (size_t)((double)samples * (sources[i].weight / total)) : 0;
        if (take[i] > samples - given) take[i] = samples - given; /* a sum of quotients may be above 1 by a rounding */
        given += take[i];
    }
    for (; given < samples; given++) { /* count steps at most: each source lost less than one row to rounding down */
        size_t best = count;
        double most = -INFINITY;
        for (size_t i = 0; i < count; i++) {
            double rest = (double)samples * (sources[i].weight / total) - (double)take[i];
            if ((able && !able[i]) || !(rest > most)) continue;
            most = rest;
            best = i;
        }
        if (best == count) return; /* nobody can give */
        take[best]++;
    }
}

/* ---- choosing rows ----------------------------------------------------------------------------------------------- */

/* One step of Fisher-Yates: the next place gets one of the rows that are left.  64 random bits make the bias of the
 * remainder smaller than 2^-32 for any file that fits a disk. */
static size_t draw_row(row_draw *d)
{
    size_t place = d->drawn++, from = place + (size_t)(nb_random64(&d->state) % (d->count - place));
    size_t row = d->rows[from];
    d->rows[from] = d->rows[place];
    d->rows[place] = row;
    return row;
}

/* Rows of source i, those that skip passes over and those that are held back. */
static nb_status find_range(const nb_mix *m, size_t i, size_t *rows, size_t *skip, size_t *hold, nb_error *err)
{
    const nb_data_source *source = &m->sources[i];
    *rows = source->total;
    if (!*rows) NB_TRY(nb_dataset_count_source(rows, source, &m->o.dataset, err));
    *skip = m->o.skip < *rows ? m->o.skip : *rows;
    *hold = source->hold < *rows - *skip ? source->hold : *rows - *skip;
    return NB_OK;
}

/* The held rows are the last of the permutation: those before them are what they would be without. */
static nb_status start_draw(nb_mix *m, size_t i, nb_error *err)
{
    source_state *s = &m->states[i];
    uint64_t      mixed = m->o.seed + i;
    size_t        skip, hold;
    NB_TRY(find_range(m, i, &s->rows, &skip, &hold, err));
    size_t count = s->rows - skip;
    s->draw = (row_draw){.count = count, .end = m->o.held ? count : count - hold, .state = i ? nb_random64(&mixed) : m->o.seed};
    NB_TRY(nb_alloc(&s->draw.rows, s->draw.count + 1, sizeof *s->draw.rows, "row numbers", err));
    NB_TRY(nb_alloc(&s->chosen, s->rows + 1, sizeof *s->chosen, "row numbers", err));
    for (size_t k = 0; k < s->draw.count; k++) s->draw.rows[k] = skip + k;
    while (m->o.held && s->draw.drawn < count - hold) draw_row(&s->draw);
    s->drawing = true;
    return NB_OK;
}

/* Choose as many rows as are missing, for another walk over the file; dry when there are none. */
static nb_status draw_missing(nb_mix *m, size_t i, nb_error *err)
{
    source_state *s = &m->states[i];
    if (!s->drawing) NB_TRY(start_draw(m, i, err));
    size_t missing = m->o.samples ? s->want - s->taken : s->draw.count;
    s->dry = s->draw.drawn == s->draw.end;
    memset(s->chosen, 0, s->rows + 1);
    for (size_t k = 0; k < missing && s->draw.drawn < s->draw.end; k++) s->chosen[draw_row(&s->draw)] = true;
    return NB_OK;
}

/* The file is counted only when rows of it are held back. */
static nb_status start_range(nb_mix *m, size_t i, nb_error *err)
{
    source_state *s = &m->states[i];
    size_t        rows, skip, hold;
    s->first = m->o.skip;
    s->end = SIZE_MAX;
    if (m->sources[i].hold || m->o.held) {
        NB_TRY(find_range(m, i, &rows, &skip, &hold, err));
        if (m->o.held) s->first = rows - hold;
        else s->end = rows - hold;
    }
    s->ranged = true;
    return NB_OK;
}

static void close_file(source_state *s)
{
    nb_dataset_close(s->data);
    s->data = NULL;
    s->row = 0;
}

/* The next row of source i that may be used; *end when it has none or has given enough. */
static nb_status next_of(nb_mix *m, size_t i, nb_chat *chat, char where[256], bool *end, nb_error *err)
{
    source_state *s = &m->states[i];
    *end = true;
    while (!s->dry && !(m->o.samples && s->taken >= s->want)) {
        if (!s->data && m->o.shuffle) NB_TRY(draw_missing(m, i, err));
        if (!m->o.shuffle && !s->ranged) NB_TRY(start_range(m, i, err));
        if (!m->o.shuffle && s->row >= s->end) s->dry = true;
        if (s->dry) return NB_OK;
        if (!s->data) NB_TRY(nb_dataset_open_source(&s->data, &m->sources[i], &m->o.dataset, err));
        bool rest = false;
        size_t row = s->row++;
        bool   wanted = m->o.shuffle ? row < s->rows && s->chosen[row] : row >= s->first;
        nb_status status = nb_dataset_next(s->data, chat, where, &rest, err);
        if (status && m->o.held && !wanted && nb_dataset_resume(s->data)) continue; /* calibration's, who has judged it */
        if (status) return status;
        if (rest) {
            close_file(s);
            s->dry = !m->o.shuffle;
            continue;
        }
        *end = !wanted;
        if (wanted) return NB_OK;
        nb_chat_free(chat);
    }
    if (m->o.shuffle) close_file(s); /* another share of it begins with another draw */
    return NB_OK;
}

/* ---- the mix ----------------------------------------------------------------------------------------------------- */

/* What is still missing, to those that have rows left.  false: there is nobody or nothing. */
static bool share_out(nb_mix *m)
{
    bool   any = false;
    size_t missing = m->o.samples - m->taken;
    for (size_t i = 0; i < m->count; i++) {
        m->able[i] = !m->states[i].dry;
        any = any || m->able[i];
    }
    if (!any || !missing || !m->o.samples) return false;
    nb_mix_shares(m->take, missing, m->sources, m->able, m->count);
    for (size_t i = 0; i < m->count; i++) m->states[i].want = m->states[i].taken + m->take[i];
    m->at = 0;
    return true;
}

nb_status nb_mix_next(nb_mix *m, nb_chat *chat, char where[256], size_t *source, bool *end, nb_error *err)
{
    memset(chat, 0, sizeof *chat);
    where[0] = 0;
    for (*end = false;; m->at++) {
        if (m->at == m->count) *end = !share_out(m);
        if (*end) return NB_OK;
        bool rest;
        *source = m->at;
        NB_TRY(next_of(m, m->at, chat, where, &rest, err));
        if (!rest) return NB_OK;
    }
}

void nb_mix_took(nb_mix *m)
{
    m->states[m->at].taken++;
    m->taken++;
}

bool nb_mix_resume(nb_mix *m)
{
    source_state *s = m->at < m->count ? &m->states[m->at] : NULL;
    return s && s->data && nb_dataset_resume(s->data);
}

const nb_dataset *nb_mix_dataset(const nb_mix *m)
{
    return m->at < m->count ? m->states[m->at].data : NULL;
}

void nb_mix_close(nb_mix *m)
{
    if (!m) return;
    for (size_t i = 0; m->states && i < m->count; i++) {
        nb_dataset_close(m->states[i].data);
        free(m->states[i].draw.rows);
        free(m->states[i].chosen);
    }
    free(m->states);
    free(m->able);
    free(m->take);
    free(m);
}

nb_status nb_mix_open(nb_mix **out, const nb_data_source *sources, size_t count, const nb_mix_options *options, nb_error *err)
{
    nb_mix *m;
    *out = NULL;
    for (size_t i = 0; i < count; i++)
        if (!isfinite(sources[i].weight) || !(sources[i].weight > 0))
            return nb_fail(err, NB_ERR_ARGUMENT, "%s: its weight is %g, but a share is a number above 0", sources[i].path,
                           sources[i].weight);
    NB_TRY(nb_alloc(&m, 1, sizeof *m, "a mix of data", err));
    *m = (nb_mix){.sources = sources, .count = count, .o = *options};
    nb_status status = nb_alloc(&m->states, count, sizeof *m->states, "a mix of data", err);
    if (!status) status = nb_alloc(&m->able, count, sizeof *m->able, "a mix of data", err);
    if (!status) status = nb_alloc(&m->take, count, sizeof *m->take, "a mix of data", err);
    if (status) {
        nb_mix_close(m);
        return status;
    }
    m->at = count; /* the first shares are given as a shortfall's are */
    if (!options->samples || !share_out(m)) m->at = 0;
    *out = m;
    return NB_OK;
}
