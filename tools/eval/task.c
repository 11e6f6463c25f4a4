/* task.c - rows to prompts and answers to scores (see task.h); task_summary.c adds them up. */
#include "tools/eval/task.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "runtime/io/literal.h"
#include "tools/eval/score.h"

static const char *const short_answer = "\nPlease try to answer the question with short words or phrases if possible.";

/* ---- opening ----------------------------------------------------------------------------------------------------------- */

static nb_status check_columns(const nb_task *t, const char *path, nb_error *err)
{
    char  list[160], *rest = list;
    snprintf(list, sizeof list, "question answer %s", t->rules->needs);
    for (char *column; (column = strsep(&rest, " ")) != NULL;)
        if (nb_tsv_column(t->table, column) < 0)
            return nb_fail(err, NB_ERR_INPUT, "%s: the table has no column '%s', which %s needs", path, column, t->name);
    return NB_OK;
}

static const char *field(const nb_task *t, const char *name)
{
    const char *v = nb_tsv_get(t->table, name);
    return v ? v : "";
}

/* The rules of a table whose name says nothing. */
static nb_status choose_rules(nb_task *t, nb_error *err)
{
    bool options = nb_tsv_column(t->table, "A") >= 0 && nb_tsv_column(t->table, "B") >= 0, yes_no = !options;
    for (size_t i = 0; i < t->rows && yes_no; i++) {
        NB_TRY(nb_tsv_row(t->table, i, err));
        yes_no = !strcasecmp(field(t, "answer"), "yes") || !strcasecmp(field(t, "answer"), "no");
    }
    t->rules = nb_task_rules_by_columns(options, yes_no);
    return NB_OK;
}

nb_status nb_task_open(nb_task *t, const char *spec, bool missing_as_pandas, size_t limit, nb_error *err)
{
    memset(t, 0, sizeof *t);
    const char *colon = strchr(spec, ':');
    if (!colon || colon == spec || !colon[1])
        return nb_fail(err, NB_ERR_ARGUMENT, "--tasks: '%s' is neither kl, ppl, agree nor NAME:FILE.tsv", spec);
    snprintf(t->name, sizeof t->name, "%.*s", (int)(colon - spec), spec);
    t->rules = nb_task_rules_by_name(t->name);
    nb_status status = nb_tsv_open(&t->table, colon + 1, missing_as_pandas, err);
    if (status == NB_OK) {
        t->rows = nb_tsv_rows(t->table);
        if (limit && limit < t->rows) t->rows = limit;
        if (!t->rules) status = choose_rules(t, err);
        if (status == NB_OK) status = check_columns(t, colon + 1, err);
        if (status == NB_OK) status = nb_alloc(&t->scores, t->rows, sizeof *t->scores, "row scores", err);
    }
    if (status != NB_OK) nb_task_close(t);
    return status;
}

void nb_task_close(nb_task *t)
{
    for (size_t i = 0; t->scores && i < t->rows; i++) free(t->scores[i].prediction);
    free(t->scores);
    nb_tsv_close(t->table);
    memset(t, 0, sizeof *t);
}

/* ---- prompts ----------------------------------------------------------------------------------------------------------- */

static bool has_chinese(const char *s)
{
    for (const unsigned char *c = (const unsigned char *)s; *c; c++) /* U+4E00..U+9FFF is E4 B8 80 .. E9 BF BF */
        if (c[0] >= 0xe4 && c[0] <= 0xe9 && (c[0] > 0xe4 || c[1] >= 0xb8) && c[1]) return true;
    return false;
}

/* Hint, question, options: the block that MMMU and MMBench share.  True when there was an option. */
static bool choice_block(const nb_task *t, nb_buf *out)
{
    bool any = false;
    if (*field(t, "hint")) nb_buf_printf(out, "Hint: %s\n", field(t, "hint"));
    nb_buf_printf(out, "Question: %s\n", field(t, "question"));
    for (char letter[2] = "A"; *letter <= 'Z'; letter[0]++) {
        if (!*field(t, letter)) continue;
        if (!any) nb_buf_str(out, "Options:\n");
        any = true;
        nb_buf_printf(out, "%s. %s\n", letter, field(t, letter));
    }
    return any;
}

static void question(const nb_task *t, nb_buf *out)
{
    nb_ask ask = t->rules->ask;
    if (ask == NB_ASK_SHORT || ask == NB_ASK_YES_NO || ask == NB_ASK_PLAIN) {
        nb_buf_str(out, field(t, "question"));
        nb_buf_str(out, ask == NB_ASK_SHORT ? short_answer : ask == NB_ASK_YES_NO ? " Please answer yes or no." : "");
        return;
    }
    bool options = choice_block(t, out), chinese = ask == NB_ASK_CHOICE && out->data && has_chinese(out->data);
    if (options)
        nb_buf_str(out, chinese ? "\xe8\xaf\xb7\xe7\x9b\xb4\xe6\x8e\xa5\xe5\x9b\x9e\xe7\xad\x94\xe9\x80\x89\xe9\xa1\xb9\xe5\xad\x97"
                                  "\xe6\xaf\x8d\xe3\x80\x82" /* 请直接回答选项字母。 */
                                : "Please select the correct answer from the options above.");
    while (out->size && strchr(" \t\r\n", out->data[out->size - 1])) out->data[--out->size] = 0;
}

