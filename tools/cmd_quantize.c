/* cmd_quantize.c - flags to nb_quantize, its report to a page, and a recipe.json that makes the same checkpoint again.
 *
 * What a user leaves open is settled before anything runs and becomes part of the recipe, so that a recipe of today means the
 * same after a default has changed.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calib/ranks.h"
#include "runtime/io/file.h"
#include "quant/places.h"
#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/stop.h"
#include "tools/commands.h"
#include "tools/quant_config.h"
#include "tools/artifact_flag.h"
#include "tools/lora_flag.h"
#include "tools/modality_flag.h"
#include "tools/quantize_proof.h"

enum { CALIBRATION_PIXELS = 1280 * 28 * 28 }; /* at most 1280 tokens a picture, unless told otherwise */

/* The order of the choices below. */
const nb_method    nb_quantize_methods[] = {NB_METHOD_AWQ, NB_METHOD_GPTQ, NB_METHOD_RTN, NB_METHOD_AWQ_GPTQ};
const nb_format    nb_quantize_formats[] = {NB_FORMAT_AWQ, NB_FORMAT_GPTQ, NB_FORMAT_GPTQ_V2, NB_FORMAT_CT, NB_FORMAT_CT};
const nb_act_order nb_quantize_orders[] = {NB_ORDER_NONE, NB_ORDER_GROUP, NB_ORDER_FULL};
static const nb_range ranges[] = {NB_RANGE_FULL, NB_RANGE_MSE, NB_RANGE_ENERGY, NB_RANGE_BLOCK};
const int          nb_quantize_bits[] = {4, 8}, nb_quantize_vision[] = {0, 8, 4}, nb_quantize_head[] = {0, 8};
enum { PROPAGATE_QUANTIZED };
enum { LOSS_ON_ALL, LOSS_ON_ASSISTANT };

