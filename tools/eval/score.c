/* score.c - options, edit distance and MathVista of score.h; the rules are described in VLMEvalKit's matching_util, vqa_eval and mathvista at 60e064df. */
#include "tools/eval/score.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <utf8proc.h>

#include "tools/eval/score_text.h"

/* ---- options ----------------------------------------------------------------------------------------------------------- */

static bool refused(const char *answer)
{
    static const char *const sentences[] = { "Sorry, I can't help with images of people yet.", "I can't process this file.",
                                             "I'm sorry, but without the image provided", "Cannot determine the answer" };
    for (size_t i = 0; i < NB_COUNT(sentences); i++)
        if (strstr(answer, sentences[i])) return true;
    return false;
}

static bool there(const char *const options[26], int i) { return options[i] && *options[i]; }

/* Letters that stand alone between white space and punctuation: exactly one distinct letter decides. */
static char by_letter(const char *answer, const char *const options[26])
{
    static const char apart[] = ".()[],:;!*#{} \t\n\r\f\v";
    unsigned          seen = 0;
    for (const char *s = answer; *s;) {
        s += strspn(s, apart);
        size_t n = strcspn(s, apart);
        if (n == 1 && *s >= 'A' && *s <= 'Z') seen |= 1u << (*s - 'A');
        s += n;
    }
    int  count = 0;
    char found = 0;
    for (int i = 0; i < 26; i++)
        if (there(options, i) && seen >> i & 1) {
            count++;
            found = (char)('A' + i);
        }
    if (count == 1) return found;
    return count == 0 && seen >> ('Z' - 'A') & 1 ? 'Z' : 0;
}

char *nb_lower(const char *s)
{
    nb_buf b = { 0 };
    nb_buf_str(&b, "");
    for (const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)s; *at;) {
        utf8proc_int32_t c;
        utf8proc_uint8_t bytes[4];
        utf8proc_ssize_t n = utf8proc_iterate(at, -1, &c);
        if (n <= 0) {
            nb_buf_char(&b, (char)*at++);
            continue;
        }
        at += n;
        nb_buf_add(&b, bytes, (size_t)utf8proc_encode_char(utf8proc_tolower(c), bytes));
    }
    if (b.failed) nb_buf_free(&b);
    return b.data;
}

static char by_text(const char *answer, const char *const options[26])
{
    char *text = nb_lower(answer), found = 0;
    int   count = 0;
    for (int i = 0; text && i < 26; i++) {
        if (!there(options, i)) continue;
        char *option = nb_lower(options[i]);
        if (option && strstr(text, option)) {
            count++;
            found = (char)('A' + i);
        }
        free(option);
    }
    free(text);
    return count == 1 ? found : 0;
}

static size_t code_points(const char *s)
{
    size_t n = 0;
    for (; *s; s++) n += (*s & 0xc0) != 0x80;
    return n;
}

char nb_score_option(const char *answer, const char *const options[26])
{
    if (strstr(answer, "Failed to obtain answer via API")) return 0;
    if (refused(answer)) return 'Z';
    char letter = by_letter(answer, options);
    return letter ? letter : by_text(answer, options);
}

/* Like by_letter, but the one letter's first place has to be among the last four words. */
static char by_late_letter(const char *answer, const char *const options[26])
{
    static const char apart[] = ".()[],:;!*#{} \t\n\r\f\v";
    size_t            words = 0, first[26];
    int               count = 0;
    char              found = 0;
    for (int i = 0; i < 26; i++) first[i] = SIZE_MAX;
    for (const char *s = answer; *s;) {
        s += strspn(s, apart);
        size_t n = strcspn(s, apart);
        if (n == 1 && *s >= 'A' && *s <= 'Z' && first[*s - 'A'] == SIZE_MAX) first[*s - 'A'] = words;
        words += n > 0;
        s += n;
    }
    for (int i = 0; i < 26; i++)
        if (there(options, i) && first[i] != SIZE_MAX) {
            count++;
            found = (char)('A' + i);
        }
    if (count == 0) return first['Z' - 'A'] != SIZE_MAX ? 'Z' : 0;
    return count == 1 && first[found - 'A'] + 5 > words ? found : 0;
}

