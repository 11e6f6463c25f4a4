/* quantize_card.c - README.md of a checkpoint: the model card that hubs show, and how to serve it.
 *
 * Strings in the front matter are written as JSON strings, which YAML reads as they are; in the text, words from outside lose what
 * Markdown or HTML would act on.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "tools/cli/output.h"
#include "tools/quantize_proof.h"

enum { CARD_LIMIT = 4 << 20 };

/* ---- the source's card ------------------------------------------------------------------------------------------- */

/* The scalar behind "key:" at the beginning of a line, quotes and white space taken off; a list or nothing gives "". */
static void front_value(char *out, size_t size, const char *text, const char *end, const char *key)
{
    size_t n = strlen(key);
    for (const char *line = text; line < end; line += strcspn(line, "\n") + 1) {
        if (strncmp(line, key, n) || line[n] != ':') continue;
        const char *from = line + n + 1, *to = line + strcspn(line, "\n");
        while (from < to && strchr(" \t", *from)) from++;
        while (to > from && strchr(" \t\r", to[-1])) to--;
        if (to - from >= 2 && (*from == '"' || *from == '\'') && to[-1] == *from) from++, to--;
        if ((size_t)(to - from) >= size || memchr("[{|>&*!", from < to ? *from : '[', 7)) return;
        memcpy(out, from, (size_t)(to - from));
        out[to - from] = 0;
        return;
    }
}

static nb_status read_front_matter(nb_source_card *out, const char *model, nb_error *err)
{
    nb_buf text = {0};
    char  *path = nb_path_join(model, "README.md");
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "out of memory for the model card");
    nb_error ignored; /* a card that cannot be read says nothing */
    bool     read = nb_file_exists(path) && nb_file_read(&text, path, CARD_LIMIT, &ignored) == NB_OK && text.size;
    const char *end = read && !strncmp(text.data, "---\n", 4) ? strstr(text.data + 3, "\n---") : NULL;
    if (end) {
        front_value(out->license, sizeof out->license, text.data + 4, end, "license");
        front_value(out->license_name, sizeof out->license_name, text.data + 4, end, "license_name");
        front_value(out->license_link, sizeof out->license_link, text.data + 4, end, "license_link");
    }
    nb_buf_free(&text);
    free(path);
    return NB_OK;
}

/* ".../models--Qwen--Qwen2-VL-2B-Instruct/snapshots/..." is how hub caches name a repository. */
static bool cached_name(char *out, size_t size, const char *path)
{
    const char *at = strstr(path, "models--");
    if (!at) return false;
    at += strlen("models--");
    const char *name = strstr(at, "--");
    size_t      n = strcspn(at, "/");
    if (!name || name >= at + n) return false;
    snprintf(out, size, "%.*s/%.*s", (int)(name - at), at, (int)(at + n - name - 2), name + 2);
    return true;
}

nb_status nb_source_card_read(nb_source_card *out, const char *model, const char *base_model, nb_error *err)
{
    memset(out, 0, sizeof *out);
    char *real = realpath(model, NULL);
    const char *path = real ? real : model, *slash = strrchr(path, '/');
    if (base_model) snprintf(out->base_model, sizeof out->base_model, "%s", base_model);
    else if (!cached_name(out->base_model, sizeof out->base_model, path))
        snprintf(out->base_model, sizeof out->base_model, "%s", slash && slash[1] ? slash + 1 : path);
    free(real);
    return read_front_matter(out, model, err);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static void front_string(nb_buf *out, const char *key, const char *value)
{
    if (!*value) return;
    nb_buf_printf(out, "%s: ", key);
    nb_buf_json_string(out, value, strlen(value));
    nb_buf_char(out, '\n');
}

/* On one line, in a paragraph or a cell of a table. */
static void words(nb_buf *out, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '<') nb_buf_str(out, "&lt;");
        else if (c == '&') nb_buf_str(out, "&amp;");
        else if (c == '|') nb_buf_str(out, "&#124;");
        else if (c == '`' || c < 32 || c == 127) nb_buf_char(out, ' ');
        else if (strchr("*_[]\\!#", c)) nb_buf_printf(out, "\\%c", c);
        else nb_buf_char(out, (char)c);
    }
}