#define AT(field) .at = offsetof(nb_quantize_flags, field)
static const nb_arg quantize_args[] = {
    {.name = "model", .type = NB_ARG_STRING, AT(model), .positional = true, .required = true, .metavar = "MODEL",
     .help = "float checkpoint directory"},
    {.name = "out", .brief = "o", .aliases = "output,output-dir,work-dir,export-dir", .type = NB_ARG_STRING, AT(out),
     .metavar = "DIR", .required = true, .group = "Result",
     .help = "directory to make; it appears when it is complete"},
    {.name = "method", .aliases = "alg,quant-method", .type = NB_ARG_CHOICE, AT(method), .choices = "awq|gptq|rtn|awq+gptq",
     .text = "awq", .group = "Result",
     .help = "awq scales channels by their activations, gptq corrects each rounding error, awq+gptq does both, rtn only rounds"},
    {.name = "effort", .type = NB_ARG_INT, AT(effort), .min = 0, .max = 3, .text = "1", .group = "Result",
     .help = "how hard to look for the best codes: 0 is the textbook algorithm, 1 adds what pays most, 2 and 3 search longer; it "
             "sets what other flags leave open"},
    {.name = "bits", .aliases = "w-bit,w-bits,quant-bits,quantization-bit,export-quantization-bit",
     .type = NB_ARG_CHOICE, AT(bits), .choices = "4|8", .text = "4", .group = "Result", .help = "bits of a weight"},
    {.name = "group-size", .brief = "g", .aliases = "q-group-size,w-group-size", .type = NB_ARG_INT, AT(group),
     .min = -1, .max = 1 << 20, .text = "128", .group = "Result",
     .help = "weights that share a scale; -1 is a whole row"},
    {.name = "sym", .aliases = "symmetric,w-sym,quant-sym,!asym,!zero-point", .type = NB_ARG_BOOL, AT(sym),
     .shown = "--asym for the awq format without --method gptq, else --sym", .group = "Result",
     .help = "symmetric range without zero points; --asym is the opposite"},
    {.name = "format", .aliases = "checkpoint-format", .type = NB_ARG_CHOICE, AT(format), .choices = "awq|gptq|gptq_v2|compressed-tensors|ct",
     .text = "awq", .shown = "awq for awq, gptq otherwise, compressed-tensors where those cannot hold it", .group = "Result",
     .help = "layout of the files; vLLM, SGLang and transformers read awq, gptq and compressed-tensors (ct)"},
    {.name = "keep", .aliases = "ignore-layers", .type = NB_ARG_STRINGS, AT(keep), .metavar = "RE", .group = "Result",
     .help = "leave matrices float whose name (model.layers.0.mlp.down_proj) holds a match of RE; q, k and v go together, gate and up too"},
    {.name = "set", .type = NB_ARG_STRINGS, AT(set), .metavar = "RE=BITS[:GROUP]", .group = "Result",
     .help = "other bits, and another group size, for matrices whose name holds a match of RE; the last --set that matches counts"},
    {.name = "target-size", .type = NB_ARG_SIZE, AT(target_size), .min = 1, .max = 9e15, .group = "Result",
     .help = "size of the result: 8 bits or float go to the matrices that lose most by --bits, as far as it allows"},
    {.name = "target-bpw", .type = NB_ARG_NUMBER, AT(target_bpw), .min = 1, .max = 32, .group = "Result",
     .help = "the same for bits a weight of the decoder layers, scales included"},
    {.name = "target-kl", .type = NB_ARG_NUMBER, AT(target_kl), .min = 1e-9, .max = 100, .group = "Result",
     .help = "the same for a divergence from the original, foretold from one that is measured with plain rounding"},
    {.name = "vision", .type = NB_ARG_CHOICE, AT(vision), .choices = "keep|int8|int4", .text = "keep", .group = "Result",
     .help = "linear layers of the vision tower, rounded without calibration; needs compressed-tensors"},
    {.name = "lm-head", .type = NB_ARG_CHOICE, AT(lm_head), .choices = "keep|int8", .text = "keep", .group = "Result",
     .help = "output head; one that is tied to the embedding gets weights of its own; needs compressed-tensors"},
    {.name = "embeddings", .type = NB_ARG_CHOICE, AT(embeddings), .choices = "keep|int8", .text = "keep", .group = "Result",
     .help = "token embedding; needs compressed-tensors"},
    {.name = "shard-size", .aliases = "max-shard-size,export-size", .type = NB_ARG_SIZE, AT(shard_size), .min = 1e6,
     .max = 9e15, .text = "4GB", .group = "Result", .advanced = true, .help = "size of a file at most"},
    {.name = "force", .aliases = "overwrite", .type = NB_ARG_BOOL, AT(force), .group = "Result", .transient = true,
     .help = "replace an existing DIR, once the new one is complete"},
    {.name = "lora", .aliases = "adapter,adapters,adapter-name-or-path", .type = NB_ARG_STRINGS, AT(lora), .metavar = "DIR[:SCALE]",
     .group = "Model",
     .help = "merge a LoRA adapter (PEFT directory) into the model before anything else, without an intermediate checkpoint"},

    {.name = "quant-config", .type = NB_ARG_STRING, AT(quant_config), .metavar = "FILE|JSON", .group = "Result",
     .advanced = true, .transient = true,
     .help = "settings of AutoAWQ, AutoGPTQ, GPTQModel or compressed-tensors; flags that are given win"},

    {.name = "data", .aliases = "dataset,calib-data,calib-dataset,export-quantization-dataset", .type = NB_ARG_STRINGS,
     AT(data), .metavar = "FILE[:WEIGHT]", .group = "Calibration data",
     .help = "chats like those the model will see: OpenAI messages or sharegpt, JSON or JSON lines; of several files each gives "
             "its weight's share of --samples (1 where none is written)"},
    {.name = "builtin-data", .type = NB_ARG_BOOL, AT(builtin_data), .text = "false", .group = "Calibration data",
     .help = "calibrate on 68 chats in 22 languages that nibble carries, alone or beside --data; your own calibrate better"},
    {.name = "samples",
     .aliases = "nsamples,num-samples,max-calib-samples,num-calibration-samples,calib-samples,quant-n-samples,"
                "export-quantization-nsamples",
     .type = NB_ARG_INT, AT(samples), .min = 0, .max = 1e9, .text = "128", .group = "Calibration data",
     .help = "conversations to use at most; 0 is all"},
    {.name = "seq-len",
     .aliases = "seqlen,max-calib-seq-len,max-seq-length,calib-seqlen,max-length,export-quantization-maxlen",
     .type = NB_ARG_INT, AT(seq_len), .min = 0, .max = 1e7, .text = "4096", .group = "Calibration data",
     .help = "longer conversations are left out; 0 is no limit"},
    {.name = "shuffle", .type = NB_ARG_BOOL, AT(shuffle), .text = "false", .group = "Calibration data",
     .help = "choose conversations by --seed instead of the first ones"},
    {.name = "seed", .type = NB_ARG_INT, AT(seed), .min = 0, .max = 9e18, .text = "0", .group = "Calibration data",
     .advanced = true, .help = "of --shuffle"},
    {.name = "skip", .type = NB_ARG_INT, AT(skip), .min = 0, .max = 1e9, .text = "0", .group = "Calibration data",
     .advanced = true, .help = "conversations passed over at the beginning of each file"},
    {.name = "artifact", .type = NB_ARG_STRINGS, AT(artifact), .metavar = "DIR[,DIR...]", .group = "Calibration data",
     .help = "instead of --data: what 'nibble calibrate' kept; several are added up. AWQ is the same as with the data, GPTQ sees the "
             "inputs of the float model"},
    {.name = "modality-weights", .type = NB_ARG_STRING, AT(modality_weights), .metavar = "T:I[:V]|auto", .text = "1:1:1",
     .group = "Calibration data", .advanced = true, .help = NB_MODALITY_HELP},
    {.name = "loss-on", .type = NB_ARG_CHOICE, AT(loss_on), .choices = "all|assistant", .text = "all", .group = "Calibration data",
     .advanced = true,
     .help = "which tokens count in the statistics: all, or only those of the assistant's answers (their ends included)"},
    {.name = "data-format", .type = NB_ARG_CHOICE, AT(data_format), .choices = NB_DATA_FORMS, .text = "auto",
     .group = "Calibration data", .advanced = true, .help = "form of the rows"},
    {.name = "dataset-info", .type = NB_ARG_STRING, AT(dataset_info), .metavar = "FILE",
     .shown = "dataset_info.json beside the data", .group = "Calibration data", .advanced = true,
     .help = "column names, as for LLaMA-Factory"},

    {.name = "judge", .type = NB_ARG_BOOL, AT(judge), .text = "true", .group = "Proof",
     .help = "compare the result with the original on held-out conversations before it stands"},
    {.name = "holdout", .aliases = "gate-samples", .type = NB_ARG_STRING, AT(holdout), .metavar = "N|N%", .text = "auto",
     .shown = "32, an eighth of --data at most", .group = "Proof",
     .help = "conversations at the end of --data that calibration leaves alone and the result is judged on"},
    {.name = "holdout-data", .type = NB_ARG_STRING, AT(holdout_data), .metavar = "FILE", .group = "Proof",
     .help = "judge on the first --holdout conversations of this file instead (0: all)"},
    {.name = "gate", .type = NB_ARG_STRING, AT(gate), .metavar = "LIMITS|FILE", .text = "default", .group = "Proof",
     .help = "limits such as kl=0.02,top1=0.97,ppl=1.02,image.kl.p99=0.5 that the result must keep, or exit code 3 (it stays); "
             "default is " NB_GATE_DEFAULT ", which only damage misses; off is none"},
    {.name = "answers", .type = NB_ARG_INT, AT(answers), .min = 0, .max = 64, .text = "4", .group = "Proof",
     .help = "held-out questions that both models answer, side by side in the report"},
    {.name = "base-model", .type = NB_ARG_STRING, AT(base_model), .metavar = "NAME", .shown = "the name of the folder", .group = "Proof",
     .advanced = true, .help = "repository of MODEL, for the model card"},
    {.name = "asym-calib", .aliases = "asymmetric-calibration,gptaq,v2", .type = NB_ARG_BOOL, AT(asym_calib), .text = "false",
     .shown = "on from --effort 1", .group = "Rounding", .advanced = true,
     .help = "each matrix makes good what the quantized ones before it have lost; keeps two sets of hidden states"},
    {.name = "asym-damp", .type = NB_ARG_NUMBER, AT(asym_damp), .min = 1e-9, .max = 100, .text = "0.01", .group = "Rounding",
     .advanced = true, .help = "damping of that correction, as a share of the mean diagonal; raised where there are few tokens"},
    {.name = "range", .type = NB_ARG_CHOICE, AT(range), .choices = "full|mse|energy|block", .text = "full",
     .shown = "by --effort", .group = "Rounding", .advanced = true,
     .help = "range of a group: to its largest weight, with the least error, with the least error weighed by the inputs' energy, or "
             "by their Gram matrix within the group"},
    {.name = "mse", .type = NB_ARG_NUMBER, AT(mse), .min = 0, .max = 10, .text = "0", .shown = "2.4 for mse, 2 for energy",
     .group = "Rounding", .advanced = true, .help = "exponent of --range mse and energy; given alone it means --range mse"},
    {.name = "refine", .type = NB_ARG_INT, AT(refine), .min = 0, .max = 1000, .text = "0", .shown = "by --effort",
     .group = "Rounding", .advanced = true, .help = "sweeps of coordinate descent over codes and scales after rounding, at most"},

    {.name = "grid", .aliases = "n-grid", .type = NB_ARG_INT, AT(grid), .min = 1, .max = 1000, .text = "20",
     .group = "AWQ", .advanced = true, .help = "exponents tried for the scales"},
    {.name = "duo-scaling", .type = NB_ARG_BOOL, AT(duo), .text = "true",
     .shown = "on with --effort 0", .group = "AWQ", .advanced = true,
     .help = "also try scales that look at the weights"},
    {.name = "clip", .aliases = "apply-clip", .type = NB_ARG_BOOL, AT(clip), .text = "true", .group = "AWQ",
     .advanced = true, .help = "clamp groups where that lowers the error, as AutoAWQ does; for --range full"},

    {.name = "damp", .aliases = "damp-percent,percdamp,dampening-frac", .type = NB_ARG_NUMBER, AT(damp), .min = 1e-9,
     .max = 1, .text = "0.01", .group = "GPTQ", .advanced = true,
     .help = "damping, as a share of the mean diagonal of the Hessian"},
    {.name = "damp-max", .type = NB_ARG_NUMBER, AT(damp_max), .min = 1e-9, .max = 100, .text = "1", .group = "GPTQ",
     .advanced = true, .help = "damping is raised up to this where the factorisation fails"},
    {.name = "block", .aliases = "block-size,blocksize", .type = NB_ARG_INT, AT(block), .min = 1, .max = 65536,
     .text = "128", .group = "GPTQ", .advanced = true,
     .help = "columns that are solved between two updates of the rest"},
    {.name = "act-order", .aliases = "actorder,desc-act", .type = NB_ARG_CHOICE, AT(act_order),
     .choices = "none|group|full", .text = "none", .shown = "full with static groups, none with --effort 0", .group = "GPTQ",
     .advanced = true,
     .help = "solve important columns first: group moves whole groups and costs nothing at run time, full makes a "
             "g_idx"},
    {.name = "static-groups", .type = NB_ARG_BOOL, AT(static_groups), .text = "false", .group = "GPTQ",
     .advanced = true, .help = "take scales from the original weights; with --act-order full the g_idx stays trivial"},
    {.name = "true-sequential", .type = NB_ARG_BOOL, AT(true_sequential), .text = "true", .group = "GPTQ",
     .advanced = true, .help = "inside a layer, later matrices see the outputs of quantized earlier ones"},
    {.name = "propagate", .type = NB_ARG_CHOICE, AT(propagate), .choices = "quantized|original", .text = "quantized",
     .shown = "quantized for gptq and --asym-calib, original otherwise", .group = "GPTQ", .advanced = true,
     .help = "what the next layer's inputs come from"},

    {.name = "dry-run", .type = NB_ARG_BOOL, AT(dry_run), .group = "Resources", .transient = true,
     .help = "only say what the run would take: memory, disk, size of the result"},
    {.name = "max-ram", .aliases = "max-memory", .type = NB_ARG_SIZE, AT(max_ram), .min = 1, .max = 9e15, .group = "Resources",
     .transient = true,
     .help = "memory to stay within; calibration data goes to disk when it has to, and what cannot fit is refused at once"},
    {.name = "max-vram", .type = NB_ARG_SIZE, AT(max_vram), .min = 1, .max = 9e15, .group = "Resources", .advanced = true,
     .transient = true, .help = "memory of the GPU to stay within, with --device cuda; what cannot fit is refused at once"},
    {.name = "no-resume", .type = NB_ARG_BOOL, AT(no_resume), .group = "Resources", .transient = true,
     .help = "start anew where an interrupted run left finished layers"},
    {.name = "job", .type = NB_ARG_STRING, AT(job), .metavar = "DIR", .shown = "OUT.job", .group = "Resources", .advanced = true,
     .transient = true, .help = "folder for what an interrupted run goes on from; 'nibble resume' takes it"},
    {.name = "save-states", .type = NB_ARG_INT, AT(save_states), .min = 0, .max = 1000, .text = "4", .group = "Resources",
     .advanced = true, .transient = true,
     .help = "layers after which hidden states are saved for a resumed run; 0 is never, and then it runs all finished layers again"},
    {.name = "spool", .type = NB_ARG_STRING, AT(spool), .metavar = "DIR", .shown = "OUT.job when --max-ram asks for it",
     .group = "Resources", .advanced = true, .transient = true, .help = "keep hidden states of the calibration data there, on disk"},
    {.name = "spool-zstd", .type = NB_ARG_INT, AT(spool_zstd), .min = 1, .max = 19, .text = "3", .group = "Resources",
     .advanced = true, .transient = true, .help = "compression level of the spool"},
};
#undef AT

