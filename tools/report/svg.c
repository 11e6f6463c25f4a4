/* svg.c - see svg.h. */
#include "tools/report/svg.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/report/html.h"

enum { WIDTH = 920, HEIGHT = 340, LEFT = 70, RIGHT = 16, TOP = 34, BOTTOM = 46, MAX_TICKS = 40 };

/* ---- axes ------------------------------------------------------------------------------------------------------------ */

typedef struct {
    double low, high; /* of the values, or of their logarithms to the base 10 */
    double from, to;  /* in pixels */
    bool   log;
} axis;

double nb_svg_step(double low, double high, int wanted)
{
    double raw = (high - low) / wanted;
    if (!(raw > 0) || !isfinite(raw)) return 1;
    double unit = pow(10, floor(log10(raw))), times = raw / unit;
    return unit * (times <= 1 ? 1 : times <= 2 ? 2 : times <= 5 ? 5 : 10);
}

static bool drawable(const axis *a, double v)
{
    return isfinite(v) && (!a->log || v > 0);
}

static void widen(axis *a, double v)
{
    if (!drawable(a, v)) return;
    double at = a->log ? log10(v) : v;
    if (!(at >= a->low)) a->low = at;
    if (!(at <= a->high)) a->high = at;
}

/* Ends on round numbers; an axis of one value, or of none, gets some room. */
static void settle(axis *a)
{
    if (!isfinite(a->low) || !isfinite(a->high)) a->low = 0, a->high = 1;
    if (a->log) {
        a->low = floor(a->low + 1e-9);
        a->high = ceil(a->high - 1e-9);
        if (!(a->high > a->low)) a->high = a->low + 1;
        return;
    }
    if (!(a->high > a->low)) a->high = a->low + (a->low ? fabs(a->low) : 1);
    double step = nb_svg_step(a->low, a->high, 5);
    a->low = floor(a->low / step + 1e-9) * step;
    a->high = ceil(a->high / step - 1e-9) * step;
}

static axis x_axis(bool log)
{
    return (axis){ .low = INFINITY, .high = -INFINITY, .from = LEFT, .to = WIDTH - RIGHT, .log = log };
}

static axis y_axis(bool log)
{
    return (axis){ .low = INFINITY, .high = -INFINITY, .from = HEIGHT - BOTTOM, .to = TOP, .log = log };
}

static double place(const axis *a, double v)
{
    double at = a->log ? log10(v) : v;
    return a->from + (at - a->low) / (a->high - a->low) * (a->to - a->from);
}

static int ticks(double out[MAX_TICKS], const axis *a)
{
    double step = a->log ? ceil((a->high - a->low) / 8) : nb_svg_step(a->low, a->high, 5);
    int    n = 0;
    for (double t = a->low; t <= a->high + step / 1e6 && n < MAX_TICKS; t += step) out[n++] = a->log ? pow(10, t) : fabs(t) < step / 1e6 ? 0 : t;
    return n;
}

/* ---- the frame ------------------------------------------------------------------------------------------------------- */

static void svg_text(nb_buf *out, double x, double y, const char *attributes, const char *text)
{
    nb_buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes);
    nb_html_text(out, text);
    nb_buf_str(out, "</text>");
}

