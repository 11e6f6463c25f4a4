/* cmd_verify.c - would a checkpoint load elsewhere?  The rules are in tools/verify; this picks them and prints what they found. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "tools/cli/output.h"
#include "tools/cli/stop.h"
#include "tools/cli/table.h"
#include "tools/commands.h"
#include "tools/verify/verify.h"

typedef struct {
    nb_common   common;
    const char *directory, *targets;
    nb_ints     tp;
    bool        deep, write_sums;
} options;

static const nb_arg verify_args[] = {
    {.name = "directory",
     .type = NB_ARG_STRING,
     .at = offsetof(options, directory),
     .positional = true,
     .required = true,
     .metavar = "DIR",
     .help = "checkpoint directory, or a directory with a GGUF pair"},
    {.name = "target",
     .type = NB_ARG_STRING,
     .at = offsetof(options, targets),
     .metavar = "NAME[,NAME...]",
     .group = "What to check",
     .shown = "all that read what the directory holds",
     .help = "loaders to check for: vllm, sglang, transformers, llama.cpp, nibble"},
    {.name = "tp",
     .aliases = "tensor-parallel-size",
     .type = NB_ARG_INTS,
     .at = offsetof(options, tp),
     .metavar = "N[,N...]",
     .text = "1",
     .min = 1,
     .max = 1024,
     .group = "What to check",
     .help = "degrees of tensor parallelism to check for vllm and sglang"},
    {.name = "deep",
     .type = NB_ARG_BOOL,
     .at = offsetof(options, deep),
     .group = "What to check",
     .help = "read the values too: finite, scales above zero and within float16, zero points, padding, the tied head"},
    {.name = "write-sums",
     .type = NB_ARG_BOOL,
     .at = offsetof(options, write_sums),
     .group = "What to check",
     .help = "write SHA256SUMS over the files instead of checking it, unless the checkpoint is broken"},
};

static const nb_arg_block blocks[] = {
    {verify_args, NB_COUNT(verify_args), 0}, {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)}, {NULL, 0, 0}};

typedef struct {
    const options *opt;
    bool           asked[NB_TARGETS];
    int            tp[16], tp_count;
    nb_findings    findings;
    char           summary[160];
    bool           failed; /* some target fails */
    size_t         sums;   /* files listed in a SHA256SUMS that was written */
} verification;

/* ---- what was asked ------------------------------------------------------------------------------------------------------ */

static bool holds(const char *directory, const char *ending)
{
    DIR *dir = opendir(directory);
    bool found = false;
    for (const struct dirent *e; dir && !found && (e = readdir(dir));) {
        size_t n = strlen(e->d_name), m = strlen(ending);
        found = n > m && e->d_name[0] != '.' && !strcmp(e->d_name + n - m, ending);
    }
    if (dir) closedir(dir);
    return found;
}

static nb_status read_targets(verification *v, nb_error *err)
{
    if (!v->opt->targets) {
        bool gguf = holds(v->opt->directory, ".gguf"), weights = holds(v->opt->directory, ".safetensors");
        v->asked[NB_FOR_LLAMACPP] = gguf;
        v->asked[NB_FOR_VLLM] = v->asked[NB_FOR_SGLANG] = v->asked[NB_FOR_TRANSFORMERS] = v->asked[NB_FOR_NIBBLE] =
            weights || !gguf;
        return NB_OK;
    }
    for (const char *at = v->opt->targets; *at;) {
        size_t n = strcspn(at, ",");
        int    found = 0;
        for (int t = NB_FOR_VLLM; t < NB_TARGETS; t++)
            if (strlen(nb_target_name((nb_target)t)) == n && !strncmp(at, nb_target_name((nb_target)t), n)) found = t;
        if (!found)
            return nb_fail(err, NB_ERR_ARGUMENT, "--target: '%.*s' is none of vllm, sglang, transformers, llama.cpp and nibble",
                           (int)n, at);
        v->asked[found] = true;
        at += n + (at[n] == ',');
    }
    return NB_OK;
}