const nb_arg_block nb_quantize_blocks[] = {
    {quantize_args, NB_COUNT(quantize_args), 0},
    {nb_media_args, NB_MEDIA_ARGS, offsetof(nb_quantize_flags, media)},
    {nb_compute_args, NB_COMPUTE_ARGS, offsetof(nb_quantize_flags, compute)},
    {nb_common_args, NB_COMMON_ARGS, offsetof(nb_quantize_flags, common)},
    {NULL, 0, 0}};

/* ---- settling what was left open --------------------------------------------------------------------------------- */

/* What each effort means: measured in results/methods.md.  NULL: the flag's own default. */
static const struct {
    const char *flag, *gptq[4], *awq[4];
} efforts[] = {
    {"asym-calib", {"false", "true", "true", "true"}, {"false", "true", "true", "true"}},
    {"range", {"full", "energy", "block", "block"}, {"full", "block", "block", "block"}},
    {"refine", {"0", "2", "8", "50"}, {"0", "0", "8", "50"}},
    {"duo-scaling", {NULL}, {"true", "false", "true", "true"}},
    {"grid", {NULL}, {"20", "20", "20", "40"}},
};

/* Static scales are what keeps --act-order full free of a g_idx: they come with it, unless the order was asked for by name. */
static nb_status settle_order(nb_args *args, nb_quantize_flags *opt, nb_error *err)
{
    bool named = nb_args_given(args, "act-order"), dynamic = nb_args_given(args, "static-groups") && !opt->static_groups;
    if (!named && opt->effort > 0)
        NB_TRY(nb_args_suggest(args, "act-order", dynamic ? "group" : "full", "--effort", err));
    if (!named && opt->effort > 0 && !dynamic) NB_TRY(nb_args_suggest(args, "static-groups", "true", "--effort", err));
    return NB_OK;
}

