/* score_words.c - ChartQA, TextVQA, OCRBench, MTVQA and the yes-no sets of score.h; the rules are described in VLMEvalKit's vqa_eval,
 * image_vqa and yorn. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/buf.h"
#include "tools/eval/score.h"
#include "tools/eval/score_text.h"

static char *trimmed(const char *s)
{
    return nb_stripped(s, strlen(s), NB_BLANKS);
}

/* ---- ChartQA ----------------------------------------------------------------------------------------------------------- */

/* A number; % signs at its end divide by 100, once. */
static nb_status as_number(bool *good, double *out, const char *s, nb_error *err)
{
    size_t n = strlen(s), bare = n;
    while (bare && s[bare - 1] == '%') bare--;
    char *text = strndup(s, bare);
    if (!text) return nb_no_answer_memory(err);
    *good = nb_text_number(text, out);
    if (bare < n) *out /= 100;
    free(text);
    return NB_OK;
}

static nb_status relaxed(bool *out, const char *answer, const char *right, nb_error *err)
{
    double a = 0, r = 0;
    bool   both, other;
    NB_TRY(as_number(&both, &a, answer, err));
    NB_TRY(as_number(&other, &r, right, err));
    if (both && other && r != 0) {
        *out = fabs(a - r) / fabs(r) <= 0.05;
        return NB_OK;
    }
    char *small = nb_lower(answer), *small_right = nb_lower(right);
    bool  memory = small && small_right;
    *out = memory && !strcmp(small, small_right);
    free(small);
    free(small_right);
    return memory ? NB_OK : nb_no_answer_memory(err);
}

nb_status nb_score_relaxed(double *out, const char *answer, const nb_list *accepted, nb_error *err)
{
    char     *text = trimmed(answer);
    bool      right = false;
    nb_status status = text ? NB_OK : nb_no_answer_memory(err);
    for (size_t i = 0; status == NB_OK && i < accepted->count && !right; i++) status = relaxed(&right, text, accepted->items[i], err);
    free(text);
    *out = right;
    return status;
}

/* ---- VQA's clean-up ---------------------------------------------------------------------------------------------------- */

/* A mark vanishes where white space is beside one of its kind, or anywhere when the text has a comma between digits; otherwise it
 * becomes a space.  A full stop that touches no digit vanishes, the first 32 of them. */
static void clean_punctuation(nb_buf *out, const char *s)
{
    static const char marks[] = ";/[]\"{}()=+\\_-><@`,?!";
    bool              vanish[256] = { false }, comma = false;
    size_t            n = strlen(s), stops = 0;
    for (size_t i = 0; i < n; i++) {
        if (i && s[i] == ',' && nb_is_digit(s[i - 1]) && nb_is_digit(s[i + 1])) comma = true;
        if ((i && s[i - 1] == ' ') || s[i + 1] == ' ') vanish[(unsigned char)s[i]] = true;
    }
    nb_buf once = { 0 };
    nb_buf_str(&once, "");
    for (size_t i = 0; i < n; i++) {
        if (!strchr(marks, s[i])) nb_buf_char(&once, s[i]);
        else if (!comma && !vanish[(unsigned char)s[i]]) nb_buf_char(&once, ' ');
    }
    for (size_t i = 0; i < once.size; i++) {
        bool stop = once.data[i] == '.' && !(i && nb_is_digit(once.data[i - 1])) && !nb_is_digit(once.data[i + 1]);
        if (!stop || stops++ >= 32) nb_buf_char(out, once.data[i]);
    }
    if (once.failed) out->failed = true;
    nb_buf_free(&once);
}

/* Words whose apostrophes may be missing: without any.  (The published list names the misspellings one by one; here every way to place
 * the apostrophes of such a word is the same word.) */
static const char contractions[] =
    " aint arent cant couldve couldnt couldntve didnt doesnt dont hadnt hadntve hasnt havent hed hedve hes howd howll hows isnt itd itdve "
    "itll maam mightnt mightntve mightve mustnt mustve neednt notve oclock oughtnt owsat shant shedve shouldve shouldnt shouldntve "
    "somebodyd somebodydve somebodyll somebodys someoned someonedve someonell someones thats thered theredve therere theres theyd theydve "
    "theyll theyre theyve twas wasnt wedve weve werent whatll whatre whats whatve whens whered wheres whereve whod whodve wholl whos whove "
    "whyll whyre whys wont wouldve wouldnt wouldntve yall yallll yalldve youd youdve youll youre youve ";

