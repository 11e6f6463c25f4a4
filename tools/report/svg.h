/* svg.h - four kinds of plot as inline SVG in a <figure>, drawn with the classes of html.h's style sheet.
 *
 * A plot is a picture of a table that the page has too, so it is one image to a screen reader, with its title and its note as
 * words.  Numbers that are not finite, and on a logarithmic axis those that are not above 0, are left out, never drawn somewhere.
 * Every text is escaped.
 */
#ifndef NB_SVG_H
#define NB_SVG_H

#include "runtime/io/buf.h"

typedef struct {
    const char *title, *note; /* the caption's first words and the rest of it; note may be NULL */
    const char *x, *y;        /* what the axes are, unit included */
    bool        log_x, log_y;
    bool        from_zero;    /* lines: the y axis begins at 0 */
} nb_svg_chart;

typedef struct {
    const char   *name;
    const double *values;
} nb_svg_series;

/* Lines over x [points]; at most 8 series have a colour of their own.  limit: a dashed line across, NaN for none. */
void nb_svg_lines(nb_buf *out, const nb_svg_chart *chart, const double *x, size_t points, const nb_svg_series *series, size_t count,
                  double limit, const char *limit_name);
/* Points, and where both are equal. */
void nb_svg_scatter(nb_buf *out, const nb_svg_chart *chart, const double *x, const double *y, size_t points);
/* Counts of values in bins of equal width (of equal ratio with log_x); values at or below `least` are in the first. */
void nb_svg_histogram(nb_buf *out, const nb_svg_chart *chart, const double *values, size_t count, double least, double most, int bins);
/* One horizontal bar a row, made of a piece a series; number writes the sum behind each bar. */
typedef void nb_svg_number(char out[32], double value);
void nb_svg_bars(nb_buf *out, const nb_svg_chart *chart, const char *const *rows, size_t row_count, const nb_svg_series *pieces,
                 size_t count, nb_svg_number *number);

/* Steps of 1, 2 or 5 times a power of ten that cut [low, high] into about `wanted` pieces. */
double nb_svg_step(double low, double high, int wanted);

#endif