static nb_status settle_effort(nb_args *args, nb_quantize_flags *opt, nb_error *err)
{
    nb_method method = nb_quantize_methods[opt->method];
    bool      gptq = method == NB_METHOD_GPTQ || method == NB_METHOD_AWQ_GPTQ, awq = method == NB_METHOD_AWQ || method == NB_METHOD_AWQ_GPTQ;
    if (method == NB_METHOD_RTN) return NB_OK;
    if (!nb_args_given(args, "range") && opt->mse > 0) NB_TRY(nb_args_suggest(args, "range", "mse", "--mse", err));
    if (gptq) NB_TRY(settle_order(args, opt, err));
    for (size_t i = 0; i < NB_COUNT(efforts); i++) {
        const char *flag = efforts[i].flag, *value = gptq ? efforts[i].gptq[opt->effort] : NULL;
        if (!value && awq) value = efforts[i].awq[opt->effort];
        bool whole = !strcmp(flag, "range") && value && !strcmp(value, "block") && (opt->group < 0 || (gptq && !opt->static_groups));
        if (value && !nb_args_given(args, flag))
            NB_TRY(nb_args_suggest(args, flag, whole ? "energy" : value, "--effort", err));
    }
    return NB_OK;
}

/* Statistics that were taken before: what they are settles what was left open. */
static nb_status settle_artifact(nb_args *args, nb_quantize_flags *opt, nb_error *err)
{
    const char  *why = "the artifact";
    nb_artifact *artifact;
    char         text[64];
    if (!opt->artifacts) return NB_OK;
    if (opt->sources.count) return nb_fail(err, NB_ERR_ARGUMENT, "--artifact holds what --data would give: give one of them");
    if (nb_quantize_methods[opt->method] == NB_METHOD_RTN)
        return nb_fail(err, NB_ERR_ARGUMENT, "--artifact: --method rtn uses no statistics");
    if (nb_quantize_methods[opt->method] == NB_METHOD_AWQ_GPTQ || opt->asym_calib)
        return nb_fail(err, NB_ERR_ARGUMENT, "awq+gptq and --asym-calib run layers again and need --data: an artifact holds what the float "
                       "model gives");
    if (opt->propagate == PROPAGATE_QUANTIZED && nb_args_given(args, "propagate"))
        return nb_fail(err, NB_ERR_ARGUMENT, "--propagate quantized runs quantized layers and needs --data: an artifact holds what the "
                       "float model gives; use --propagate original, or --data");
    if (opt->true_sequential && nb_args_given(args, "true-sequential"))
        return nb_fail(err, NB_ERR_ARGUMENT, "--true-sequential runs quantized layers and needs --data; use --no-true-sequential, or --data");
    if (!strcmp(opt->modality_weights, "auto"))
        return nb_fail(err, NB_ERR_ARGUMENT, "--modality-weights auto is measured on --data; with an artifact give numbers");
    if (!nb_args_given(args, "asym-calib")) NB_TRY(nb_args_suggest(args, "asym-calib", "false", why, err));
    if (!nb_args_given(args, "propagate")) NB_TRY(nb_args_suggest(args, "propagate", "original", why, err));
    if (!nb_args_given(args, "true-sequential")) NB_TRY(nb_args_suggest(args, "true-sequential", "false", why, err));
    NB_TRY(nb_artifact_open(&artifact, (const char *const *)opt->artifacts, opt->artifact_count, err));
    const nb_artifact_info *info = nb_artifact_about(artifact);
    nb_modality_text(text, info->weights);
    nb_status s = nb_args_given(args, "modality-weights") ? NB_OK : nb_args_suggest(args, "modality-weights", text, why, err);
    nb_artifact_close(artifact);
    return s;
}

