/* task_rules.c - see task_rules.h; prompts are those of VLMEvalKit's Qwen2-VL adapter. */
#include "tools/eval/task_rules.h"

#include <stddef.h>
#include <string.h>

#include "kernels/base.h"

/* A name that holds another stands before it. */
static const nb_task_rules known[] = {
    { "mmmu", NB_ASK_MMMU, NB_RATE_OPTION, NB_SUM_VALIDATION, "accuracy", "image" },
    { "docvqa", NB_ASK_SHORT, NB_RATE_ANLS, NB_SUM_MEAN, "ANLS", "image" },
    { "infovqa", NB_ASK_SHORT, NB_RATE_ANLS, NB_SUM_MEAN, "ANLS", "image" },
    { "mmbench", NB_ASK_CHOICE, NB_RATE_OPTION, NB_SUM_CIRCULAR, "circular accuracy", "image A B" },
    { "mathvista", NB_ASK_SHORT, NB_RATE_MATH, NB_SUM_MEAN, "rule-scored accuracy", "image question_type answer_type choices answer_option" },
    { "ocrbench", NB_ASK_SHORT, NB_RATE_CONTAINS, NB_SUM_MEAN, "answers that hold the text", "image category" },
    { "chartqa", NB_ASK_SHORT, NB_RATE_RELAXED, NB_SUM_MEAN, "relaxed accuracy", "image" },
    { "mtvqa", NB_ASK_SHORT, NB_RATE_CONTAINS_PLAIN, NB_SUM_MEAN, "answers that hold the text", "image category" },
    { "textvqa", NB_ASK_SHORT, NB_RATE_PEOPLE, NB_SUM_MEAN, "VQA accuracy", "image" },
    { "realworldqa", NB_ASK_CHOICE, NB_RATE_OPTION, NB_SUM_MEAN, "accuracy", "image A B" },
    { "mmstar", NB_ASK_CHOICE, NB_RATE_OPTION, NB_SUM_MEAN, "accuracy", "image A B" },
    { "mme", NB_ASK_PLAIN, NB_RATE_YES_NO, NB_SUM_MME, "points of 2800", "image category image_path" },
    { "hallusion", NB_ASK_YES_NO, NB_RATE_YES_NO, NB_SUM_HALLUSION, "aAcc", "image l2-category" },
};
static const nb_task_rules by_options = { "", NB_ASK_CHOICE, NB_RATE_OPTION, NB_SUM_MEAN, "accuracy (options, by the columns)", "image" },
                           by_yes_no = { "", NB_ASK_YES_NO, NB_RATE_YES_NO, NB_SUM_MEAN, "accuracy (yes or no, by the answers)", "image" },
                           by_anls = { "", NB_ASK_SHORT, NB_RATE_ANLS, NB_SUM_MEAN, "ANLS (free text, by the columns)", "image" };

const nb_task_rules *nb_task_rules_by_name(const char *name)
{
    for (size_t i = 0; i < NB_COUNT(known); i++)
        if (strcasestr(name, known[i].name)) return &known[i];
    return NULL;
}

const nb_task_rules *nb_task_rules_by_columns(bool has_options, bool only_yes_no)
{
    return has_options ? &by_options : only_yes_no ? &by_yes_no : &by_anls;
}