/* The image cell of row i: base64, a list of base64, or (64 characters at most) the index of the row that holds it. */
static nb_status image_cell(nb_task *t, size_t i, nb_list *out, nb_error *err)
{
    for (int hops = 0;; hops++) {
        NB_TRY(nb_tsv_row(t->table, i, err));
        const char *cell = field(t, "image");
        if (strlen(cell) > 64 || !*cell || *cell == '[') return nb_list_parse(out, cell, err);
        size_t other = nb_tsv_find(t->table, cell);
        if (other == SIZE_MAX || other == i || hops == 4)
            return nb_fail(err, NB_ERR_INPUT, "the image cell '%s' is not the index of a row that holds a picture", cell);
        i = other;
    }
}

static nb_status add_pictures(nb_task *t, size_t i, nb_message *m, nb_error *err)
{
    nb_list pictures;
    nb_buf  url = { 0 };
    NB_TRY(image_cell(t, i, &pictures, err));
    nb_status status = NB_OK;
    if (pictures.count == 0 || !*pictures.items[0]) status = nb_fail(err, NB_ERR_INPUT, "the image cell is empty");
    for (size_t p = 0; p < pictures.count && status == NB_OK; p++) {
        nb_buf_clear(&url);
        nb_buf_printf(&url, "data:image;base64,%s", pictures.items[p]);
        nb_part part = { .kind = NB_PART_IMAGE, .text = url.data };
        status = nb_buf_status(&url, "a picture", err);
        if (status == NB_OK) status = nb_chat_add_part(m, &part, err);
    }
    nb_buf_free(&url);
    nb_list_free(&pictures);
    return status;
}

static nb_status build_chat(nb_task *t, size_t i, nb_chat *out, nb_error *err)
{
    nb_message *m;
    nb_buf      text = { 0 };
    NB_TRY(nb_chat_add_message(out, "user", &m, err));
    NB_TRY(add_pictures(t, i, m, err));
    NB_TRY(nb_tsv_row(t->table, i, err));
    question(t, &text);
    nb_status status = nb_buf_status(&text, "a question", err);
    if (status == NB_OK) status = nb_chat_add_part(m, &(nb_part){ .kind = NB_PART_TEXT, .text = text.data }, err);
    nb_buf_free(&text);
    return status;
}

nb_status nb_task_chat(nb_task *t, size_t i, nb_chat *out, char where[256], nb_error *err)
{
    memset(out, 0, sizeof *out);
    snprintf(where, 256, "%s: row %s at line %zu", t->name, nb_tsv_index(t->table, i), nb_tsv_line(t->table, i));
    nb_status status = build_chat(t, i, out, err);
    if (status != NB_OK) {
        nb_error_within(err, "%s", where);
        nb_chat_free(out);
    }
    return status;
}

/* ---- scores ------------------------------------------------------------------------------------------------------------ */

static nb_status score_open(nb_task *t, nb_row_score *s, nb_error *err)
{
    nb_list accepted;
    bool    right = false;
    NB_TRY(nb_list_parse(&accepted, field(t, "answer"), err));
    nb_status status = nb_score_mmmu_open(&right, s->prediction, &accepted, err);
    nb_list_free(&accepted);
    s->score = right;
    return status;
}

static nb_status score_choice(nb_task *t, nb_row_score *s, nb_error *err)
{
    const char *options[26] = { NULL };
    char        names[26][2], right = *field(t, "answer");
    if (t->scoring == NB_RULES_OFFICIAL && t->rules->ask == NB_ASK_MMMU && !*field(t, "A")) return score_open(t, s, err);
    for (int i = 0; i < 26; i++) {
        names[i][0] = (char)('A' + i);
        names[i][1] = 0;
        options[i] = nb_tsv_get(t->table, names[i]);
    }
    if (t->rules->ask == NB_ASK_MMMU && !*field(t, "A")) { /* an open question becomes a choice between its answer and the rest */
        options[0] = field(t, "answer");
        options[1] = "Other Answers";
        right = 'A';
    }
    char got = t->scoring == NB_RULES_CURRENT ? nb_score_option_current(s->prediction, options)
               : t->scoring == NB_RULES_OFFICIAL && t->rules->ask == NB_ASK_MMMU ? nb_score_mmmu_option(s->prediction, options)
                                                                                 : nb_score_option(s->prediction, options);
    s->undecided = got == 0;
    s->score = got != 0 && got == right;
    return NB_OK;
}

