/* args_value.c - text to values: the converters that flags, environment, config files and defaults all go through.
 *
 * Each refuses with one sentence of the same shape: what was set, the text, what was expected.  The C library's own
 * leniency (leading blanks, hexadecimal, "nan", trailing text) is kept out by looking at the characters first.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tools/cli/args.h"

/* "from 1 to 8", "of at least 0"; the limits of the C type itself are not worth a word. */
static void range_text(char out[96], double min, double max)
{
    if (min == 0 && max == 0)
        snprintf(out, 96, "of at least 0");
    else if (max >= 9e18)
        snprintf(out, 96, "of at least %.15g", min);
    else
        snprintf(out, 96, "from %.15g to %.15g", min, max);
}

static bool in_range(double v, double min, double max)
{
    if (min == 0 && max == 0) return v >= 0;
    return v >= min && v <= max;
}

/* Digits with an optional sign and an optional suffix k or m; *end is set behind what was read. */
static bool read_int(const char *text, const char **end, int64_t *out)
{
    const char *s = text;
    if (*s == '-' || *s == '+') s++;
    if (!isdigit((unsigned char)*s)) return false;
    char *stop;
    errno = 0;
    long long v = strtoll(text, &stop, 10);
    if (errno) return false;
    int64_t factor = 1;
    if (*stop == 'k' || *stop == 'K') factor = 1024, stop++;
    else if (*stop == 'm' || *stop == 'M') factor = 1024 * 1024, stop++;
    if (__builtin_mul_overflow((int64_t)v, factor, out)) return false;
    *end = stop;
    return true;
}

nb_status nb_parse_int(int64_t *out, const char *text, double min, double max, const char *what, nb_error *err)
{
    int64_t     v = 0, factor = 1;
    const char *end = text;
    bool        good = read_int(text, &end, &v);
    while (good && *end == '*') good = read_int(end + 1, &end, &factor) && !__builtin_mul_overflow(v, factor, &v);
    if (!good || *end || !in_range((double)v, min, max)) {
        char range[96];
        range_text(range, min, max);
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: '%s' is not a whole number %s", what, text, range);
    }
    *out = v;
    return NB_OK;
}

nb_status nb_parse_number(double *out, const char *text, double min, double max, const char *what, nb_error *err)
{
    char  *end = NULL;
    double v = 0;
    bool   good = *text && strspn(text, "0123456789+-.eE") == strlen(text);
    if (good) {
        v = strtod(text, &end);
        good = end != text && !*end && isfinite(v) && in_range(v, min, max);
    }
    if (!good) {
        char range[96];
        range_text(range, min, max);
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: '%s' is not a number %s", what, text, range);
    }
    *out = v;
    return NB_OK;
}

nb_status nb_parse_size(uint64_t *out, const char *text, double min, double max, const char *what, nb_error *err)
{
    /* A bare letter and the IEC spelling are powers of 1024; KB, MB, GB, TB are powers of 1000, as shard sizes are written. */
    static const struct {
        const char *name;
        double      bytes;
    } units[] = {{"", 1}, {"B", 1},
                 {"K", 1024.0}, {"KiB", 1024.0}, {"KB", 1e3},
                 {"M", 1048576.0}, {"MiB", 1048576.0}, {"MB", 1e6},
                 {"G", 1073741824.0}, {"GiB", 1073741824.0}, {"GB", 1e9},
                 {"T", 1099511627776.0}, {"TiB", 1099511627776.0}, {"TB", 1e12}};
    size_t digits = strspn(text, "0123456789.");
    char   number[40];
    double v = -1;
    if (digits > 0 && digits < sizeof number) {
        memcpy(number, text, digits);
        number[digits] = 0;
        char  *end;
        double amount = strtod(number, &end);
        if (end != number && !*end)
            for (size_t i = 0; i < NB_COUNT(units); i++)
                if (strcasecmp(text + digits, units[i].name) == 0) v = amount * units[i].bytes;
    }
    if (v < 0 || v >= 9.2e18 || !in_range(v, min, max))
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: '%s' is not a size such as 512M, 8G or 4GB%s", what, text,
                       v < 0 ? "" : " in the allowed range");
    *out = (uint64_t)v;
    return NB_OK;
}

