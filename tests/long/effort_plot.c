/* effort_plot.c - the table of tests/long/effort.sh as a picture, drawn by the code that draws report.html.
 *
 *     effort_plot < effort.csv > effort.svg
 *
 * Columns are found by their names; of the rest nothing is read.  A method's rows stand together, and are one line.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base.h"
#include "tools/report/html.h"
#include "tools/report/svg.h"

enum { ROWS = 64, METHODS = 8, COLUMNS = 16 };

typedef struct {
    int    count, methods;
    char   names[METHODS][32];
    double cpu[ROWS], kl[METHODS][ROWS]; /* seconds; nats a token, NaN in the rows of other methods */
} table;

static int cells(char *line, char *out[COLUMNS])
{
    int n = 0;
    line[strcspn(line, "\r\n")] = 0;
    while (n < COLUMNS && line) {
        char *comma = strchr(line, ',');
        if (comma) *comma++ = 0;
        out[n++] = line;
        line = comma;
    }
    return n;
}

static bool number(double *out, const char *text)
{
    char *end;
    *out = strtod(text, &end);
    return end != text && !*end && isfinite(*out) && *out > 0;
}

/* What is wrong, or NULL. */
static const char *read_table(table *t, FILE *in)
{
    char line[512], *cell[COLUMNS];
    int  method = -1, cpu = -1, kl = -1;
    memset(t, 0, sizeof *t);
    if (!fgets(line, sizeof line, in)) return "no table on standard input";
    int columns = cells(line, cell);
    for (int i = 0; i < columns; i++) {
        if (!strcmp(cell[i], "method")) method = i;
        if (!strcmp(cell[i], "cpu_seconds")) cpu = i;
        if (!strcmp(cell[i], "kl_all")) kl = i;
    }
    if (method < 0 || cpu < 0 || kl < 0) return "the columns method, cpu_seconds and kl_all are needed";
    for (; fgets(line, sizeof line, in); t->count++) {
        if (t->count == ROWS) return "too many rows";
        if (cells(line, cell) != columns) return "a row has more or fewer cells than the title";
        if (!t->methods || strcmp(t->names[t->methods - 1], cell[method])) {
            if (t->methods == METHODS) return "too many methods";
            snprintf(t->names[t->methods++], sizeof t->names[0], "%s", cell[method]);
        }
        for (int m = 0; m < METHODS; m++) t->kl[m][t->count] = NAN;
        if (!number(&t->cpu[t->count], cell[cpu]) || !number(&t->kl[t->methods - 1][t->count], cell[kl])) return "a cell is no number above 0";
    }
    return t->count ? NULL : "the table has no rows";
}

int main(void)
{
    static table        t;
    nb_svg_series       series[METHODS];
    nb_buf              figure = {0};
    const nb_svg_chart  chart = {.title = "What effort buys", .x = "CPU seconds of quantizing", .y = "KL from the original, nats a token",
                                 .log_x = true, .log_y = true};
    const char         *wrong = read_table(&t, stdin);
    if (wrong) {
        fprintf(stderr, "effort_plot: %s\n", wrong);
        return 1;
    }
    for (int m = 0; m < t.methods; m++) series[m] = (nb_svg_series){t.names[m], t.kl[m]};
    nb_svg_lines(&figure, &chart, t.cpu, (size_t)t.count, series, (size_t)t.methods, NAN, NULL);
    /* The picture alone, with the page's style sheet inside it. */
    const char *from = figure.failed ? NULL : strstr(figure.data, "<svg "), *to = from ? strstr(from, "</svg>") : NULL;
    if (!to) {
        fprintf(stderr, "effort_plot: out of memory\n");
        return 1;
    }
    const char *inside = strchr(from, '>') + 1;
    printf("<svg xmlns=\"http://www.w3.org/2000/svg\" %.*s\n<style>%s</style>%.*s</svg>\n", (int)(inside - from - 5), from + 5, nb_html_style,
           (int)(to - inside), inside);
    nb_buf_free(&figure);
    return fflush(stdout) || ferror(stdout);
}