static nb_status read_degrees(verification *v, nb_error *err)
{
    for (int i = 0; i < v->opt->tp.count; i++) {
        if (v->tp_count == (int)NB_COUNT(v->tp))
            return nb_fail(err, NB_ERR_ARGUMENT, "--tp: at most %zu degrees", NB_COUNT(v->tp));
        v->tp[v->tp_count++] = (int)v->opt->tp.items[i];
    }
    return NB_OK;
}

/* ---- checking ------------------------------------------------------------------------------------------------------------ */

static void summarize(verification *v, const nb_description *d)
{
    const nb_block *b = &d->block;
    char            group[32] = "";
    if (b->kind == NB_BLOCK_AWQ || b->kind == NB_BLOCK_GPTQ)
        snprintf(group, sizeof group, b->base.group ? ", %d bits, groups of %lld" : ", %d bits, whole rows", b->base.bits,
                 (long long)b->base.group);
    snprintf(v->summary, sizeof v->summary, "%s%s, %zu tensors in %zu file%s", b->kind == NB_BLOCK_NONE ? "float" : b->method,
             group, nb_checkpoint_count(d->checkpoint), nb_checkpoint_shards(d->checkpoint),
             nb_checkpoint_shards(d->checkpoint) == 1 ? "" : "s");
}

/* Every rule runs, whatever was asked: what is not asked about is left out of the report. */
static nb_status check_safetensors(verification *v, nb_error *err)
{
    nb_description d;
    bool           usable, stopped = false;
    nb_rules       r = {.d = &d, .tp = v->tp, .tp_count = v->tp_count, .out = &v->findings};
    NB_TRY(nb_describe(&d, v->opt->directory, &v->findings, &usable, err));
    nb_status s = NB_OK;
    if (usable) {
        summarize(v, &d);
        s = nb_rules_files(&r, err);
        if (s == NB_OK) nb_rules_shapes(&r);
        if (s == NB_OK) s = nb_rules_vllm(&r, err);
        if (s == NB_OK) s = nb_rules_sglang(&r, err);
        if (s == NB_OK) s = nb_rules_transformers(&r, err);
        if (s == NB_OK) s = nb_rules_nibble(&r, err);
        if (s == NB_OK && v->opt->deep) s = nb_rules_deep(&r, &stopped, err);
        if (s == NB_OK && stopped) s = nb_stop_status(err);
    }
    nb_description_free(&d);
    return s;
}

static nb_status check(verification *v, nb_error *err)
{
    const char *dir = v->opt->directory;
    bool        safetensors = false;
    for (int t = NB_FOR_VLLM; t < NB_TARGETS; t++) safetensors = safetensors || (v->asked[t] && t != NB_FOR_LLAMACPP);
    if (safetensors) NB_TRY(check_safetensors(v, err));
    if (v->asked[NB_FOR_LLAMACPP]) NB_TRY(nb_rules_llamacpp(dir, v->opt->deep, &v->findings, err));
    if (!v->opt->write_sums) NB_TRY(nb_sums_check(dir, &v->findings, err));
    if (v->findings.failed) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory for what was found", dir);
    if (!v->opt->write_sums) return NB_OK;
    if (nb_findings_errors(&v->findings, NB_FOR_ALL, 0))
        nb_found(&v->findings, NB_WARNING, NB_FOR_ALL, 0, "sums", "SHA256SUMS", "repair the checkpoint first",
                 "was not written, as the checkpoint is broken");
    else NB_TRY(nb_sums_write(dir, &v->sums, err));
    return NB_OK;
}

/* ---- reporting ----------------------------------------------------------------------------------------------------------- */

static bool shown(const verification *v, const nb_finding *f)
{
    return f->target == NB_FOR_ALL || v->asked[f->target];
}

/* The same but for numbers. */
static bool same_words(const char *a, const char *b)
{
    for (;; a++, b++) {
        while (*a >= '0' && *a <= '9') a++;
        while (*b >= '0' && *b <= '9') b++;
        if (*a != *b) return false;
        if (!*a) return true;
    }
}

