/* test_tools_cli.c - the command line: what is accepted from where, what is refused and how, the formats of tables and the
 * help of every command. */
#include "unit.h"

#include <signal.h>

#include "temp_files.h"
#include "tools/cli/args.h"
#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/stop.h"
#include "tools/cli/table.h"
#include "tools/commands.h"
#include "tools/quant_config.h"

/* ---- a command with one option of each kind ----------------------------------------------------------------------- */

typedef struct {
    nb_common   common;
    const char *model, *out, *empty;
    nb_strings  files, images;
    nb_ints     lengths;
    int64_t     samples, free;
    double      damp;
    uint64_t    shard;
    bool        clip, sym, force;
    int         method;
} options;

static const nb_arg fake_args[] = {
    {.name = "model", .type = NB_ARG_STRING, .at = offsetof(options, model), .positional = true, .required = true,
     .metavar = "MODEL", .help = "m"},
    {.name = "files", .type = NB_ARG_STRINGS, .at = offsetof(options, files), .positional = true, .metavar = "FILE",
     .help = "f"},
    {.name = "out", .brief = "o", .type = NB_ARG_STRING, .at = offsetof(options, out), .metavar = "DIR", .help = "o"},
    {.name = "samples", .brief = "n", .aliases = "nsamples,num-samples", .type = NB_ARG_INT,
     .at = offsetof(options, samples), .min = 1, .max = 1e6, .text = "128", .help = "n", .group = "Data"},
    {.name = "free", .brief = "ub", .type = NB_ARG_INT, .at = offsetof(options, free), .min = -10, .max = 9e18,
     .help = "x", .group = "Data"},
    {.name = "lengths", .brief = "p", .type = NB_ARG_INTS, .at = offsetof(options, lengths), .min = 0, .max = 1e6,
     .text = "512", .help = "l"},
    {.name = "damp", .aliases = "damp-percent", .type = NB_ARG_NUMBER, .at = offsetof(options, damp), .min = 0,
     .max = 1, .text = "0.01", .help = "d"},
    {.name = "shard-size", .type = NB_ARG_SIZE, .at = offsetof(options, shard), .text = "4GB", .help = "s"},
    {.name = "image", .type = NB_ARG_STRINGS, .at = offsetof(options, images), .help = "i"},
    {.name = "clip", .type = NB_ARG_BOOL, .at = offsetof(options, clip), .text = "true", .help = "c"},
    {.name = "sym", .aliases = "!asym", .type = NB_ARG_BOOL, .at = offsetof(options, sym), .help = "y"},
    {.name = "force", .type = NB_ARG_BOOL, .at = offsetof(options, force), .help = "f", .transient = true},
    {.name = "method", .aliases = "alg", .type = NB_ARG_CHOICE, .at = offsetof(options, method),
     .choices = "awq|gptq|rtn", .text = "awq", .help = "m"},
    {.name = "empty", .type = NB_ARG_STRING, .at = offsetof(options, empty), .help = "e", .advanced = true},
};
static const nb_arg_block fake_blocks[] = {
    {fake_args, NB_COUNT(fake_args), 0}, {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)}, {NULL, 0, 0}};
static const nb_command fake = {.name = "fake",
                                .summary = "s",
                                .usage = "MODEL",
                                .about = "a",
                                .blocks = fake_blocks,
                                .options_size = sizeof(options)};

/* One case: arguments separated by blanks, an environment setting, a config file; then a part of the options as JSON, or a part
 * of the refusal.  MODEL is given as "m" unless the arguments begin with '!'. */
typedef struct {
    const char *line, *environment, *config, *want, *refusal;
} parse_case;