/* Asymmetric calibration, which effort asks for, is made by one process. */
static nb_status settle_ranks(nb_args *args, nb_error *err)
{
    if (nb_ranks_count() == 1 || nb_args_given(args, "asym-calib")) return NB_OK;
    nb_note("several ranks: without asymmetric calibration");
    return nb_args_suggest(args, "asym-calib", "false", "mpirun", err);
}

/* --modality-weights auto becomes numbers, which the recipe holds.  text is what the option points to then. */
static nb_status settle_weights(nb_quantize_options *q, nb_quantize_flags *opt, char text[64], const nb_ops *ops, nb_error *err)
{
    if (!opt->auto_weights || opt->dry_run) return NB_OK;
    NB_TRY(nb_modality_auto(q->modality_weights, ops, q->model_dir, q->loras, q->lora_count, &q->data, &q->grid, err));
    nb_modality_text(text, q->modality_weights);
    opt->modality_weights = text;
    return NB_OK;
}

static nb_status settle(nb_args *args, nb_quantize_flags *opt, nb_error *err)
{
    const char *why = "the default of the method";
    if (opt->quant_config) {
        nb_buf    ignored = {0};
        nb_status s = nb_quant_config_apply(args, opt->quant_config, &ignored, err);
        if (s == NB_OK && ignored.size) nb_warn("--quant-config: nothing was made of %s", ignored.data);
        nb_buf_free(&ignored);
        if (s != NB_OK) return s;
    }
    nb_method method = nb_quantize_methods[opt->method];
    NB_TRY(settle_artifact(args, opt, err));
    NB_TRY(settle_ranks(args, err));
    NB_TRY(settle_effort(args, opt, err));
    NB_TRY(nb_modality_parse(opt->weights, &opt->auto_weights, opt->modality_weights, err));
    bool smooth = method == NB_METHOD_AWQ || method == NB_METHOD_AWQ_GPTQ, outer = opt->vision || opt->lm_head || opt->embeddings;
    bool mixed_awq = smooth && (opt->set.count > 0 || opt->target_size || opt->target_bpw > 0 || opt->target_kl > 0);
    if (!nb_args_given(args, "format"))
        NB_TRY(nb_args_suggest(args, "format", outer || mixed_awq ? "compressed-tensors" : smooth ? "awq" : "gptq", why, err));
    if (!nb_args_given(args, "sym")) {
        bool sym = method == NB_METHOD_GPTQ || nb_quantize_formats[opt->format] != NB_FORMAT_AWQ;
        NB_TRY(nb_args_suggest(args, "sym", sym ? "true" : "false", why, err));
    }
    if (!nb_args_given(args, "propagate"))
        NB_TRY(nb_args_suggest(args, "propagate", method == NB_METHOD_GPTQ || opt->asym_calib ? "quantized" : "original", why, err));
    return NB_OK;
}