static void begin(nb_buf *out, const nb_svg_chart *c, int height)
{
    nb_buf_printf(out, "<figure>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, height);
    nb_html_text(out, c->title);
    if (c->note) {
        nb_buf_str(out, ". ");
        nb_html_text(out, c->note);
    }
    nb_buf_str(out, "\">\n");
}

static void end(nb_buf *out, const nb_svg_chart *c)
{
    nb_buf_str(out, "</svg>\n<figcaption>");
    nb_html_element(out, "b", NULL, c->title);
    if (c->note) {
        nb_buf_str(out, ". ");
        nb_html_text(out, c->note);
    }
    nb_buf_str(out, "</figcaption>\n</figure>\n");
}

static void draw_axes(nb_buf *out, const nb_svg_chart *c, const axis *x, const axis *y)
{
    double t[MAX_TICKS];
    char   label[32];
    int    n = ticks(t, y);
    for (int i = 0; i < n; i++) {
        double at = place(y, t[i]);
        nb_buf_printf(out, "<path class=\"axis\" d=\"M%d %.1fH%d\"/>", LEFT, at, WIDTH - RIGHT);
        snprintf(label, sizeof label, "%.4g", t[i]);
        svg_text(out, LEFT - 8, at + 4, "text-anchor=\"end\" class=\"dim\"", label);
    }
    n = ticks(t, x);
    for (int i = 0; i < n; i++) {
        snprintf(label, sizeof label, "%.4g", t[i]);
        svg_text(out, place(x, t[i]), HEIGHT - BOTTOM + 18, "text-anchor=\"middle\" class=\"dim\"", label);
    }
    nb_buf_printf(out, "<path class=\"axis\" d=\"M%d %dH%d\"/>\n", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT);
    svg_text(out, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8, "text-anchor=\"middle\" class=\"dim\"", c->x);
    svg_text(out, 8, 16, "class=\"dim\"", c->y);
    nb_buf_char(out, '\n');
}

/* Names at the top right, one after the other, first to last; a letter is taken to be 7 pixels wide. */
static void legend(nb_buf *out, const nb_svg_series *series, size_t count, double y)
{
    double x = WIDTH - RIGHT;
    for (size_t i = 0; i < count; i++) x -= 30 + 7.0 * (double)strlen(series[i].name);
    for (size_t i = 0; i < count; i++) {
        nb_buf_printf(out, "<rect class=\"fill s%zu\" x=\"%.1f\" y=\"%.1f\" width=\"12\" height=\"12\" rx=\"2\"/>", i % 8, x, y - 11);
        svg_text(out, x + 17, y, "", series[i].name);
        x += 30 + 7.0 * (double)strlen(series[i].name);
    }
    nb_buf_char(out, '\n');
}

/* ---- plots ----------------------------------------------------------------------------------------------------------- */

/* Broken where a value is missing; a value between two missing ones is a dot. */
static void polyline(nb_buf *out, const axis *ax, const axis *ay, const double *x, const double *y, size_t points, size_t color)
{
    bool down = false;
    nb_buf_printf(out, "<path class=\"line s%zu\" d=\"", color % 8);
    for (size_t i = 0; i < points; i++) {
        bool here = drawable(ax, x[i]) && drawable(ay, y[i]);
        if (here) nb_buf_printf(out, "%c%.1f %.1f", down ? 'L' : 'M', place(ax, x[i]), place(ay, y[i]));
        down = here;
    }
    nb_buf_str(out, "\"/>");
    for (size_t i = 0; i < points; i++)
        if (drawable(ax, x[i]) && drawable(ay, y[i]))
            nb_buf_printf(out, "<circle class=\"fill s%zu\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\"/>", color % 8, place(ax, x[i]), place(ay, y[i]));
    nb_buf_char(out, '\n');
}

void nb_svg_lines(nb_buf *out, const nb_svg_chart *chart, const double *x, size_t points, const nb_svg_series *series, size_t count,
                  double limit, const char *limit_name)
{
    axis ax = x_axis(chart->log_x), ay = y_axis(chart->log_y);
    for (size_t i = 0; i < points; i++) {
        widen(&ax, x[i]);
        for (size_t k = 0; k < count; k++) widen(&ay, series[k].values[i]);
    }
    widen(&ay, limit);
    if (chart->from_zero) widen(&ay, 0);
    settle(&ax);
    settle(&ay);
    begin(out, chart, HEIGHT);
    draw_axes(out, chart, &ax, &ay);
    for (size_t k = 0; k < count; k++) polyline(out, &ax, &ay, x, series[k].values, points, k);
    if (drawable(&ay, limit)) {
        nb_buf_printf(out, "<path class=\"limit\" d=\"M%d %.1fH%d\"/>", LEFT, place(&ay, limit), WIDTH - RIGHT);
        svg_text(out, WIDTH - RIGHT, place(&ay, limit) - 6, "text-anchor=\"end\" class=\"bad\"", limit_name);
        nb_buf_char(out, '\n');
    }
    legend(out, series, count, 16);
    end(out, chart);
}

void nb_svg_scatter(nb_buf *out, const nb_svg_chart *chart, const double *x, const double *y, size_t points)
{
    axis ax = x_axis(chart->log_x), ay = y_axis(chart->log_y);
    for (size_t i = 0; i < points; i++)
        if (drawable(&ax, x[i]) && drawable(&ay, y[i])) {
            widen(&ax, x[i]);
            widen(&ay, y[i]);
        }
    settle(&ax);
    settle(&ay);
    begin(out, chart, HEIGHT);
    draw_axes(out, chart, &ax, &ay);
    double low = fmax(ax.low, ay.low), high = fmin(ax.high, ay.high);
    if (high > low && ax.log == ay.log) {
        double a = ax.log ? pow(10, low) : low, b = ax.log ? pow(10, high) : high;
        nb_buf_printf(out, "<path class=\"axis\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", place(&ax, a), place(&ay, a), place(&ax, b), place(&ay, b));
    }
    for (size_t i = 0; i < points; i++)
        if (drawable(&ax, x[i]) && drawable(&ay, y[i]))
            nb_buf_printf(out, "<circle class=\"fill s0\" cx=\"%.1f\" cy=\"%.1f\" r=\"2\"/>", place(&ax, x[i]), place(&ay, y[i]));
    nb_buf_char(out, '\n');
    end(out, chart);
}

void nb_svg_histogram(nb_buf *out, const nb_svg_chart *chart, const double *values, size_t count, double least, double most, int bins)
{
    axis   ax = x_axis(chart->log_x), ay = y_axis(false);
    double counts[256] = { 0 };
    if (bins > 256) bins = 256;
    widen(&ax, least);
    widen(&ax, most);
    settle(&ax);
    for (size_t i = 0; i < count; i++) {
        if (isnan(values[i])) continue;
        double at = ax.log ? (values[i] > 0 ? log10(values[i]) : -INFINITY) : values[i];
        double bin = floor((at - ax.low) / (ax.high - ax.low) * bins);
        counts[bin < 0 ? 0 : bin >= bins ? bins - 1 : (int)bin]++;
    }
    widen(&ay, 0);
    for (int i = 0; i < bins; i++) widen(&ay, counts[i]);
    settle(&ay);
    begin(out, chart, HEIGHT);
    draw_axes(out, chart, &ax, &ay);
    double wide = (ax.to - ax.from) / bins;
    for (int i = 0; i < bins; i++)
        if (counts[i] > 0)
            nb_buf_printf(out, "<rect class=\"fill s0\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>", ax.from + wide * i, place(&ay, counts[i]),
                          wide > 2 ? wide - 1 : wide, ay.from - place(&ay, counts[i]));
    nb_buf_char(out, '\n');
    end(out, chart);
}

enum { BAR = 24, BAR_GAP = 12, BAR_LEFT = 190, BAR_RIGHT = 90 };

void nb_svg_bars(nb_buf *out, const nb_svg_chart *chart, const char *const *rows, size_t row_count, const nb_svg_series *pieces,
                 size_t count, nb_svg_number *number)
{
    double most = 0;
    for (size_t r = 0; r < row_count; r++) {
        double sum = 0;
        for (size_t k = 0; k < count; k++) sum += pieces[k].values[r] > 0 ? pieces[k].values[r] : 0;
        if (sum > most) most = sum;
    }
    begin(out, chart, TOP + (int)row_count * (BAR + BAR_GAP) + 4);
    for (size_t r = 0; r < row_count; r++) {
        double x = BAR_LEFT, y = TOP + (double)r * (BAR + BAR_GAP), sum = 0;
        char   label[32];
        svg_text(out, BAR_LEFT - 10, y + BAR / 2.0 + 4, "text-anchor=\"end\"", rows[r]);
        for (size_t k = 0; k < count; k++) {
            double v = pieces[k].values[r], wide = v > 0 && most > 0 ? v / most * (WIDTH - BAR_LEFT - BAR_RIGHT) : 0;
            if (!(wide > 0)) continue;
            nb_buf_printf(out, "<rect class=\"fill s%zu\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\"/>", k % 8, x, y, wide, BAR);
            x += wide;
            sum += v;
        }
        number(label, sum);
        svg_text(out, x + 8, y + BAR / 2.0 + 4, "class=\"dim\"", label);
        nb_buf_char(out, '\n');
    }
    if (count > 1) legend(out, pieces, count, 16);
    end(out, chart);
}