static const parse_case cases[] = {
    /* defaults and spellings */
    {"", NULL, NULL, "\"samples\": 128", NULL},
    {"", NULL, NULL, "\"model\": \"m\"", NULL},
    {"", NULL, NULL, "\"clip\": true", NULL},
    {"", NULL, NULL, "\"lengths\": [512]", NULL},
    {"--samples 5", NULL, NULL, "\"samples\": 5", NULL},
    {"--samples=5", NULL, NULL, "\"samples\": 5", NULL},
    {"-n 5", NULL, NULL, "\"samples\": 5", NULL},
    {"-n5", NULL, NULL, "\"samples\": 5", NULL},
    {"-n=5", NULL, NULL, "\"samples\": 5", NULL},
    {"-ub 7", NULL, NULL, "\"free\": 7", NULL},
    {"--nsamples 5", NULL, NULL, "\"samples\": 5", NULL},
    {"--num_samples 5", NULL, NULL, "\"samples\": 5", NULL},
    {"--num-samples=5", NULL, NULL, "\"samples\": 5", NULL},
    {"--shard_size=1K", NULL, NULL, "\"shard_size\": 1024", NULL},
    {"--samples 5 --samples 6", NULL, NULL, "\"samples\": 6", NULL},
    {"--free -3", NULL, NULL, "\"free\": -3", NULL},
    {"--samples 2k", NULL, NULL, "\"samples\": 2048", NULL},
    {"--free 2M", NULL, NULL, "\"free\": 2097152", NULL},
    {"--free 1280*28*28", NULL, NULL, "\"free\": 1003520", NULL},
    /* bools */
    {"--no-clip", NULL, NULL, "\"clip\": false", NULL},
    {"--clip=off", NULL, NULL, "\"clip\": false", NULL},
    {"--no-clip=false", NULL, NULL, "\"clip\": true", NULL},
    {"--no-clip --clip", NULL, NULL, "\"clip\": true", NULL},
    {"--sym", NULL, NULL, "\"sym\": true", NULL},
    {"--asym", NULL, NULL, "\"sym\": false", NULL},
    {"--no-asym", NULL, NULL, "\"sym\": true", NULL},
    {"--sym=YES", NULL, NULL, "\"sym\": true", NULL},
    {"--sym=0", NULL, NULL, "\"sym\": false", NULL},
    /* numbers, sizes, choices */
    {"--damp 1e-2", NULL, NULL, "\"damp\": 0.01", NULL},
    {"--damp_percent .5", NULL, NULL, "\"damp\": 0.5", NULL},
    {"--shard-size 512M", NULL, NULL, "\"shard_size\": 536870912", NULL},
    {"--shard-size 8G", NULL, NULL, "\"shard_size\": 8589934592", NULL},
    {"--shard-size 8gib", NULL, NULL, "\"shard_size\": 8589934592", NULL},
    {"--shard-size 4GB", NULL, NULL, "\"shard_size\": 4000000000", NULL},
    {"--shard-size 1.5k", NULL, NULL, "\"shard_size\": 1536", NULL},
    {"--shard-size 77", NULL, NULL, "\"shard_size\": 77", NULL},
    {"--method gptq", NULL, NULL, "\"method\": \"gptq\"", NULL},
    {"--alg RTN", NULL, NULL, "\"method\": \"rtn\"", NULL},
    /* lists */
    {"-p 1,4,8", NULL, NULL, "\"lengths\": [1, 4, 8]", NULL},
    {"-p 1 -p 2,3", NULL, NULL, "\"lengths\": [1, 2, 3]", NULL},
    {"-p 2-5", NULL, NULL, "\"lengths\": [2, 3, 4, 5]", NULL},
    {"-p 0-1024+512", NULL, NULL, "\"lengths\": [0, 512, 1024]", NULL},
    {"-p 1-9*2", NULL, NULL, "\"lengths\": [1, 2, 4, 8]", NULL},
    {"-p 7,1k-3k+1k", NULL, NULL, "\"lengths\": [7, 1024, 2048, 3072]", NULL},
    {"--image a.png --image=b,c.png", NULL, NULL, "\"image\": [\"a.png\", \"b,c.png\"]", NULL},
    {"x y z", NULL, NULL, "\"files\": [\"x\", \"y\", \"z\"]", NULL},
    {"x -- --y -z", NULL, NULL, "\"files\": [\"x\", \"--y\", \"-z\"]", NULL},
    {"-", NULL, NULL, "\"files\": [\"-\"]", NULL},
    /* precedence: flag > environment > section > top level > default */
    {"", "NIBBLE_SAMPLES=7", NULL, "\"samples\": 7", NULL},
    {"--samples 5", "NIBBLE_SAMPLES=7", NULL, "\"samples\": 5", NULL},
    {"", NULL, "{\"samples\": 9}", "\"samples\": 9", NULL},
    {"", "NIBBLE_SAMPLES=7", "{\"samples\": 9}", "\"samples\": 7", NULL},
    {"-n 5", "NIBBLE_SAMPLES=7", "{\"samples\": 9}", "\"samples\": 5", NULL},
    {"", NULL, "{\"samples\": 9, \"fake\": {\"samples\": 10}}", "\"samples\": 10", NULL},
    {"", NULL, "{\"fake\": {\"samples\": 10}, \"samples\": 9}", "\"samples\": 10", NULL},
    {"", NULL, "{\"other\": {\"anything\": 1}, \"_note\": \"x\", \"samples\": 9}", "\"samples\": 9", NULL},
    {"", "NIBBLE_SHARD_SIZE=1M", NULL, "\"shard_size\": 1048576", NULL},
    {"", "NIBBLE_SAMPLES=", NULL, "\"samples\": 128", NULL},
    {"", "NIBBLE_CLIP=no", NULL, "\"clip\": false", NULL},
    {"", NULL, "{\"num_samples\": 11, \"asym\": true, \"damp\": 0.25}", "\"damp\": 0.25", NULL},
    {"", NULL, "{\"num_samples\": 11, \"asym\": true, \"damp\": 0.25}", "\"sym\": false", NULL},
    {"", NULL, "{\"image\": [\"a\", \"b\"], \"lengths\": [1, \"4-5\"]}", "\"lengths\": [1, 4, 5]", NULL},
    {"--image c", NULL, "{\"image\": [\"a\", \"b\"]}", "\"image\": [\"c\"]", NULL},
    {"-p 3", "NIBBLE_LENGTHS=1,2", NULL, "\"lengths\": [3]", NULL},
    {"", NULL, "{\"samples\": null}", "\"samples\": 128", NULL},
    {"!", NULL, "{\"model\": \"from-config\"}", "\"model\": \"from-config\"", NULL},
    {"", NULL, "{\"model\": \"from-config\"}", "\"model\": \"m\"", NULL},
    /* refusals name the source, the value and what was expected */
    {"--smaples 5", NULL, NULL, NULL, "unknown flag '--smaples'; did you mean '--samples'?"},
    {"--no-cilp", NULL, NULL, NULL, "did you mean '--no-clip'?"},
    {"--nsample 5", NULL, NULL, NULL, "did you mean '--nsamples'?"},
    {"--zzzzzzzz", NULL, NULL, NULL, "'nibble fake --help=all' lists"},
    {"--model x", NULL, NULL, NULL, "unknown flag '--model'"},
    {"--no-samples", NULL, NULL, NULL, "unknown flag"},
    {"-z", NULL, NULL, NULL, "unknown flag '-z'"},
    {"--samples", NULL, NULL, NULL, "--samples needs a value"},
    {"--out --force", NULL, NULL, NULL, "--out needs a value: DIR"},
    {"--samples 0", NULL, NULL, NULL, "--samples: '0' is not a whole number from 1 to 1000000"},
    {"-n x", NULL, NULL, NULL, "-n: 'x' is not a whole number"},
    {"--samples 5x", NULL, NULL, NULL, "'5x'"},
    {"--samples 1.5", NULL, NULL, NULL, "'1.5'"},
    {"--free 99999999999999999999", NULL, NULL, NULL, "--free"},
    {"--free 9007199254740992m", NULL, NULL, NULL, "--free"},
    {"--free 3*", NULL, NULL, NULL, "--free"},
    {"--damp nan", NULL, NULL, NULL, "--damp: 'nan' is not a number from 0 to 1"},
    {"--damp 0x1", NULL, NULL, NULL, "'0x1'"},
    {"--damp 1.01", NULL, NULL, NULL, "'1.01'"},
    {"--shard-size 4Q", NULL, NULL, NULL, "--shard-size: '4Q' is not a size such as 512M, 8G or 4GB"},
    {"--shard-size -4", NULL, NULL, NULL, "'-4' is not a size"},
    {"--shard-size 99999999T", NULL, NULL, NULL, "not a size"},
    {"--method awk", NULL, NULL, NULL, "--method: 'awk' is not one of awq, gptq, rtn"},
    {"--clip=maybe", NULL, NULL, NULL, "--clip: 'maybe' is not true or false"},
    {"-p 4-1", NULL, NULL, NULL, "'4-1' is not a list"},
    {"-p 1,", NULL, NULL, NULL, "not a list"},
    {"-p 1-9*1", NULL, NULL, NULL, "not a list"},
    {"-p 0-9*2", NULL, NULL, NULL, "not a list"},
    {"-p 0-100000", NULL, NULL, NULL, "more than 4096 values"},
    {"!", NULL, NULL, NULL, "MODEL is missing; usage: nibble fake MODEL"},
    {"", "NIBBLE_SAMPLES=many", NULL, NULL, "NIBBLE_SAMPLES: 'many'"},
    {"", NULL, "{\"smaples\": 9}", NULL, "unknown option 'smaples'; did you mean 'samples'?"},
    {"", NULL, "{\"fake\": {\"samples\": \"x\"}}", NULL, "fake.samples: 'x'"},
    {"", NULL, "{\"samples\": [1]}", NULL, "samples: a JSON array cannot"},
    {"", NULL, "{\"lengths\": [true]}", NULL, "strings and numbers only"},
    {"", NULL, "{\"config\": \"x\"}", NULL, "cannot name another one"},
    {"", NULL, "[1]", NULL, "one JSON object"},
};