/* Pictures of calibration data are limited more than those of use: the statistics of 1280 tokens say enough. */
static nb_status settle_pixels(nb_args *args, nb_quantize_flags *opt, nb_error *err)
{
    nb_processor p;
    char         text[32];
    if (!opt->sources.count || opt->media.max_pixels || nb_args_given(args, "pixels")) return NB_OK;
    NB_TRY(nb_processor_open(&p, opt->model, err));
    int64_t limit = p.max_pixels < CALIBRATION_PIXELS ? p.max_pixels : CALIBRATION_PIXELS;
    if (limit < opt->media.min_pixels) limit = opt->media.min_pixels;
    snprintf(text, sizeof text, "%lld", (long long)limit);
    if (limit < p.max_pixels)
        nb_note("pictures of the calibration data have at most %s pixels (%lld tokens); --max-pixels changes that", text,
                (long long)(limit / 784));
    return nb_args_suggest(args, "max-pixels", text, "the calibration default", err);
}

/* What no checkpoint can be: said now, not after the calibration. */
static nb_status check(const nb_quantize_flags *opt, nb_error *err)
{
    bool awq_format = nb_quantize_formats[opt->format] == NB_FORMAT_AWQ;
    if (opt->group == 0)
        return nb_fail(err, NB_ERR_ARGUMENT, "--group-size 0: a group has at least one weight; -1 is a whole row");
    if (!opt->sources.count && !opt->artifacts && nb_quantize_methods[opt->method] != NB_METHOD_RTN)
        return nb_fail(err, NB_ERR_ARGUMENT, "--data is missing: %s needs chats to calibrate on (--method rtn does not, and "
                       "--builtin-data has some)",
                       nb_quantize_methods[opt->method] == NB_METHOD_GPTQ ? "gptq" : "awq");
    NB_TRY(nb_data_sources_check(&opt->sources, opt->samples, err));
    if (awq_format && nb_quantize_bits[opt->bits] != 4)
        return nb_fail(err, NB_ERR_ARGUMENT, "the awq format holds 4 bits only; use --format gptq for %d",
                       nb_quantize_bits[opt->bits]);
    if (awq_format && nb_quantize_orders[opt->act_order] == NB_ORDER_FULL && !opt->static_groups)
        return nb_fail(err, NB_ERR_ARGUMENT,
                       "the awq format cannot hold --act-order full; use --act-order group or --static-groups");
    if (ranges[opt->range] == NB_RANGE_BLOCK && !opt->static_groups &&
        (nb_quantize_methods[opt->method] == NB_METHOD_GPTQ || nb_quantize_methods[opt->method] == NB_METHOD_AWQ_GPTQ))
        return nb_fail(err, NB_ERR_ARGUMENT, "--range block needs --static-groups: scales are found before the columns are solved");
    if (opt->asym_calib && opt->propagate != PROPAGATE_QUANTIZED)
        return nb_fail(err, NB_ERR_ARGUMENT, "--asym-calib needs --propagate quantized: it corrects what the quantized layers lose");
    if (opt->damp_max < opt->damp)
        return nb_fail(err, NB_ERR_ARGUMENT, "--damp-max %g is less than --damp %g", opt->damp_max, opt->damp);
    if (!opt->force && (nb_file_exists(opt->out) || nb_is_directory(opt->out)))
        return nb_fail(err, NB_ERR_ARGUMENT, "--out %s exists; choose another name or give --force", opt->out);
    return NB_OK;
}

static bool go_on(void *context)
{
    (void)context;
    return !nb_stop_requested();
}

static void tell(void *context, const char *line)
{
    (void)context;
    nb_note("%s", line);
}

static nb_status fill(nb_quantize_options *q, const nb_quantize_flags *opt, nb_error *err)
{
    memset(q, 0, sizeof *q);
    q->model_dir = opt->model;
    q->out_dir = opt->out;
    q->method = nb_quantize_methods[opt->method];
    q->grid = (nb_grid){.bits = nb_quantize_bits[opt->bits], .group = opt->group > 0 ? (int)opt->group : 0, .sym = opt->sym};
    q->format = nb_quantize_formats[opt->format];
    q->vision = nb_quantize_vision[opt->vision];
    q->head = nb_quantize_head[opt->lm_head];
    q->target_bytes = opt->target_size;
    q->target_bpw = opt->target_bpw;
    q->target_kl = opt->target_kl;
    q->embeddings = nb_quantize_head[opt->embeddings];
    q->awq_points = (int)opt->grid;
    q->awq_duo = opt->duo;
    q->awq_clip = opt->clip;
    q->damp = opt->damp;
    q->damp_max = opt->damp_max;
    q->block = (int)opt->block;
    q->order = nb_quantize_orders[opt->act_order];
    q->static_groups = opt->static_groups;
    q->mse = (float)opt->mse;
    q->true_sequential = opt->true_sequential;
    q->propagate_quantized = opt->propagate == PROPAGATE_QUANTIZED;
    q->asym = opt->asym_calib;
    q->asym_damp = opt->asym_damp;
    q->range = ranges[opt->range];
    q->sweeps = (int)opt->refine;
    q->data.sources = opt->sources.items;
    q->data.source_count = opt->sources.count;
    q->data.dataset = (nb_dataset_options){.form = (nb_data_form)opt->data_format, .dataset_info = opt->dataset_info,
                                           .image_root = opt->media.image_root};
    q->data.samples = (int)opt->samples;
    q->data.skip = (int)opt->skip;
    q->data.seq_len = (size_t)opt->seq_len;
    q->data.shuffle = opt->shuffle;
    q->data.seed = (uint64_t)opt->seed;
    q->data.answers_only = opt->loss_on == LOSS_ON_ASSISTANT;
    q->data.spool = opt->spool;
    q->data.spool_level = (int)opt->spool_zstd;
    q->shard_size = opt->shard_size;
    q->force = opt->force;
    q->job = true;
    q->anew = opt->no_resume;
    q->job_dir = opt->job;
    q->save_states = (int)opt->save_states;
    q->go_on = go_on;
    q->tell = tell;
    q->artifacts = (const char *const *)opt->artifacts;
    q->artifact_count = opt->artifact_count;
    memcpy(q->modality_weights, opt->weights, sizeof opt->weights);
    return nb_media_prompt_options(&q->data.prompt, &opt->media, NULL, err);
}