/* "(correct) answer is **B**", any case, of A to D; the first such place. */
static char by_sentence(const char *answer, const char *const options[26])
{
    static const char words[] = "answer";
    for (const char *at = answer; (at = strcasestr(at, words)) != NULL; at++) {
        const char *s = at + strlen(words);
        size_t      gap = strspn(s, " \t\n\r\f\v");
        if (!gap || strncasecmp(s + gap, "is", 2)) continue;
        s += gap + 2;
        gap = strspn(s, " \t\n\r\f\v");
        if (!gap) continue;
        s += gap;
        s += strspn(s, "*");
        int i = toupper((unsigned char)*s) - 'A';
        if (i >= 0 && i < 4) return there(options, i) ? (char)('A' + i) : 0;
    }
    return 0;
}

char nb_score_option_current(const char *answer, const char *const options[26])
{
    size_t all = 0;
    if (strstr(answer, "Failed to obtain answer via API")) return 0;
    if (refused(answer)) return 'Z';
    char letter = by_late_letter(answer, options);
    if (!letter) letter = by_sentence(answer, options);
    if (letter) return letter;
    for (int i = 0; i < 26; i++)
        if (there(options, i)) all += code_points(options[i]);
    return code_points(answer) > 2 * all ? 0 : by_text(answer, options);
}

/* ---- ANLS -------------------------------------------------------------------------------------------------------------- */

typedef struct {
    int32_t *points;
    size_t   count;   /* after normalisation */
    size_t   length;  /* before */
} string;

static bool space(int32_t c)
{
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* strip, lower case, runs of white space to one space, as code points. */
static nb_status normalize(string *out, const char *s, nb_error *err)
{
    size_t n = strlen(s);
    memset(out, 0, sizeof *out);
    NB_TRY(nb_alloc(&out->points, n + 1, sizeof *out->points, "an answer", err));
    bool gap = false;
    for (const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)s; *at; out->length++) {
        utf8proc_int32_t c;
        utf8proc_ssize_t used = utf8proc_iterate(at, -1, &c);
        if (used <= 0) {
            c = 0xfffd;
            used = 1;
        }
        at += used;
        if (space(c)) {
            gap = out->count > 0;
            continue;
        }
        if (gap) out->points[out->count++] = ' ';
        gap = false;
        out->points[out->count++] = utf8proc_tolower(c);
    }
    return NB_OK;
}

/* The text as it is. */
static nb_status as_points(string *out, const char *s, nb_error *err)
{
    NB_TRY(nb_alloc(&out->points, strlen(s) + 1, sizeof *out->points, "an answer", err));
    for (const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)s; *at;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t used = utf8proc_iterate(at, -1, &c);
        at += used > 0 ? used : 1;
        out->points[out->count++] = used > 0 ? c : 0xfffd;
    }
    return NB_OK;
}