static nb_status parse_line(nb_args **args, const nb_command *command, void *opt, const char *line, nb_error *err)
{
    static char copy[8][1024];
    static int  turn;
    char       *words[64], *at = copy[turn = (turn + 1) % 8], *word;
    int         n = 0;
    bool        bare = line[0] == '!';
    snprintf(at, sizeof copy[0], "%s", line + bare);
    if (!bare) words[n++] = (char *)"m";
    while ((word = strsep(&at, " ")) != NULL)
        if (*word) words[n++] = word;
    return nb_args_parse(args, command, opt, n, words, err);
}

static void test_parse_cases(void **state)
{
    (void)state;
    assert_true(NB_COUNT(cases) >= 60);
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        const parse_case *c = &cases[i];
        nb_error  err = {0};
        nb_args  *args = NULL;
        options   opt = {0};
        char      line[1024], variable[64] = "";
        snprintf(line, sizeof line, "%s%s%s", c->line, c->config ? " --config " : "",
                 c->config ? write_file("config.json", c->config) : "");
        if (c->environment) {
            snprintf(variable, sizeof variable, "%.*s", (int)strcspn(c->environment, "="), c->environment);
            setenv(variable, c->environment + strlen(variable) + 1, 1);
        }
        nb_status s = parse_line(&args, &fake, &opt, line, &err);
        if (variable[0]) unsetenv(variable);
        if (c->refusal) {
            if (s != NB_ERR_ARGUMENT || !strstr(err.text, c->refusal) || args)
                fail_msg("'%s': status %d, '%s' (expected '%s')", line, s, err.text, c->refusal);
        } else {
            nb_buf json = {0};
            if (s != NB_OK) fail_msg("'%s': %s", line, err.text);
            nb_args_json(args, &json);
            if (!strstr(json.data, c->want)) fail_msg("'%s' gives %s, expected %s", line, json.data, c->want);
            nb_buf_free(&json);
        }
        nb_args_free(args);
    }
}