static void add_word(nb_buf *out, const char *word, size_t n)
{
    static const char *const numbers[] = { "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "none" };
    static const char *const values[] = { "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "0" };
    char                     bare[32];
    size_t                   length = 0;
    if ((n == 1 && *word == 'a') || (n == 2 && !memcmp(word, "an", 2)) || (n == 3 && !memcmp(word, "the", 3))) return;
    if (out->size) nb_buf_char(out, ' ');
    for (size_t i = 0; i < NB_COUNT(numbers); i++)
        if (strlen(numbers[i]) == n && !memcmp(numbers[i], word, n)) {
            nb_buf_str(out, values[i]);
            return;
        }
    bare[length++] = ' ';
    for (size_t i = 0; i < n && length < sizeof bare - 2; i++)
        if (word[i] != '\'') bare[length++] = word[i];
    bare[length++] = ' ';
    bare[length] = 0;
    if (length > 2 && strstr(contractions, bare)) nb_buf_add(out, bare + 1, length - 2);
    else nb_buf_add(out, word, n);
}

/* malloc'd; NULL without memory */
static char *cleaned(const char *s)
{
    nb_buf marks = { 0 }, out = { 0 };
    char  *text = trimmed(s), *small;
    for (char *c = text; c && *c; c++)
        if (*c == '\n' || *c == '\t') *c = ' ';
    if (text) clean_punctuation(&marks, text);
    small = text && !marks.failed ? nb_lower(marks.data ? marks.data : "") : NULL;
    nb_buf_str(&out, "");
    for (const char *at = small; at && *at;) {
        at += strspn(at, NB_BLANKS);
        size_t n = strcspn(at, NB_BLANKS);
        if (n) add_word(&out, at, n);
        at += n;
    }
    free(text);
    free(small);
    nb_buf_free(&marks);
    if (out.failed || !small) nb_buf_free(&out);
    return out.data;
}

nb_status nb_score_people(double *out, const char *answer, const nb_list *accepted, nb_error *err)
{
    char  *mine = cleaned(answer);
    size_t same = 0, n = accepted->count;
    bool   failed = !mine;
    *out = 0;
    for (size_t i = 0; i < n && !failed; i++) {
        char *other = cleaned(accepted->items[i]);
        failed = !other;
        same += other && !strcmp(mine, other);
        free(other);
    }
    free(mine);
    if (failed) return nb_no_answer_memory(err);
    /* One who said the same leaves same - 1 of those, the others leave same. */
    if (n) *out = ((double)same * fmin(1, ((double)same - 1) / 3) + (double)(n - same) * fmin(1, (double)same / 3)) / (double)n;
    return NB_OK;
}

/* ---- a part of the answer ---------------------------------------------------------------------------------------------- */

/* What the rules compare: `drop` leaves the text, line breaks are spaces. */
static char *simplified(const char *s, const char *drop, bool lower)
{
    char  *text = trimmed(s), *small = text && lower ? nb_lower(text) : text;
    size_t n = 0;
    if (small != text) free(text);
    for (size_t i = 0; small && small[i]; i++) {
        char c = small[i] == '\n' ? ' ' : small[i];
        if (!strchr(drop, c)) small[n++] = c;
    }
    if (small) small[n] = 0;
    return small;
}

static nb_status is_part(bool *out, const char *answer, const char *right, const char *drop, bool lower, nb_error *err)
{
    char *a = simplified(answer, drop, lower), *r = simplified(right, drop, lower);
    bool  memory = a && r;
    *out = memory && strstr(a, r);
    free(a);
    free(r);
    return memory ? NB_OK : nb_no_answer_memory(err);
}

nb_status nb_score_contains(double *out, const char *answer, const nb_list *accepted, bool formula, nb_error *err)
{
    bool part = false;
    for (size_t i = 0; i < accepted->count && !part; i++) NB_TRY(is_part(&part, answer, accepted->items[i], formula ? " " : "", !formula, err));
    *out = part;
    return NB_OK;
}

nb_status nb_score_contains_plain(double *out, const char *answer, const char *right, nb_error *err)
{
    bool part;
    NB_TRY(is_part(&part, answer, right, ".", true, err));
    *out = part;
    return NB_OK;
}

/* ---- yes or no --------------------------------------------------------------------------------------------------------- */

const char *nb_score_yes_no(const char *answer)
{
    nb_buf text = { 0 };
    char  *small = nb_lower(answer);
    bool   yes = false, no = false;
    clean_punctuation(&text, small ? small : "");
    for (const char *at = text.data; at && *at;) {
        at += strspn(at, NB_BLANKS);
        size_t n = strcspn(at, NB_BLANKS);
        yes = yes || (n == 3 && !memcmp(at, "yes", 3));
        no = no || (n == 2 && !memcmp(at, "no", 2));
        at += n;
    }
    free(small);
    nb_buf_free(&text);
    return yes == no ? NULL : yes ? "Yes" : "No";
}
