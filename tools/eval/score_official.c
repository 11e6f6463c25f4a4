/* score_official.c - MMMU's and MathVista's own scorers (score.h); the rules are described in MMMU's eval_utils and MathVista's
 * calculate_score. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/buf.h"
#include "tools/eval/score.h"
#include "tools/eval/score_text.h"

/* ---- MMMU: options ----------------------------------------------------------------------------------------------------- */

/* The last place of `part` in `text`; -1: none. */
static long last_place(const char *text, const char *part)
{
    long found = -1;
    for (const char *at = text; (at = strstr(at, part)) != NULL && *at; at++) found = at - text;
    return found;
}

static size_t count_words(const char *s)
{
    size_t n = 0;
    for (s += strspn(s, NB_BLANKS); *s; n++) {
        s += strcspn(s, NB_BLANKS);
        s += strspn(s, NB_BLANKS);
    }
    return n;
}

/* Of the options whose form stands in the text, the one that stands last; the earlier letter where two stand at one place. */
static char last_option(const char *text, const char *const options[26], const char *before, const char *after)
{
    char found = 0, form[4];
    long best = -1;
    for (int i = 0; i < 26; i++) {
        if (!options[i] || !*options[i]) continue;
        form[0] = *before, form[1] = (char)('A' + i), form[2] = *after, form[3] = 0;
        long at = last_place(text, form);
        if (at > best) best = at, found = (char)('A' + i);
    }
    return found;
}

static char last_text(const char *text, const char *const options[26])
{
    char  found = 0, *small = nb_lower(text);
    long  best = -1;
    for (int i = 0; small && i < 26; i++) {
        if (!options[i] || !*options[i]) continue;
        char *option = nb_lower(options[i]);
        long  at = option ? last_place(small, option) : -1;
        if (at > best) best = at, found = (char)('A' + i);
        free(option);
    }
    free(small);
    return found;
}

char nb_score_mmmu_option(const char *answer, const char *const options[26])
{
    static const char *const marks[] = { ",", ".", "!", "?", ";", ":", "'" };
    nb_buf                   padded = { 0 };
    char                    *text = nb_strdup(answer), found = 0;
    for (size_t i = 0; text && i < NB_COUNT(marks); i++) { /* one after the other, as published */
        char *shorter = nb_stripped(text, strlen(text), marks[i]);
        free(text);
        text = shorter;
    }
    if (text) nb_buf_printf(&padded, " %s ", text);
    if (!padded.failed && padded.data) {
        found = last_option(padded.data, options, "(", ")");
        if (!found) found = last_option(padded.data, options, " ", " ");
        if (!found && count_words(padded.data) > 5) found = last_text(padded.data, options);
    }
    nb_buf_free(&padded);
    free(text);
    return found;
}

/* ---- MMMU: numbers in a text -------------------------------------------------------------------------------------------- */