static nb_status distance(size_t *out, const string *a, const string *b, nb_error *err)
{
    size_t *row;
    NB_TRY(nb_alloc(&row, b->count + 1, sizeof *row, "an edit distance", err));
    for (size_t j = 0; j <= b->count; j++) row[j] = j;
    for (size_t i = 1; i <= a->count; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b->count; j++) {
            size_t best = diagonal + (a->points[i - 1] != b->points[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    *out = row[b->count];
    free(row);
    return NB_OK;
}

nb_status nb_edit_distance(size_t *out, const char *a, const char *b, nb_error *err)
{
    string x = { 0 }, y = { 0 };
    nb_status status = as_points(&x, a, err);
    if (status == NB_OK) status = as_points(&y, b, err);
    if (status == NB_OK) status = distance(out, &x, &y, err);
    free(x.points);
    free(y.points);
    return status;
}

nb_status nb_score_anls(double *out, const char *answer, const nb_list *accepted, nb_error *err)
{
    string a, b = { 0 };
    double least = 1;
    *out = 0;
    NB_TRY(normalize(&a, answer, err));
    nb_status status = NB_OK;
    for (size_t i = 0; i < accepted->count && status == NB_OK; i++) {
        size_t d = 0;
        status = normalize(&b, accepted->items[i], err);
        if (status == NB_OK) status = distance(&d, &a, &b, err);
        size_t longer = a.length > b.length ? a.length : b.length; /* of the texts as they are, as the harness divides */
        double share = longer ? (double)d / (double)longer : 0;
        if (share < least) least = share;
        free(b.points);
        b.points = NULL;
    }
    free(a.points);
    *out = 1 - least < 0.5 ? 0 : 1 - least;
    return status;
}

/* ---- MathVista --------------------------------------------------------------------------------------------------------- */

/* The whole text as a finite number, white space around it allowed. */
static bool whole_number(const char *s, bool integer, double *out)
{
    return nb_text_number(s, out) && isfinite(*out) && !(integer && strpbrk(s, ".eE"));
}

/* Last number in the text: digits with an optional sign and decimals, thousands commas dropped. */
static bool last_number(const char *s, char *out, size_t size)
{
    bool found = false;
    for (size_t i = 0; s[i];) {
        bool sign = s[i] == '-' && (i == 0 || !isalnum((unsigned char)s[i - 1]));
        if (!isdigit((unsigned char)s[i + sign])) {
            i++;
            continue;
        }
        size_t n = 0, j = i;
        if (sign) out[n++] = s[j++];
        while (isdigit((unsigned char)s[j]) || ((s[j] == '.' || s[j] == ',') && isdigit((unsigned char)s[j + 1]))) {
            if (s[j] != ',' && n + 1 < size) out[n++] = s[j];
            j++;
        }
        out[n] = 0;
        found = true;
        i = j;
    }
    return found;
}

static bool quoted_answer(const char *reply, char *out, size_t size)
{
    const char *at = strstr(reply, "The answer is \"");
    if (!at) return false;
    at += strlen("The answer is \"");
    size_t n = strcspn(at, "\"");
    if (at[n] != '"' || n >= size) return false;
    memcpy(out, at, n);
    out[n] = 0;
    return true;
}

static bool same(const char *text, nb_math_type type, const char *answer)
{
    double a, b;
    if (type == NB_MATH_TEXT) return strcmp(text, answer) == 0;
    return whole_number(text, type == NB_MATH_INTEGER, &a) && whole_number(answer, false, &b) && a == b;
}

bool nb_score_math_extract(const char *reply, nb_math_type type, char *out, size_t size)
{
    double value;
    size_t n = strlen(reply);
    if (type != NB_MATH_TEXT && whole_number(reply, type == NB_MATH_INTEGER, &value) && n < size) {
        memcpy(out, reply, n + 1);
        return true;
    }
    if (quoted_answer(reply, out, size)) return true;
    if (type != NB_MATH_TEXT) return last_number(reply, out, size);
    if (n < size) memcpy(out, reply, n + 1);
    return n < size;
}

nb_math_score nb_score_math(const char *reply, nb_math_type type, const char *const options[26], char right_option, const char *answer)
{
    nb_math_score s = { 0 };
    char          text[256];
    if (type == NB_MATH_CHOICE) {
        char got = nb_score_option(reply, options);
        s.prefetch = got != 0;
        if (!got && quoted_answer(reply, text, sizeof text)) got = nb_score_option(text, options);
        s.undecided = got == 0;
        s.hit = got != 0 && got == right_option;
        return s;
    }
    double value;
    if (type != NB_MATH_TEXT && whole_number(reply, type == NB_MATH_INTEGER, &value)) {
        s.hit = same(reply, type, answer);
        s.prefetch = s.hit;
        return s;
    }
    if (!quoted_answer(reply, text, sizeof text) && (type == NB_MATH_TEXT || !last_number(reply, text, sizeof text))) {
        s.undecided = type != NB_MATH_TEXT;
        s.hit = type == NB_MATH_TEXT && same(reply, type, answer);
        return s;
    }
    s.hit = same(text, type, answer);
    return s;
}