static void front_matter(nb_buf *out, const nb_proof *p)
{
    char format[40], bits[40];
    nb_buf_str(out, "---\n");
    front_string(out, "base_model", p->card.base_model);
    nb_buf_str(out, "base_model_relation: quantized\n");
    front_string(out, "license", p->card.license);
    front_string(out, "license_name", p->card.license_name);
    front_string(out, "license_link", p->card.license_link);
    nb_buf_str(out, "library_name: transformers\npipeline_tag: image-text-to-text\ntags:\n- qwen2_vl\n- quantized\n- nibble\n");
    nb_args_choice(p->args, "format", format);
    nb_buf_printf(out, "- %.*s\n- %sbit\n---\n\n", (int)strcspn(format, "_"), format, nb_args_choice(p->args, "bits", bits));
}

static void verdict(nb_buf *out, const nb_proof *p)
{
    if (p->verdict == NB_FAILED) nb_buf_str(out, "> **This checkpoint failed its quality gate**: ");
    else if (p->verdict == NB_NOT_JUDGED) nb_buf_str(out, "> This checkpoint was not compared with the original: ");
    else return;
    words(out, p->why, strlen(p->why));
    nb_buf_str(out, "\n\n");
}

static void settings(nb_buf *out, const nb_proof *p)
{
    const nb_quantize_flags  *o = p->opt;
    const nb_quantize_report *r = p->report;
    char                      method[40], bits[40], format[40], in[32], made[32];
    nb_human_bytes(in, (double)r->bytes_in);
    nb_human_bytes(made, (double)r->bytes_out);
    nb_buf_printf(out, "%s, %s bits, ", nb_args_choice(p->args, "method", method), nb_args_choice(p->args, "bits", bits));
    if (o->group > 0) nb_buf_printf(out, "groups of %lld", (long long)o->group);
    else nb_buf_str(out, "one group a row");
    nb_buf_printf(out, ", %s, in the %s format: %s instead of %s.\n\nBits a value, scales and zero points included:", o->sym ? "symmetric" : "asymmetric",
                  nb_args_choice(p->args, "format", format), made, in);
    for (int i = 0, n = 0; i < NB_SIZE_PARTS; i++)
        if (p->parts[i].values)
            nb_buf_printf(out, "%s %s %.2f", n++ ? "," : "", p->parts[i].name, nb_bits_of(p->parts[i].bytes_out, p->parts[i].values));
    nb_buf_str(out, ".\n\n");
    if (r->samples)
        nb_buf_printf(out, "Calibrated on %zu conversations: %llu tokens of text, %llu of pictures, %llu of video.\n\n", r->samples,
                      (unsigned long long)r->tokens_by_modality[0], (unsigned long long)r->tokens_by_modality[1],
                      (unsigned long long)r->tokens_by_modality[2]);
    for (const char *line = r->adapters.data; line && *line; line += strcspn(line, "\n") + (line[strcspn(line, "\n")] == '\n')) {
        nb_buf_str(out, "Merged first: ");
        words(out, line, strcspn(line, "\n"));
        nb_buf_str(out, "\n\n");
    }
}

static nb_status quality(nb_buf *out, const nb_proof *p, nb_error *err)
{
    static const struct {
        const char *name;
        nb_scope    scope;
        nb_over     over;
    } rows[] = {{"all positions", NB_SCOPE_ALL, NB_OVER_BOTH}, {"words without a picture before them", NB_SCOPE_ALL, NB_OVER_TEXT},
                {"words after a picture", NB_SCOPE_ALL, NB_OVER_VISUAL}, {"answers", NB_SCOPE_ANSWER, NB_OVER_BOTH}};
    const nb_divergence *d = &p->judgement.divergence;
    if (!d->samples) return NB_OK;
    nb_buf_printf(out, "## Beside the original\n\nOn %zu held-out conversations, which calibration never saw; KL divergence in nats a token.\n\n"
                       "| positions | tokens | mean KL | 99 %% below | largest | same top token | in top 5 | perplexity | original's |\n"
                       "|---|---:|---:|---:|---:|---:|---:|---:|---:|\n", d->samples);
    for (size_t i = 0; i < NB_COUNT(rows); i++) {
        nb_divergence_summary s;
        NB_TRY(nb_divergence_summarize(&s, d, rows[i].scope, rows[i].over, err));
        if (!s.tokens) continue;
        nb_buf_printf(out, "| %s | %zu | %.6f | %.4g | %.4g | %.2f %% | %.2f %% | %.5g | %.5g |\n", rows[i].name, s.tokens, s.kl_mean, s.kl_p99,
                      s.kl_max, 100 * s.top1, 100 * s.top5, s.ppl, s.ref_ppl);
    }
    nb_buf_str(out, "\n");
    if (p->verdict == NB_PASSED) nb_buf_str(out, "The quality gate was passed.");
    nb_buf_str(out, " Plots, answers side by side and every matrix are in `report.html`, all figures in `report.json`.\n\n");
    return NB_OK;
}