nb_status nb_parse_bool(bool *out, const char *text, const char *what, nb_error *err)
{
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no", "off", "0"};
    for (size_t i = 0; i < NB_COUNT(yes); i++) {
        if (strcasecmp(text, yes[i]) == 0) return *out = true, NB_OK;
        if (strcasecmp(text, no[i]) == 0) return *out = false, NB_OK;
    }
    return nb_fail(err, NB_ERR_ARGUMENT, "%s: '%s' is not true or false", what, text);
}

static nb_status push_int(nb_ints *list, int64_t v, const char *what, nb_error *err)
{
    enum { MOST = 4096 };
    if (list->count >= MOST) return nb_fail(err, NB_ERR_ARGUMENT, "%s: more than %d values", what, MOST);
    if (list->count % 16 == 0) {
        int64_t *grown = realloc(list->items, (size_t)(list->count + 16) * sizeof *grown);
        if (!grown) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", what);
        list->items = grown;
    }
    list->items[list->count++] = v;
    return NB_OK;
}

nb_status nb_parse_ints(nb_ints *list, const char *text, double min, double max, const char *what, nb_error *err)
{
    const char *s = text;
    for (;;) {
        int64_t first, last, step = 1;
        bool    multiply = false, good = read_int(s, &s, &first);
        last = first;
        if (good && *s == '-') {
            good = read_int(s + 1, &s, &last) && last >= first;
            if (good && (*s == '+' || *s == '*')) {
                multiply = *s == '*';
                good = read_int(s + 1, &s, &step) && step >= (multiply ? 2 : 1) && (!multiply || first > 0);
            }
        }
        good = good && (*s == ',' || !*s) && in_range((double)first, min, max) && in_range((double)last, min, max);
        if (!good) {
            char range[96];
            range_text(range, min, max);
            return nb_fail(err, NB_ERR_ARGUMENT,
                           "%s: '%s' is not a list of whole numbers %s (1,4,8, 1-9, 0-64+8, 1-64*2)",
                           what, text, range);
        }
        for (int64_t v = first; v <= last;) {
            NB_TRY(push_int(list, v, what, err));
            if (multiply ? __builtin_mul_overflow(v, step, &v) : __builtin_add_overflow(v, step, &v)) break;
        }
        if (!*s) return NB_OK;
        s++;
    }
}

/* ---- nearest name ------------------------------------------------------------------------------------------------ */

enum { LONGEST = 48 };

/* Edits (insert, delete, replace, swap of neighbours) from a to b; words are short. */
static int distance(const char *a, const char *b)
{
    int n = (int)strlen(a), m = (int)strlen(b);
    if (n > LONGEST || m > LONGEST) return LONGEST;
    int row[3][LONGEST + 1]; /* i - 2, i - 1, i */
    for (int j = 0; j <= m; j++) row[1][j] = j;
    for (int i = 1; i <= n; i++) {
        row[2][0] = i;
        for (int j = 1; j <= m; j++) {
            int best = row[1][j - 1] + (a[i - 1] != b[j - 1]);
            if (row[1][j] + 1 < best) best = row[1][j] + 1;
            if (row[2][j - 1] + 1 < best) best = row[2][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && row[0][j - 2] + 1 < best)
                best = row[0][j - 2] + 1;
            row[2][j] = best;
        }
        memcpy(row[0], row[1], sizeof row[0]);
        memcpy(row[1], row[2], sizeof row[1]);
    }
    return row[1][m];
}

const char *nb_nearest(const char *word, const char *const *names, size_t count)
{
    const char *best = NULL;
    int         least = (int)strlen(word) / 3;
    if (least < 1) least = 1;
    for (size_t i = 0; i < count; i++) {
        int d = distance(word, names[i]);
        if (d < least || (d == least && !best)) best = names[i], least = d;
    }
    return best;
}