static nb_status write_recipe(nb_buf *out, const nb_args *args, nb_error *err)
{
    nb_buf_str(out, "{\n  \"_nibble\": \"" NIBBLE_VERSION
                    "\",\n  \"_use\": \"nibble quantize --config recipe.json --out OTHER\",\n  \"quantize\": ");
    nb_args_json(args, out);
    nb_buf_str(out, "\n}\n");
    return nb_buf_status(out, "the recipe", err);
}

/* What `nibble resume` reads: the command with everything that was settled, and the folder that its paths start from. */
static nb_status write_command(nb_buf *out, const nb_args *args, nb_error *err)
{
    static const char *const momentary[] = {"dry-run", "no-resume", "quant-config"};
    char                    *folder = getcwd(NULL, 0);
    nb_buf_str(out, "{\n  \"_nibble\": \"" NIBBLE_VERSION "\",\n  \"_folder\": ");
    if (folder) nb_buf_json_string(out, folder, strlen(folder));
    else nb_buf_str(out, "null");
    nb_buf_str(out, ",\n  \"quantize\": ");
    nb_args_json_all(args, momentary, NB_COUNT(momentary), out);
    nb_buf_str(out, "\n}\n");
    free(folder);
    return nb_buf_status(out, "the command", err);
}

/* Settle where hidden states are, before anything large is in memory.  *folder is malloc'd or NULL. */
static nb_status settle_memory(nb_plan *plan, nb_quantize_options *q, nb_proof *proof, char **folder, const nb_quantize_flags *opt,
                               const nb_session *session,
                               nb_error *err)
{
    bool   spool;
    size_t n = strlen(opt->out);
    char   text[32];
    NB_TRY(nb_places_check(q->model_dir, q->out_dir, err)); /* it says best what is wrong with them */
    nb_status made = nb_plan_make(plan, q, nb_pool_threads(session->pool), err);
    if (made == NB_ERR_INPUT && !opt->dry_run && !opt->max_ram && !opt->max_vram) { /* the run will say so, and better */
        memset(plan, 0, sizeof *plan);
        return NB_OK;
    }
    NB_TRY(made);
    if (opt->max_vram && session->ops.isa != NB_ISA_LEVELS)
        return nb_fail(err, NB_ERR_ARGUMENT, "--max-vram limits the memory of a GPU, and this run uses the CPU: give --device cuda, or "
                       "--max-ram for the memory of the host");
    if (opt->max_vram && plan->vram > opt->max_vram)
        return nb_fail(err, NB_ERR_BUDGET, "--max-vram %llu is too little: %llu bytes are needed%s", (unsigned long long)opt->max_vram,
                       (unsigned long long)plan->vram, plan->batch ? "; a smaller --seq-len needs less" : "");
    NB_TRY(nb_plan_fit(plan, opt->max_ram, &spool, err));
    if (opt->max_ram && plan->answers > opt->max_ram) {
        nb_human_bytes(text, (double)plan->answers);
        nb_note("--answers: none will be shown, a whole model takes %s", text);
        proof->answers_wanted = 0;
    }
    if (opt->max_ram) {
        nb_human_bytes(text, (double)(spool || q->data.spool ? plan->ram_spool : plan->ram));
        nb_note("memory: %s at most, of the %llu bytes of --max-ram%s", text, (unsigned long long)opt->max_ram,
                spool ? "; hidden states go to disk" : "");
    }
    if (!spool || q->data.spool) return NB_OK;
    q->data.spool = opt->job;
    if (opt->job) return NB_OK;
    while (n > 1 && opt->out[n - 1] == '/') n--;
    if (asprintf(folder, "%.*s.job", (int)n, opt->out) < 0) {
        *folder = NULL;
        return nb_fail(err, NB_ERR_MEMORY, "--spool: out of memory");
    }
    q->data.spool = *folder;
    return NB_OK;
}

