/* modality_flag.c - reading --modality-weights, and telling what auto found. */
#include "tools/modality_flag.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/ranks.h"
#include "tools/cli/args.h"
#include "tools/cli/output.h"

static const char *const names[NB_MODALITIES] = {"text", "image", "video"};

/* One "name=weight"; *seen: the names so far, as bits. */
static nb_status parse_named(float out[NB_MODALITIES], unsigned *seen, char *word, nb_error *err)
{
    double value;
    char  *equal = strchr(word, '=');
    if (!equal) return nb_fail(err, NB_ERR_ARGUMENT, "--modality-weights: '%s' has no weight; write text=1,image=0.5", word);
    *equal = 0;
    for (int i = 0; i < NB_MODALITIES; i++) {
        if (strcmp(word, names[i]) && !(i == 1 && !strcmp(word, "picture"))) continue;
        if (*seen & 1u << i) return nb_fail(err, NB_ERR_ARGUMENT, "--modality-weights: %s is there twice", word);
        *seen |= 1u << i;
        NB_TRY(nb_parse_number(&value, equal + 1, 0, 1e6, "--modality-weights", err));
        out[i] = (float)value;
        return NB_OK;
    }
    return nb_fail(err, NB_ERR_ARGUMENT, "--modality-weights: '%s' is not text, image or video", word);
}

static nb_status parse_ordered(float out[NB_MODALITIES], char *at, const char *text, nb_error *err)
{
    double v[NB_MODALITIES];
    char  *word;
    int    n = 0;
    while (n < NB_MODALITIES && (word = strsep(&at, ":")) != NULL)
        NB_TRY(nb_parse_number(&v[n++], word, 0, 1e6, "--modality-weights", err));
    if (at || n < 2) return nb_fail(err, NB_ERR_ARGUMENT, "--modality-weights: '%s' is not T:I:V or T:I, such as 1:0.5:0.5", text);
    if (n == 2) v[2] = v[1];
    for (int i = 0; i < NB_MODALITIES; i++) out[i] = (float)v[i];
    return NB_OK;
}

nb_status nb_modality_parse(float out[NB_MODALITIES], bool *automatic, const char *text, nb_error *err)
{
    char     copy[128], *at = copy, *word;
    unsigned seen = 0;
    *automatic = !strcmp(text, "auto");
    for (int i = 0; i < NB_MODALITIES; i++) out[i] = 1;
    if (*automatic) return NB_OK;
    if (strlen(text) >= sizeof copy) return nb_fail(err, NB_ERR_ARGUMENT, "--modality-weights: '%.40s...' is too long", text);
    memcpy(copy, text, strlen(text) + 1);
    if (strchr(text, '='))
        while ((word = strsep(&at, ",")) != NULL) NB_TRY(parse_named(out, &seen, word, err));
    else
        NB_TRY(parse_ordered(out, at, text, err));
    if (out[0] == 0 && out[1] == 0 && out[2] == 0)
        return nb_fail(err, NB_ERR_ARGUMENT, "--modality-weights: '%s' weighs nothing", text);
    return NB_OK;
}

void nb_modality_text(char out[64], const float weights[NB_MODALITIES])
{
    size_t at = 0;
    for (int i = 0; i < NB_MODALITIES; i++) {
        char word[24];
        int  digits = 1;
        do snprintf(word, sizeof word, "%.*g", digits, (double)weights[i]);
        while (strtof(word, NULL) != weights[i] && digits++ < 9); /* the fewest that read back the same */
        at += (size_t)snprintf(out + at, 64 - at, "%s%s", i ? ":" : "", word);
    }
}

nb_status nb_modality_auto(float out[NB_MODALITIES], const nb_ops *ops, const char *model_dir, const nb_lora *loras, size_t lora_count,
                           const nb_samples_options *data, const nb_grid *grid, nb_error *err)
{
    nb_modality_report r;
    char               text[64];
    NB_TRY(nb_modality_measure(&r, ops, model_dir, loras, lora_count, data, grid, err));
    NB_TRY(nb_ranks_share(r.weights, sizeof r.weights, err));
    memcpy(out, r.weights, sizeof r.weights);
    nb_modality_text(text, out);
    nb_buf errors = {0};
    for (int i = 0; i < NB_MODALITIES; i++)
        if (r.tokens[i])
            nb_buf_printf(&errors, "%s%.3g%% of %s outputs (%llu tokens)", errors.size ? ", " : "", 100 * sqrt(r.error[i]), names[i],
                          (unsigned long long)r.tokens[i]);
    nb_note("modality weights %s: rounding to nearest errs by %s", text, errors.data ? errors.data : "nothing");
    nb_buf_free(&errors);
    return NB_OK;
}