static void test_sources(void **state)
{
    (void)state;
    nb_error err = {0};
    nb_args *args;
    options  opt = {0};
    setenv("NIBBLE_DAMP", "0.5", 1);
    char line[256];
    snprintf(line, sizeof line, "--samples 3 --config %s", write_file("config.json", "{\"method\": \"rtn\"}"));
    OK(parse_line(&args, &fake, &opt, line, &err), &err);
    unsetenv("NIBBLE_DAMP");
    assert_int_equal(nb_args_source(args, "samples"), NB_FROM_FLAG);
    assert_int_equal(nb_args_source(args, "damp"), NB_FROM_ENVIRONMENT);
    assert_int_equal(nb_args_source(args, "method"), NB_FROM_CONFIG);
    assert_int_equal(nb_args_source(args, "clip"), NB_FROM_DEFAULT);
    char word[40];
    assert_string_equal(nb_args_choice(args, "method", word), "rtn");
    /* a suggestion fills what was left open and nothing else */
    OK(nb_args_suggest(args, "samples", "77", "elsewhere", &err), &err);
    assert_int_equal(opt.samples, 3);
    OK(nb_args_suggest(args, "clip", "false", "elsewhere", &err), &err);
    assert_false(opt.clip);
    FAILS(nb_args_suggest(args, "out", "x", "a", &err) == NB_OK ? nb_args_suggest(args, "free", "q", "file: key", &err)
                                                                : NB_OK,
          NB_ERR_ARGUMENT, "file: key: 'q'", &err);
    nb_args_free(args);

    /* what is printed is read back to the same */
    nb_buf first = {0}, second = {0};
    options again = {0};
    memset(&opt, 0, sizeof opt);
    OK(parse_line(&args, &fake, &opt, "a b --image x\"y --damp 0.125 --method gptq --asym -p 1-3 --force", &err), &err);
    nb_args_json(args, &first);
    assert_null(strstr(first.data, "force"));
    nb_args_free(args);
    snprintf(line, sizeof line, "! --config %s", write_file("again.json", first.data));
    OK(parse_line(&args, &fake, &again, line, &err), &err);
    nb_args_json(args, &second);
    assert_string_equal(first.data, second.data);
    nb_args_free(args);
    nb_buf_free(&first);
    nb_buf_free(&second);

    static const struct {
        const char  *line;
        nb_args_wish wish;
    } wishes[] = {{"! --help", NB_WANTS_HELP}, {"--bogus -h", NB_WANTS_HELP}, {"! --help=all", NB_WANTS_HELP_ALL},
                  {"! --version", NB_WANTS_VERSION}, {"-- --help", NB_WANTS_RUN}};
    for (size_t i = 0; i < NB_COUNT(wishes); i++) {
        memset(&opt, 0, sizeof opt);
        OK(parse_line(&args, &fake, &opt, wishes[i].line, &err), &err);
        assert_int_equal(nb_args_wants(args), wishes[i].wish);
        nb_args_free(args);
    }
    memset(&opt, 0, sizeof opt);
    FAILS(parse_line(&args, &fake, &opt, "--config /nowhere/x.json", &err), NB_ERR_INPUT, "/nowhere/x.json", &err);
}