static void serving(nb_buf *out, const nb_proof *p)
{
    nb_format   format = nb_quantize_formats[p->opt->format];
    bool        bf16 = !(nb_proof_largest(p) <= 65504), v2 = format == NB_FORMAT_GPTQ_V2;
    const char *dtype = bf16 ? " --dtype bfloat16" : "";
    nb_buf_str(out, "## Serving\n\n```sh\n");
    if (!v2)
        nb_buf_printf(out, "vllm serve PATH%s                                   # finds the quantization by itself; forcing one can pick a slower kernel\n"
                           "python -m sglang.launch_server --model-path PATH%s\n", dtype, dtype);
    nb_buf_str(out, "nibble run PATH --image picture.jpg -p \"What is this?\"\n```\n\n");
    nb_buf_printf(out, "```python\n# needs %s\nfrom transformers import AutoProcessor, Qwen2VLForConditionalGeneration\n"
                       "model = Qwen2VLForConditionalGeneration.from_pretrained(\"PATH\", dtype=%s, device_map=\"auto\")\n"
                       "processor = AutoProcessor.from_pretrained(\"PATH\")\n```\n\n",
                  format == NB_FORMAT_AWQ ? "autoawq or gptqmodel" : format == NB_FORMAT_CT ? "compressed-tensors" : "gptqmodel", bf16 ? "\"bfloat16\"" : "\"auto\"");
}

static void caveats(nb_buf *out, const nb_proof *p)
{
    const nb_solver_quality q = nb_quantize_quality(p->report);
    nb_buf_str(out, "## Caveats\n\n- The figures above are of nibble's own arithmetic on the conversations above; other data and other kernels give others.\n"
                    "- vLLM, SGLang and transformers were not run when this was made.\n");
    if (!(nb_proof_largest(p) <= 65504))
        nb_buf_printf(out, "- Activations reach %.0f, beyond the 65504 of float16: serve in bfloat16, or answers become `!!!!`.\n", nb_proof_largest(p));
    if (nb_quantize_formats[p->opt->format] == NB_FORMAT_GPTQ_V2)
        nb_buf_str(out, "- The gptq_v2 format is read by GPTQModel and nibble; vLLM refuses it.\n");
    if (q.fallbacks) nb_buf_printf(out, "- %zu matrices were rounded to nearest because their factorisation failed.\n", q.fallbacks);
    for (const char *line = p->report->notes.data; line && *line; line += strcspn(line, "\n") + (line[strcspn(line, "\n")] == '\n')) {
        if (*line == '\n') continue;
        nb_buf_str(out, "- ");
        words(out, line, strcspn(line, "\n"));
        nb_buf_char(out, '\n');
    }
    nb_buf_str(out, "\nMade by nibble " NIBBLE_VERSION "; `nibble quantize --config recipe.json --out OTHER` makes it again.\n");
}

nb_status nb_proof_card(nb_buf *out, const nb_proof *p, nb_error *err)
{
    const char *name = strrchr(p->opt->out, '/');
    name = name && name[1] ? name + 1 : p->opt->out;
    front_matter(out, p);
    nb_buf_str(out, "# ");
    words(out, name, strlen(name));
    nb_buf_str(out, "\n\nA quantized form of ");
    words(out, p->card.base_model, strlen(p->card.base_model));
    nb_buf_str(out, ": ");
    settings(out, p);
    verdict(out, p);
    NB_TRY(quality(out, p, err));
    serving(out, p);
    caveats(out, p);
    return nb_buf_status(out, "README.md", err);
}
