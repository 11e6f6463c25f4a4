/* progress.c - how far a long command is.  One meter draws at a time; who else prints clears its bar first. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli/output.h"
#include "tools/cli/progress.h"

static nb_progress_mode mode_now = NB_PROGRESS_NONE;
static bool             bar_drawn; /* a bar stands on the terminal's last line */

void nb_progress_setup(nb_progress_mode mode, bool quiet)
{
    if (mode == NB_PROGRESS_AUTO)
        mode = quiet ? NB_PROGRESS_NONE : isatty(STDERR_FILENO) ? NB_PROGRESS_BAR : NB_PROGRESS_PLAIN;
    mode_now = mode;
}

void nb_meter_clear(void)
{
    if (!bar_drawn) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    bar_drawn = false;
}

void nb_meter_start(nb_meter *m, const char *task)
{
    memset(m, 0, sizeof *m);
    snprintf(m->task, sizeof m->task, "%s", task);
    m->start = m->last = nb_seconds();
}

void nb_meter_line(const nb_meter *m, nb_progress_mode mode, double now, const char *what, char *out, size_t n)
{
    double elapsed = now - m->start;
    bool   known = m->total > 0 && m->done > 0;
    double left = known ? elapsed * (double)(m->total - m->done) / (double)m->done : -1;
    char   spent[32], remain[32];
    if (mode == NB_PROGRESS_JSON) {
        nb_buf  b = {0};
        nb_emit e = nb_emit_start(&b, false);
        nb_emit_open(&e, NULL, '{');
        nb_emit_string(&e, "event", "progress");
        nb_emit_string(&e, "task", m->task);
        nb_emit_int(&e, "done", (int64_t)m->done);
        if (m->total) nb_emit_int(&e, "total", (int64_t)m->total);
        else nb_emit_raw(&e, "total", "null");
        nb_emit_string(&e, "what", what);
        nb_emit_number(&e, "elapsed_s", elapsed);
        if (known) nb_emit_number(&e, "eta_s", left);
        else nb_emit_raw(&e, "eta_s", "null");
        nb_emit_close(&e);
        snprintf(out, n, "%.*s", b.data ? (int)strcspn(b.data, "\n") : 0, b.data ? b.data : "");
        nb_buf_free(&b);
        return;
    }
    nb_human_time(spent, elapsed);
    int used = snprintf(out, n, "%s: ", m->task);
    if (m->total)
        used += snprintf(out + used, n - (size_t)used, "%zu/%zu (%d%%)", m->done, m->total,
                         (int)(100.0 * (double)m->done / (double)m->total));
    else
        used += snprintf(out + used, n - (size_t)used, "%zu", m->done);
    if ((size_t)used < n) used += snprintf(out + used, n - (size_t)used, ", %s", spent);
    if (known && m->done < m->total && (size_t)used < n) {
        nb_human_time(remain, left);
        used += snprintf(out + used, n - (size_t)used, ", %s left", remain);
    }
    if (what && (size_t)used < n) snprintf(out + used, n - (size_t)used, ", %s", what);
}

static void draw_bar(const char *line, const nb_meter *m)
{
    enum { CELLS = 20 };
    char bar[CELLS + 1];
    int  full = m->total ? (int)((double)CELLS * (double)m->done / (double)m->total) : 0;
    for (int i = 0; i < CELLS; i++) bar[i] = i < full ? '#' : '.';
    bar[CELLS] = 0;
    fprintf(stderr, "\r[%s] %.*s\033[K", bar, 90, line);
    fflush(stderr);
    bar_drawn = true;
}

void nb_meter_update(nb_meter *m, size_t done, size_t total, const char *what)
{
    if (mode_now == NB_PROGRESS_NONE) return;
    double now = nb_seconds(), every = mode_now == NB_PROGRESS_PLAIN ? 10 : 0.1;
    bool   last = total && done >= total;
    m->done = total && done > total ? total : done;
    m->total = total;
    if (now - m->last < every && !(last && !m->finished)) return;
    if (last) m->finished = true;
    m->last = now;
    char line[512];
    nb_meter_line(m, mode_now, now, what, line, sizeof line);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 32 || *c == 127) *c = '?';
    if (mode_now == NB_PROGRESS_BAR)
        draw_bar(line, m);
    else
        fprintf(stderr, mode_now == NB_PROGRESS_JSON ? "%s\n" : "nibble: %s\n", line);
}

void nb_meter_finish(nb_meter *m)
{
    m->finished = true;
    nb_meter_clear();
}