/* ---- the tables of the real commands ------------------------------------------------------------------------------ */

static void test_help_of_each_command(void **state)
{
    (void)state;
    for (size_t i = 0; i < nb_command_count; i++) {
        const nb_command *c = nb_commands[i];
        nb_buf            all = {0}, some = {0};
        nb_args_help(c, true, &all);
        nb_args_help(c, false, &some);
        assert_false(all.failed || some.failed);
        assert_non_null(strstr(some.data, c->summary));
        assert_non_null(strstr(some.data, "Usage: nibble "));
        assert_non_null(strstr(some.data, "Examples:\n"));
        assert_non_null(strstr(all.data, "Exit codes:"));
        int examples = 0;
        for (const char *e = c->examples; *e; e++) examples += *e == '\n';
        assert_in_range(examples, 2, 4);
        for (const char *line = all.data; *line;) {
            size_t n = strcspn(line, "\n");
            assert_in_range(n, 0, 130);
            line += n + (line[n] == '\n');
        }
        for (const nb_arg_block *b = c->blocks; b->args; b++)
            for (size_t k = 0; k < b->count; k++) {
                const nb_arg *a = &b->args[k];
                char          flag[80];
                assert_non_null(a->help);
                if (a->positional) continue;
                snprintf(flag, sizeof flag, "--%s", a->name);
                if (!strstr(all.data, flag)) fail_msg("%s --help=all lacks %s", c->name, flag);
                snprintf(flag, sizeof flag, "--%s ", a->name);
                char dot[80], comma[80];
                snprintf(dot, sizeof dot, " --%s\n", a->name), snprintf(comma, sizeof comma, "--%s,", a->name);
                bool shown = strstr(some.data, flag) || strstr(some.data, dot) || strstr(some.data, comma);
                if (!shown && !a->advanced) fail_msg("%s --help lacks %s", c->name, flag);
                if (a->aliases && !strstr(all.data, "Also --")) fail_msg("%s --help=all lacks aliases", c->name);
            }
        nb_buf_free(&all);
        nb_buf_free(&some);
    }
}