static bool word(char c) { return isalnum((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80; }

static size_t digits(const char *s)
{
    size_t n = 0;
    while (nb_is_digit(s[n])) n++;
    return n;
}

/* Length of an exponent at s: e, sign or not, digits. */
static size_t exponent(const char *s)
{
    if (*s != 'e' && *s != 'E') return 0;
    size_t sign = s[1] == '+' || s[1] == '-', n = digits(s + 1 + sign);
    return n ? 1 + sign + n : 0;
}

/* The three forms, each the length of what begins at text[i], 0 when nothing does. */

/* -?\b\d{1,3}(,\d{3})+\b */
static size_t with_commas(const char *text, size_t i)
{
    size_t at = i + (text[i] == '-'), n = digits(text + at);
    if (n == 0 || n > 3 || (at && word(text[at - 1]))) return 0;
    size_t end = at + n, best = 0;
    while (text[end] == ',' && nb_is_digit(text[end + 1]) && nb_is_digit(text[end + 2]) && nb_is_digit(text[end + 3])) {
        end += 4;
        if (!word(text[end])) best = end - i;
    }
    return best;
}

/* -?\d+(\.\d+)?[eE][+-]?\d+ */
static size_t scientific(const char *text, size_t i)
{
    size_t at = i + (text[i] == '-'), n = digits(text + at), tail;
    if (!n) return 0;
    at += n;
    if (text[at] == '.' && nb_is_digit(text[at + 1])) at += 1 + digits(text + at + 1);
    tail = exponent(text + at);
    return tail ? at + tail - i : 0;
}

/* -?(\d+\.\d+|\.\d+|\d+\b) before neither an exponent nor a comma nor a digit; shorter where the longest is before one. */
static size_t plain(const char *text, size_t i)
{
    size_t begin = i + (text[i] == '-'), whole = digits(text + begin);
    for (int form = whole ? 0 : 1; form < 3; form++) {
        size_t from = form == 0 ? begin + whole + 1 : form == 1 ? begin + 1 : begin;
        if (form == 0 && text[begin + whole] != '.') continue;
        if (form == 1 && text[begin] != '.') continue;
        for (size_t n = digits(text + from); n > 0; n--) {
            const char *after = text + from + n;
            if (form == 2 && word(*after)) continue;
            if (!exponent(after) && *after != ',' && !nb_is_digit(*after)) return from + n - i;
        }
    }
    return 0;
}

/* What one part of an answer is taken for: a number rounded to two decimals, or texts in lower case. */
typedef struct {
    bool   is_number;
    double number;
    char  *text[2]; /* a text of one letter has a blank before or behind it, so that it matches a word */
} meaning;

static void forget(meaning *m)
{
    free(m->text[0]);
    free(m->text[1]);
}

static double two_decimals(double x)
{
    char text[400];
    snprintf(text, sizeof text, "%.2f", x);
    return strtod(text, NULL);
}

/* As Python's float() of the text without its commas. */
static bool as_number(const char *s, double *out)
{
    char *bare = nb_strdup(s);
    if (!bare) return false;
    size_t n = 0;
    for (size_t i = 0; s[i]; i++)
        if (s[i] != ',') bare[n++] = s[i];
    bare[n] = 0;
    bool good = nb_text_number(bare, out);
    free(bare);
    return good;
}

static nb_status understand(meaning *m, const char *s, size_t n, nb_error *err)
{
    char *text = nb_stripped(s, n, NB_BLANKS);
    *m = (meaning){ 0 };
    if (!text) return nb_no_answer_memory(err);
    m->is_number = as_number(text, &m->number);
    if (m->is_number) {
        m->number = two_decimals(m->number);
    } else {
        char  *small = nb_lower(text);
        nb_buf a = { 0 }, b = { 0 };
        bool   one = small && *small && !small[1 + ((unsigned char)*small >= 0xc0) + ((unsigned char)*small >= 0xe0) + ((unsigned char)*small >= 0xf0)];
        nb_buf_printf(&a, one ? " %s" : "%s", small ? small : "");
        if (one) nb_buf_printf(&b, "%s ", small);
        free(small);
        m->text[0] = a.data;
        m->text[1] = b.data;
        if (a.failed || b.failed || !a.data) {
            free(text);
            forget(m);
            *m = (meaning){ 0 };
            return nb_no_answer_memory(err);
        }
    }
    free(text);
    return NB_OK;
}

/* ---- MMMU: open questions ----------------------------------------------------------------------------------------------- */

static bool agrees(const meaning *said, const meaning *right)
{
    if (said->is_number) return right->is_number && said->number == right->number;
    for (int i = 0; i < 2 && !right->is_number; i++)
        for (int j = 0; j < 2; j++)
            if (right->text[i] && said->text[j] && strstr(said->text[j], right->text[i])) return true;
    return false;
}

static nb_status agrees_with_any(bool *right, const char *s, size_t n, const nb_list *accepted, nb_error *err)
{
    meaning said, want;
    NB_TRY(understand(&said, s, n, err));
    nb_status status = NB_OK;
    for (size_t i = 0; i < accepted->count && status == NB_OK && !*right; i++) {
        status = understand(&want, accepted->items[i], strlen(accepted->items[i]), err);
        if (status != NB_OK) break;
        *right = agrees(&said, &want);
        forget(&want);
    }
    forget(&said);
    return status;
}

/* A part of the answer, and each number in it. */
static nb_status judge_part(bool *right, const char *s, size_t n, const nb_list *accepted, nb_error *err)
{
    size_t (*const forms[])(const char *, size_t) = { with_commas, scientific, plain };
    NB_TRY(agrees_with_any(right, s, n, accepted, err));
    char *text = strndup(s, n);
    if (!text) return nb_no_answer_memory(err);
    nb_status status = NB_OK;
    for (size_t f = 0; f < NB_COUNT(forms); f++)
        for (size_t i = 0, length; i < n && status == NB_OK && !*right; i += length ? length : 1) {
            length = forms[f](text, i);
            if (length) status = agrees_with_any(right, text + i, length, accepted, err);
        }
    free(text);
    return status;
}

/* The shortest end of a line behind a word that announces an answer; false: no such word, or nothing worth looking at. */
static bool announced(const char *line, size_t n, bool last, const char **out, size_t *out_n)
{
    static const char *const words[] = { "could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ", "=" };
    char *text = strndup(line, n);
    bool  found = false;
    for (size_t i = 0; text && i < NB_COUNT(words) - !last; i++) {
        long at = last_place(text, words[i]);
        if (at < 0) continue;
        const char *from = line + at + strlen(words[i]);
        size_t      length = (size_t)(line + n - from);
        while (length && strchr(NB_BLANKS, *from)) from++, length--;
        while (length && strchr(NB_BLANKS, from[length - 1])) length--;
        if (!found || *out_n == 0 || length < *out_n) *out = from, *out_n = length;
        found = true;
    }
    free(text);
    return found && *out_n && !(*out_n == 1 && strchr(":,.!?;'", **out));
}

nb_status nb_score_mmmu_open(bool *right, const char *answer, const nb_list *accepted, nb_error *err)
{
    *right = false;
    char *bare = nb_stripped(answer, strlen(answer), NB_BLANKS), *plain_text = bare ? nb_stripped(bare, strlen(bare), ".") : NULL;
    char *text = plain_text ? nb_lower(plain_text) : NULL;
    free(bare);
    free(plain_text);
    if (!text) return nb_no_answer_memory(err);
    nb_status status = NB_OK;
    bool      any = false;
    for (const char *line = text; line && status == NB_OK && !*right;) {
        const char *end = strchr(line, '\n'), *part = line;
        size_t      n = end ? (size_t)(end - line) : strlen(line), length = 0;
        if (announced(line, n, !end, &part, &length)) {
            any = true;
            status = judge_part(right, part, length, accepted, err);
        }
        line = end ? end + 1 : NULL;
    }
    if (!any && status == NB_OK) status = judge_part(right, text, strlen(text), accepted, err);
    free(text);
    return status;
}

/* ---- MathVista ---------------------------------------------------------------------------------------------------------- */

/* The text of the choice that the extraction means. */
static nb_status meant_choice(const char **out, const char *extraction, const nb_list *choices, nb_error *err)
{
    size_t n = strlen(extraction), best = SIZE_MAX;
    char   letter = n == 1 ? *extraction : 0;
    for (const char *at = extraction; (at = strchr(at, '(')) != NULL; at++)
        if (isalpha((unsigned char)at[1]) && at[2] == ')') {
            letter = (char)toupper((unsigned char)at[1]);
            break;
        }
    if (letter >= 'A' && (size_t)(letter - 'A') < choices->count) {
        *out = choices->items[letter - 'A'];
        return NB_OK;
    }
    *out = NULL;
    for (size_t i = 0; i < choices->count; i++) {
        size_t     d;
        const char one[2] = { letter, 0 };
        NB_TRY(nb_edit_distance(&d, letter ? one : extraction, choices->items[i], err));
        if (d < best) best = d, *out = choices->items[i];
    }
    return NB_OK;
}

nb_status nb_score_math_official(bool *right, const char *extraction, nb_math_type type, const nb_list *choices, int precision, const char *answer,
                                 nb_error *err)
{
    char       text[400];
    double     value;
    char      *bare = nb_stripped(extraction, strlen(extraction), NB_BLANKS);
    nb_status  status = bare ? NB_OK : nb_no_answer_memory(err);
    const char *got = NULL;
    *right = false;
    if (bare && type == NB_MATH_CHOICE) {
        status = meant_choice(&got, bare, choices, err);
    } else if (bare && type == NB_MATH_TEXT) {
        got = extraction;
    } else if (bare && nb_text_number(bare, &value) && isfinite(value)) {
        got = text;
        if (type == NB_MATH_INTEGER) {
            snprintf(text, sizeof text, "%.0f", trunc(value) == 0 ? 0 : trunc(value));
        } else { /* as Python prints the rounded number: no zeros at the end but one */
            snprintf(text, sizeof text, "%.*f", precision, value);
            size_t n = strlen(text);
            if (!strchr(text, '.')) n = (size_t)snprintf(text, sizeof text, "%.*f.0", precision, value);
            while (text[n - 1] == '0' && text[n - 2] != '.') text[--n] = 0;
        }
    }
    if (status == NB_OK) *right = got && !strcmp(got, answer);
    free(bare);
    return status;
}