static nb_status score_yes_no(nb_task *t, nb_row_score *s)
{
    const char *got = nb_score_yes_no(s->prediction);
    s->undecided = got == NULL;
    s->score = got && !strcasecmp(got, field(t, "answer"));
    return NB_OK;
}

/* The rules that compare with a list of accepted texts. */
static nb_status score_accepted(nb_task *t, nb_row_score *s, nb_error *err)
{
    nb_list   accepted;
    nb_status status = NB_OK;
    NB_TRY(nb_list_parse(&accepted, field(t, "answer"), err));
    if (t->rules->rate == NB_RATE_RELAXED) status = nb_score_relaxed(&s->score, s->prediction, &accepted, err);
    else if (t->rules->rate == NB_RATE_PEOPLE) status = nb_score_people(&s->score, s->prediction, &accepted, err);
    else if (t->rules->rate == NB_RATE_CONTAINS)
        status = nb_score_contains(&s->score, s->prediction, &accepted, !strcmp(field(t, "category"), "Handwritten Mathematical Expression Recognition"), err);
    else status = nb_score_anls(&s->score, s->prediction, &accepted, err);
    nb_list_free(&accepted);
    return status;
}

/* Decimals that a MathVista answer has: the column `precision`, or as many as the right answer shows. */
static int precision_of(const nb_task *t)
{
    const char *said = field(t, "precision"), *dot = strchr(field(t, "answer"), '.');
    int         n = *said ? (int)strtod(said, NULL) : dot ? (int)strlen(dot + 1) : 0;
    return n < 0 ? 0 : n > 15 ? 15 : n;
}

static nb_status score_math_official(nb_task *t, nb_row_score *s, nb_math_type type, const nb_list *choices, nb_error *err)
{
    char text[512];
    bool right = false, found = nb_score_math_extract(s->prediction, type == NB_MATH_CHOICE ? NB_MATH_TEXT : type, text, sizeof text);
    s->undecided = !found;
    nb_status status = found ? nb_score_math_official(&right, text, type, choices, precision_of(t), field(t, "answer"), err) : NB_OK;
    s->score = right;
    return status;
}

static nb_status score_math(nb_task *t, nb_row_score *s, nb_error *err)
{
    nb_list     choices = { 0 };
    const char *options[26] = { NULL };
    bool        choice = !strcmp(field(t, "question_type"), "multi_choice");
    if (choice) NB_TRY(nb_list_parse(&choices, field(t, "choices"), err));
    for (size_t i = 0; i < choices.count && i < 26; i++) options[i] = choices.items[i];
    nb_math_type type = choice ? NB_MATH_CHOICE
                        : !strcmp(field(t, "answer_type"), "integer") ? NB_MATH_INTEGER
                        : !strcmp(field(t, "answer_type"), "float")   ? NB_MATH_FLOAT : NB_MATH_TEXT;
    nb_status status = NB_OK;
    if (t->scoring == NB_RULES_OFFICIAL) {
        status = score_math_official(t, s, type, &choices, err);
    } else if (t->scoring == NB_RULES_CURRENT && choice) {
        char got = nb_score_option_current(s->prediction, options);
        s->undecided = got == 0;
        s->prefetch = got != 0;
        s->score = got != 0 && got == *field(t, "answer_option");
    } else {
        nb_math_score m = nb_score_math(s->prediction, type, options, *field(t, "answer_option"), field(t, "answer"));
        s->score = m.hit;
        s->undecided = m.undecided;
        s->prefetch = m.prefetch;
    }
    nb_list_free(&choices);
    return status;
}

nb_status nb_task_answer(nb_task *t, size_t i, const char *prediction, nb_error *err)
{
    nb_row_score *s = &t->scores[i];
    free(s->prediction);
    *s = (nb_row_score){ .prediction = nb_strdup(prediction) };
    if (!s->prediction) return nb_fail(err, NB_ERR_MEMORY, "no memory for an answer");
    NB_TRY(nb_tsv_row(t->table, i, err));
    switch (t->rules->rate) {
    case NB_RATE_OPTION: return score_choice(t, s, err);
    case NB_RATE_MATH: return score_math(t, s, err);
    case NB_RATE_YES_NO: return score_yes_no(t, s);
    case NB_RATE_CONTAINS_PLAIN: return nb_score_contains_plain(&s->score, s->prediction, field(t, "answer"), err);
    default: return score_accepted(t, s, err);
    }
}

nb_status nb_task_right(nb_task *t, size_t i, const char **out, nb_error *err)
{
    NB_TRY(nb_tsv_row(t->table, i, err));
    *out = field(t, "answer");
    return NB_OK;
}