/* Every spelling means one option; every default passes its own converter. */
static void test_tables_are_sound(void **state)
{
    (void)state;
    for (size_t i = 0; i < nb_command_count; i++) {
        const nb_command *c = nb_commands[i];
        char   seen[256][64];
        size_t n = 0;
        for (const nb_arg_block *b = c->blocks; b->args; b++)
            for (size_t k = 0; k < b->count; k++) {
                const nb_arg *a = &b->args[k];
                assert_true(b->offset + a->at < c->options_size);
                char words[512]; /* short forms with their dash, so that -pg and --pg are two words */
                snprintf(words, sizeof words, "%s%s%s%s%s", a->name, a->brief ? ",-" : "", a->brief ? a->brief : "",
                         a->aliases ? "," : "", a->aliases ? a->aliases : "");
                for (char *at = words, *word; (word = strsep(&at, ",")) != NULL;) {
                    word += *word == '!';
                    assert_true(n < NB_COUNT(seen));
                    assert_int_equal(strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789-"), strlen(word));
                    for (size_t j = 0; j < n; j++)
                        if (strcmp(seen[j], word) == 0) fail_msg("%s: '%s' is there twice", c->name, word);
                    snprintf(seen[n++], 64, "%s", word);
                }
            }
        nb_error err = {0};
        nb_args *args;
        void    *opt = test_calloc(1, c->options_size);
        char     line[128] = "!"; /* what is required, and nothing else; of a choice the first word */
        for (size_t k = 0; k < c->blocks[0].count; k++) {
            const nb_arg *a = &c->blocks[0].args[k];
            if (!a->required) continue;
            size_t used = strlen(line);
            snprintf(line + used, sizeof line - used, " %s%s %.*s", a->positional ? "" : "--", a->positional ? "" : a->name,
                     a->choices ? (int)strcspn(a->choices, "|") : 1, a->choices ? a->choices : "m");
        }
        OK(parse_line(&args, c, opt, line, &err), &err);
        nb_args_free(args);
        test_free(opt);
    }
}

static void test_nearest(void **state)
{
    (void)state;
    static const char *const names[] = {"quantize", "run", "chat", "doctor"};
    assert_string_equal(nb_nearest("quantise", names, 4), "quantize");
    assert_string_equal(nb_nearest("qauntize", names, 4), "quantize"); /* a swap is one edit */
    assert_string_equal(nb_nearest("rnu", names, 4), "run");
    assert_null(nb_nearest("serve", names, 4));
    assert_null(nb_nearest("", names, 4));
}

/* ---- settings of other tools -------------------------------------------------------------------------------------- */

static const struct {
    const char *line, *settings, *want, *ignored, *refusal;
} settings_cases[] = {
    {"", "{\"w_bit\": 4, \"q_group_size\": 64, \"zero_point\": true, \"version\": \"GEMM\"}", "\"group_size\": 64", "",
     NULL},
    {"", "{\"w_bit\": 4, \"q_group_size\": 64, \"zero_point\": true, \"version\": \"GEMM\"}", "\"sym\": false", "", NULL},
    {"-g 32", "{\"w_bit\": 4, \"q_group_size\": 64}", "\"group_size\": 32", "", NULL},
    {"", "{\"quant_method\": \"gptq\", \"bits\": 8, \"group_size\": -1}", "\"bits\": 8", "", NULL},
    {"", "{\"quant_method\": \"gptq\", \"bits\": 8, \"group_size\": -1}", "\"group_size\": -1", "", NULL},
    {"", "{\"quant_method\": \"gptq\", \"bits\": 8}", "\"method\": \"gptq\"", "", NULL},
    {"--method awq", "{\"quant_method\": \"gptq\"}", "\"method\": \"awq\"", "", NULL},
    {"", "{\"bits\": 4, \"desc_act\": true, \"damp_percent\": 0.1}", "\"act_order\": \"full\"", "", NULL},
    {"", "{\"bits\": 4, \"desc_act\": true, \"damp_percent\": 0.1}", "\"damp\": 0.1", "", NULL},
    {"", "{\"bits\": 4, \"desc_act\": false, \"damp_percent\": 0.1}", "\"method\": \"gptq\"", "", NULL},
    {"", "{\"desc_act\": false, \"act_group_aware\": true}", "\"act_order\": \"group\"", "", NULL},
    {"", "{\"checkpoint_format\": \"gptq_v2\", \"static_groups\": true}", "\"format\": \"gptq_v2\"", "", NULL},
    {"", "{\"bits\": 4, \"dynamic\": {\"-:x\": {}}, \"lm_head\": false}", "\"bits\": 4", "dynamic, lm_head", NULL},
    {"", "{\"quantization_config\": {\"bits\": 8}, \"hidden_size\": 5}", "\"bits\": 8", "", NULL},
    {"",
     "{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", \"ignore\": [\"lm_head\"], "
     "\"config_groups\": {\"group_0\": "
     "{\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": 8, \"symmetric\": true, \"strategy\": \"group\", "
     "\"group_size\": 32, "
     "\"actorder\": \"static\"}}}}",
     "\"group_size\": 32", "ignore", NULL},
    {"",
     "{\"config_groups\": {\"group_0\": {\"weights\": {\"num_bits\": 8, \"strategy\": \"channel\", \"group_size\": "
     "null}}}}",
     "\"group_size\": -1", "", NULL},
    {"", "{\"config_groups\": {\"a\": {\"weights\": {}}, \"b\": {\"weights\": {}}}}", NULL, NULL, "one group"},
    {"", "{\"bits\": 3}", NULL, NULL, "bits: '3' is not one of 4, 8"},
    {"", "{\"bits\": 4, \"version\": \"gemv\"}", NULL, NULL, "gemv"},
    {"", "{\"bits\": 4", NULL, NULL, "--quant-config"},
    {"", "/nowhere/quantize_config.json", NULL, NULL, "/nowhere/quantize_config.json"},
};

static void test_quant_config(void **state)
{
    (void)state;
    for (size_t i = 0; i < NB_COUNT(settings_cases); i++) {
        nb_error err = {0};
        nb_args *args;
        nb_buf   ignored = {0}, json = {0};
        void    *opt = test_calloc(1, nb_command_quantize.options_size);
        char     line[128];
        snprintf(line, sizeof line, "--out x %s", settings_cases[i].line);
        OK(parse_line(&args, &nb_command_quantize, opt, line, &err), &err);
        nb_status s = nb_quant_config_apply(args, settings_cases[i].settings, &ignored, &err);
        nb_args_json(args, &json);
        if (settings_cases[i].refusal) {
            if (s == NB_OK || !strstr(err.text, settings_cases[i].refusal))
                fail_msg("%s: %d '%s'", settings_cases[i].settings, s, err.text);
        } else {
            if (s != NB_OK) fail_msg("%s: %s", settings_cases[i].settings, err.text);
            if (!strstr(json.data, settings_cases[i].want))
                fail_msg("%s gives %s", settings_cases[i].settings, json.data);
            assert_string_equal(ignored.data ? ignored.data : "", settings_cases[i].ignored);
        }
        nb_args_free(args);
        nb_buf_free(&ignored);
        nb_buf_free(&json);
        test_free(opt);
    }
}

/* ---- output ------------------------------------------------------------------------------------------------------- */

static void test_table_formats(void **state)
{
    (void)state;
    static const nb_column columns[] = {{.key = "name", .title = "name"},
                                        {.key = "n", .title = "count"},
                                        {.key = "v", .title = "value", .digits = 2},
                                        {.key = "ok", .title = "ok"},
                                        {.key = "hidden"},
                                        {.title = "shown"}};
    nb_error  err = {0};
    nb_table *t;
    OK(nb_table_new(&t, columns, NB_COUNT(columns), &err), &err);
    nb_table_text(t, "a|\"b\"\n");
    nb_table_int(t, -5);
    nb_table_number(t, 0.125);
    nb_table_bool(t, true);
    nb_table_int(t, 1);
    nb_table_text(t, "x");
    nb_table_text(t, "图");
    nb_table_int(t, 12345);
    nb_table_pair(t, "9.50 ± 1", 9.5);
    nb_table_bool(t, false);
    nb_table_json(t, "[1, \"a\"]");
    nb_table_text(t, "y");
    nb_table_text(t, NULL);
    nb_table_int(t, 0);
    nb_table_number(t, NAN);
    nb_table_bool(t, false);
    nb_table_number(t, 0.1);
    nb_table_text(t, "z");
    assert_int_equal(nb_table_rows(t), 3);
    static const char *const want[] = {
        "| name    | count |    value | ok  | shown |\n"
        "| ------- | ----: | -------: | --- | ----- |\n"
        "| a\\|\"b\"  |    -5 |     0.12 | yes | x     |\n"
        "| 图      | 12345 | 9.50 ± 1 | no  | y     |\n"
        "|         |     0 |          | no  | z     |\n",
        "\"name\",\"n\",\"v\",\"ok\",\"hidden\"\n"
        "\"a|\"\"b\"\"\n\",\"-5\",\"0.125\",\"true\",\"1\"\n"
        "\"图\",\"12345\",\"9.5\",\"false\",\"[1, \"\"a\"\"]\"\n"
        "\"\",\"0\",\"\",\"false\",\"0.10000000000000001\"\n",
        NULL,
        "{\"name\": \"a|\\\"b\\\"\\n\", \"n\": -5, \"v\": 0.125, \"ok\": true, \"hidden\": 1}\n"
        "{\"name\": \"图\", \"n\": 12345, \"v\": 9.5, \"ok\": false, \"hidden\": [1, \"a\"]}\n"
        "{\"name\": null, \"n\": 0, \"v\": null, \"ok\": false, \"hidden\": 0.1}\n",
    };
    for (int f = NB_TABLE_MD; f <= NB_TABLE_JSONL; f++) {
        nb_buf out = {0};
        nb_table_print(t, (nb_table_format)f, &out);
        assert_false(out.failed);
        if (want[f]) {
            /* 0.1 may be printed with fewer digits that read back to the same number */
            char *digits = strstr(out.data, "0.10000000000000001}");
            if (digits) memmove(digits + 3, digits + 19, strlen(digits + 19) + 1);
            assert_string_equal(out.data, want[f]);
        } else {
            cJSON *tree;
            OK(nb_json_parse(&tree, out.data, out.size, "table", &err), &err);
            assert_int_equal(cJSON_GetArraySize(tree), 3);
            assert_true(cJSON_IsNull(cJSON_GetObjectItem(cJSON_GetArrayItem(tree, 2), "v")));
            NEAR(cJSON_GetObjectItem(cJSON_GetArrayItem(tree, 1), "v")->valuedouble, 9.5, 0);
            cJSON_Delete(tree);
        }
        nb_buf_free(&out);
    }
    nb_table_free(t);

    nb_buf empty = {0};
    OK(nb_table_new(&t, columns, NB_COUNT(columns), &err), &err);
    nb_table_print(t, NB_TABLE_JSON, &empty);
    assert_string_equal(empty.data, "[]\n");
    nb_buf_free(&empty);
    nb_table_free(t);
}

static void test_emit(void **state)
{
    (void)state;
    for (int indent = 0; indent < 2; indent++) {
        nb_buf   out = {0};
        nb_emit  e = nb_emit_start(&out, indent);
        nb_error err = {0};
        cJSON   *tree;
        nb_emit_open(&e, NULL, '{');
        nb_emit_string(&e, "a", "x\"\n");
        nb_emit_string(&e, "none", NULL);
        nb_emit_open(&e, "list", '[');
        nb_emit_int(&e, NULL, INT64_C(-9007199254740993));
        nb_emit_number(&e, NULL, INFINITY);
        nb_emit_open(&e, NULL, '{');
        nb_emit_close(&e);
        nb_emit_close(&e);
        nb_emit_bool(&e, "b", true);
        nb_emit_raw(&e, "raw", "[1, 2]");
        nb_emit_close(&e);
        OK(nb_json_parse(&tree, out.data, out.size, "emit", &err), &err);
        assert_string_equal(nb_json_find(tree, "a")->valuestring, "x\"\n");
        assert_int_equal(cJSON_GetArraySize(nb_json_find(tree, "list")), 3);
        assert_int_equal(cJSON_GetArraySize(nb_json_find(tree, "raw")), 2);
        if (!indent)
            assert_string_equal(out.data, "{\"a\": \"x\\\"\\n\", \"none\": null, \"list\": [-9007199254740993, null, "
                                          "{}], \"b\": true, \"raw\": [1, 2]}\n");
        cJSON_Delete(tree);
        nb_buf_free(&out);
    }
}

static void test_numbers_for_people(void **state)
{
    (void)state;
    static const struct {
        void (*print)(char out[32], double);
        double      value;
        const char *want;
    } people[] = {{nb_human_bytes, 0, "0 B"},
                  {nb_human_bytes, 999, "999 B"},
                  {nb_human_bytes, 999.6, "1.00 kB"},
                  {nb_human_bytes, 1536, "1.54 kB"},
                  {nb_human_bytes, 4.42e9, "4.42 GB"},
                  {nb_human_bytes, 42.9e9, "42.9 GB"},
                  {nb_human_bytes, 999.6e6, "1.00 GB"},
                  {nb_human_count, 1.54e9, "1.54 B"},
                  {nb_human_count, 12, "12"},
                  {nb_human_time, 0.0123, "12 ms"},
                  {nb_human_time, 0.9996, "1.00 s"},
                  {nb_human_time, 5.5, "5.50 s"},
                  {nb_human_time, 59.6, "1 min 00 s"},
                  {nb_human_time, 125, "2 min 05 s"},
                  {nb_human_time, 3599.9, "1 h 00 min"},
                  {nb_human_time, 7384, "2 h 03 min"},
                  {nb_human_time, NAN, "?"}};
    for (size_t i = 0; i < NB_COUNT(people); i++) {
        char text[32];
        people[i].print(text, people[i].value);
        assert_string_equal(text, people[i].want);
    }
    assert_int_equal(nb_text_width("abc"), 3);
    assert_int_equal(nb_text_width("± 图e\xcc\x81"), 5);
}

static void test_progress_lines(void **state)
{
    (void)state;
    nb_meter m;
    char     line[512];
    nb_meter_start(&m, "quantize");
    m.start = 100;
    m.done = 3;
    m.total = 12;
    nb_meter_line(&m, NB_PROGRESS_PLAIN, 130, "layer 4", line, sizeof line);
    assert_string_equal(line, "quantize: 3/12 (25%), 30 s, 1 min 30 s left, layer 4");
    nb_meter_line(&m, NB_PROGRESS_JSON, 130, "layer \"4\"", line, sizeof line);
    assert_string_equal(line, "{\"event\": \"progress\", \"task\": \"quantize\", \"done\": 3, \"total\": 12, \"what\": "
                              "\"layer \\\"4\\\"\", \"elapsed_s\": 30, \"eta_s\": 90}");
    m.done = m.total = 0;
    nb_meter_line(&m, NB_PROGRESS_PLAIN, 130, NULL, line, sizeof line);
    assert_string_equal(line, "quantize: 0, 30 s");
}

static void test_stop(void **state)
{
    (void)state;
    nb_error err = {0};
    nb_stop_install();
    nb_stop_reset();
    assert_false(nb_stop_requested());
    OK(nb_stop_status(&err), &err);
    raise(SIGTERM);
    assert_true(nb_stop_requested());
    FAILS(nb_stop_status(&err), NB_ERR_STOPPED, "SIGTERM", &err);
    nb_stop_reset();
    raise(SIGINT);
    FAILS(nb_stop_status(&err), NB_ERR_STOPPED, "SIGINT", &err);
    nb_stop_reset();
    assert_false(nb_stop_requested());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_cases), cmocka_unit_test(test_sources), cmocka_unit_test(test_help_of_each_command),
        cmocka_unit_test(test_tables_are_sound), cmocka_unit_test(test_nearest), cmocka_unit_test(test_quant_config),
        cmocka_unit_test(test_table_formats), cmocka_unit_test(test_emit), cmocka_unit_test(test_numbers_for_people),
        cmocka_unit_test(test_progress_lines), cmocka_unit_test(test_stop),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