/* A failed gate comes last: the report is out and the checkpoint stands. */
static nb_status gate_status(const nb_proof *p, nb_error *err)
{
    if (p->verdict != NB_FAILED) return NB_OK;
    return nb_fail(err, NB_ERR_GATE, "%s: the quality gate failed: %.500s; the checkpoint stays, marked in its report.json and README.md", p->opt->out,
                   p->why);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static bool on_progress(void *context, size_t done, size_t total, const char *what)
{
    nb_meter_update(context, done, total, what);
    return !nb_stop_requested();
}

nb_status nb_quantize_command(nb_args *args, nb_quantize_flags *opt, nb_error *err)
{
    nb_session          session = {0};
    nb_quantize_options q;
    nb_quantize_report  report = {0};
    nb_buf              recipe = {0}, command = {0};
    nb_meter            meter;
    nb_lora            *loras = NULL;
    nb_choice_rule     *rules = NULL;
    size_t              rule_count = 0;
    nb_proof            proof = {0};
    nb_plan             plan;
    char               *spool = NULL;
    char                weights[64];
    NB_TRY(nb_ranks_start(err));
    nb_output_for_rank(&opt->common, nb_ranks_mine());
    nb_status           s = nb_artifact_list(&opt->artifacts, &opt->artifact_count, &opt->artifact, err);
    if (s == NB_OK) s = nb_data_sources_add(&opt->sources, &opt->data, "--data", err);
    if (s == NB_OK && opt->builtin_data) s = nb_data_sources_add_builtin(&opt->sources, err);
    if (s == NB_OK) s = settle(args, opt, err);
    if (s == NB_OK) s = check(opt, err);
    if (s == NB_OK) s = settle_pixels(args, opt, err);
    if (s == NB_OK) s = fill(&q, opt, err);
    if (s == NB_OK) s = nb_quantize_rules(&rules, &rule_count, &opt->keep, &opt->set, err);
    if (s == NB_OK) s = nb_lora_parse(&loras, &opt->lora, err);
    if (s == NB_OK) {
        q.rules = rules;
        q.rule_count = rule_count;
        q.loras = loras;
        q.lora_count = (size_t)opt->lora.count;
    }
    if (s == NB_OK) s = nb_proof_plan(&proof, &q, opt, args, err);
    if (s == NB_OK) s = nb_session_open(&session, &opt->compute, err);
    if (s == NB_OK) s = settle_weights(&q, opt, weights, &session.ops, err);
    if (s == NB_OK) s = write_recipe(&recipe, args, err);
    if (s == NB_OK) s = write_command(&command, args, err);
    if (s == NB_OK) s = settle_memory(&plan, &q, &proof, &spool, opt, &session, err);
    if (s == NB_OK && opt->dry_run) s = nb_quantize_print_plan(&plan, q.data.spool != NULL, opt, err);
    if (s == NB_OK && !opt->dry_run && plan.fixed) s = nb_quantize_note_plan(&plan, &q, session.pool, err);
    if (s == NB_OK && !opt->dry_run) {
        q.recipe_json = proof.recipe = recipe.data;
        q.command_json = command.data;
        proof.data.spool = q.data.spool;
        mallopt(M_MMAP_THRESHOLD, 1 << 20); /* what is large goes back to the system when it is freed: a budget counts on it */
        nb_meter_start(&meter, "quantize");
        s = nb_quantize(&session.ops, &q, on_progress, &meter, &report, err);
        nb_meter_finish(&meter);
    }
    if (s == NB_OK && !opt->dry_run && nb_ranks_mine() == 0) s = nb_quantize_print_report(&report, &proof, err);
    if (s == NB_OK && !opt->dry_run && nb_ranks_mine() == 0) s = gate_status(&proof, err);
    nb_proof_free(&proof);
    nb_quantize_report_free(&report);
    nb_lora_free(loras, opt->lora.count);
    nb_quantize_free_rules(rules, rule_count);
    nb_buf_free(&recipe);
    nb_data_sources_free(&opt->sources);
    nb_buf_free(&command);
    free(spool);
    nb_artifact_list_free(opt->artifacts, opt->artifact_count);
    nb_session_close(&session);
    return s;
}

static nb_status run(nb_args *args, void *options, nb_error *err)
{
    return nb_quantize_command(args, options, err);
}

const nb_command nb_command_quantize = {
    .name = "quantize",
    .summary = "make an int4 or int8 checkpoint from a float one and chats",
    .usage = "MODEL --out DIR --data FILE [flags]",
    .about = "Calibrates on your conversations, layer by layer, and writes a checkpoint whose decoder layers are int4 "
             "or int8; the vision tower, embedding and head stay as they are, unless told otherwise. The result loads here, in vLLM, SGLang "
             "and transformers. Pictures and text are used as the model sees them, one conversation at a time, never "
             "padded.\n\n"
             "DIR appears when it is complete. A run that is interrupted, by Ctrl-C or by a power cut, leaves what it finished "
             "in DIR.partial and DIR.job, and the same command, or 'nibble resume DIR', goes on from there, to the same bytes. "
             "DIR holds a recipe.json that repeats the run.\n\n"
             "Before DIR appears, both models read conversations that calibration never saw: the last ones of --data, or "
             "--holdout-data. DIR's report.json, report.html and README.md say how far they are apart, and limits given with "
             "--gate decide the exit code.",
    .examples = "  nibble quantize Qwen2-VL-2B-Instruct --data chats.jsonl --out 2b-awq\n"
                "  nibble quantize MODEL --data sft.json --image-root images --method gptq --bits 8 --out 2b-int8\n"
                "  nibble quantize MODEL --data sft.json --gate kl=0.02,top1=0.97,ppl=1.02 --answers 8 --out 2b-proven\n"
                "  nibble quantize --config 2b-awq/recipe.json --group-size 64 --out 2b-awq-g64\n",
    .blocks = nb_quantize_blocks,
    .options_size = sizeof(nb_quantize_flags),
    .run = run,
};