static bool alike(const nb_finding *a, const nb_finding *b)
{
    return a->severity == b->severity && a->target == b->target && a->tp == b->tp && !strcmp(a->rule, b->rule) &&
           (!strcmp(a->where, b->where) || same_words(a->what, b->what));
}

static nb_status verdict_table(nb_table **out, verification *v, nb_error *err)
{
    static const nb_column columns[] = {{.key = "target", .title = "target"}, {.key = "tp", .title = "ranks"},
                                        {.key = "pass", .title = NULL},       {.title = "verdict"},
                                        {.key = "errors", .title = "errors"}, {.key = "warnings", .title = "warnings"}};
    NB_TRY(nb_table_new(out, columns, NB_COUNT(columns), err));
    for (int t = NB_FOR_VLLM; t < NB_TARGETS; t++) {
        bool ranks = t == NB_FOR_VLLM || t == NB_FOR_SGLANG;
        if (!v->asked[t]) continue;
        for (int i = 0; i < (ranks ? v->tp_count : 1); i++) {
            int    tp = ranks ? v->tp[i] : 0;
            size_t warnings = 0, errors = nb_findings_errors(&v->findings, (nb_target)t, tp);
            for (size_t j = 0; j < v->findings.count; j++) {
                const nb_finding *f = &v->findings.items[j];
                warnings += f->severity == NB_WARNING && (f->target == (nb_target)t || f->target == NB_FOR_ALL) &&
                            (!f->tp || f->tp == tp);
            }
            v->failed = v->failed || errors;
            nb_table_text(*out, nb_target_name((nb_target)t));
            if (ranks) nb_table_int(*out, tp);
            else nb_table_text(*out, NULL);
            nb_table_bool(*out, errors == 0);
            nb_table_text(*out, errors ? "FAIL" : "pass");
            nb_table_int(*out, (int64_t)errors);
            nb_table_int(*out, (int64_t)warnings);
        }
    }
    return NB_OK;
}

/* One row for all findings that say the same about one target, errors first; machines get every finding (json_findings). */
static nb_status finding_table(nb_table **out, const verification *v, nb_error *err)
{
    static const nb_column columns[] = {{.key = "severity", .title = "severity"}, {.key = "target", .title = "target"},
                                        {.key = "rule", .title = "rule"},         {.key = "where", .title = "where"},
                                        {.key = "what", .title = "what"},         {.key = "todo", .title = "what to do"}};
    NB_TRY(nb_table_new(out, columns, NB_COUNT(columns), err));
    for (int severity = NB_ERROR; severity >= (nb_verbose() ? NB_NOTE : NB_WARNING); severity--)
        for (size_t i = 0; i < v->findings.count; i++) {
            const nb_finding *f = &v->findings.items[i];
            size_t            before = 0, more = 0;
            char              where[300], target[40];
            if ((int)f->severity != severity || !shown(v, f)) continue;
            for (size_t j = 0; j < i && !before; j++) before += alike(f, &v->findings.items[j]);
            if (before) continue;
            for (size_t j = i + 1; j < v->findings.count; j++) more += alike(f, &v->findings.items[j]);
            if (more) snprintf(where, sizeof where, "%.250s (and %zu more)", f->where, more);
            else snprintf(where, sizeof where, "%.290s", f->where);
            snprintf(target, sizeof target, f->tp ? "%s, %d ranks" : "%s", nb_target_name(f->target), f->tp);
            nb_table_text(*out, nb_severity_name(f->severity));
            nb_table_text(*out, target);
            nb_table_text(*out, f->rule);
            nb_table_text(*out, where);
            nb_table_text(*out, f->what);
            nb_table_text(*out, f->todo);
        }
    return NB_OK;
}

static void json_report(const verification *v, const nb_table *verdicts, nb_buf *out)
{
    nb_buf  rows = {0};
    nb_emit e = nb_emit_start(out, true);
    nb_table_print(verdicts, NB_TABLE_JSON, &rows);
    nb_emit_open(&e, NULL, '{');
    nb_emit_string(&e, "path", v->opt->directory);
    nb_emit_string(&e, "summary", v->summary[0] ? v->summary : NULL);
    nb_emit_bool(&e, "pass", !v->failed);
    nb_emit_raw(&e, "targets", rows.data ? rows.data : "[]");
    nb_emit_open(&e, "findings", '[');
    for (size_t i = 0; i < v->findings.count; i++) {
        const nb_finding *f = &v->findings.items[i];
        if (!shown(v, f)) continue;
        nb_emit_open(&e, NULL, '{');
        nb_emit_string(&e, "severity", nb_severity_name(f->severity));
        nb_emit_string(&e, "target", nb_target_name(f->target));
        if (f->tp) nb_emit_int(&e, "tp", f->tp);
        nb_emit_string(&e, "rule", f->rule);
        nb_emit_string(&e, "where", f->where);
        nb_emit_string(&e, "what", f->what);
        nb_emit_string(&e, "todo", f->todo);
        nb_emit_close(&e);
    }
    nb_emit_close(&e);
    if (v->opt->write_sums) nb_emit_int(&e, "sums_written", (int64_t)v->sums);
    nb_emit_close(&e);
    if (rows.failed) out->failed = true;
    nb_buf_free(&rows);
}

static nb_status report(verification *v, nb_error *err)
{
    nb_table *verdicts = NULL, *findings = NULL;
    nb_buf    out = {0};
    nb_status s = verdict_table(&verdicts, v, err);
    if (s == NB_OK) s = finding_table(&findings, v, err);
    if (s == NB_OK && nb_json_wanted()) {
        json_report(v, verdicts, &out);
    } else if (s == NB_OK) {
        nb_buf_printf(&out, "%s%s%s\n\n", v->opt->directory, v->summary[0] ? ": " : "", v->summary);
        nb_table_print(verdicts, NB_TABLE_MD, &out);
        if (nb_table_rows(findings)) nb_buf_char(&out, '\n');
        if (nb_table_rows(findings)) nb_table_print(findings, NB_TABLE_MD, &out);
        if (v->sums) nb_buf_printf(&out, "\nSHA256SUMS lists %zu files\n", v->sums);
    }
    if (s == NB_OK) s = nb_print(&out, err);
    nb_table_free(verdicts);
    nb_table_free(findings);
    nb_buf_free(&out);
    return s;
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    const options *opt = opaque;
    verification   v = {.opt = opt};
    (void)args;
    if (!nb_is_directory(opt->directory))
        return nb_fail(err, NB_ERR_INPUT, "%s: no such directory; give a checkpoint directory", opt->directory);
    NB_TRY(read_targets(&v, err));
    NB_TRY(read_degrees(&v, err));
    nb_status s = check(&v, err);
    if (s == NB_OK) s = report(&v, err);
    nb_findings_free(&v.findings);
    return s == NB_OK && v.failed ? NB_ERR_GATE : s; /* without words: the report has them */
}

const nb_command nb_command_verify = {
    .name = "verify",
    .summary = "check that a checkpoint loads in vLLM, SGLang, transformers, llama.cpp and here",
    .usage = "DIR [--target NAME,...] [--tp N,...] [flags]",
    .about =
        "Replays the loaders' rules over config.json and the headers of the weights, without a GPU and without those loaders: "
        "names of tensors in both layouts, skip lists, fused layers, shapes, bits and groups, division over ranks and into the "
        "tiles of the "
        "fast kernels, zero points, g_idx, data types, shards and their index, tokenizer, processor and chat template. "
        "SHA256SUMS is checked where it is there.\n\n"
        "Each finding names the target, the tensor or JSON path, what is wrong and what to do. A rule that only older "
        "versions of a loader have gives a warning. The exit code is 0 when every target passes and 3 when one fails.",
    .examples = "  nibble verify my-2b-awq\n"
                "  nibble verify my-72b-gptq --target vllm --tp 1,2,4,8\n"
                "  nibble verify my-2b-awq --deep --write-sums\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
