/* args.h - one table per command: from it come the parser, the environment names, the keys of --config and the help.
 *
 * A command describes its options once, as rows of nb_arg that name a field of its options struct:
 *
 *     typedef struct { nb_common common; const char *model; int64_t samples; bool shuffle; } options;
 *
 *     static const nb_arg my_args[] = {
 *         {.name = "model", .type = NB_ARG_STRING, .at = offsetof(options, model), .positional = true, .required = true,
 *          .metavar = "MODEL", .help = "checkpoint directory"},
 *         {.name = "samples", .brief = "n", .aliases = "nsamples,num-samples", .type = NB_ARG_INT,
 *          .at = offsetof(options, samples), .metavar = "N", .text = "128", .min = 1, .max = 1e6, .help = "conversations to use", .group = "Data"},
 *         {.name = "shuffle", .type = NB_ARG_BOOL, .at = offsetof(options, shuffle), .text = "false", .help = "..."},
 *     };
 *     static const nb_arg_block blocks[] = {
 *         {my_args, NB_COUNT(my_args), 0},
 *         {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)},      // a shared block sits at its own offset
 *         {NULL, 0, 0}};
 *     const nb_command nb_command_my = {.name = "my", ..., .blocks = blocks, .options_size = sizeof(options), .run = run};
 *
 * What a user may write: --samples 128, --samples=128, --num_samples 128 ('_' is read as '-'), -n 128, -n128, --shuffle,
 * --no-shuffle, --shuffle=off; NIBBLE_SAMPLES=128; {"samples": 128} or {"my": {"samples": 128}} in --config FILE.  A flag
 * wins over the environment, that over the config's own section, that over its top level, that over the default.
 * Everything is text until the one converter of its type has seen it, so all sources obey the same rules.
 * Parsing prints nothing and never exits; every refusal is NB_ERR_ARGUMENT and names the source, the value and what was
 * expected.
 */
#ifndef NB_ARGS_H
#define NB_ARGS_H

#include "runtime/io/json.h"

typedef enum {
    NB_ARG_BOOL,    /* bool: true/false, yes/no, on/off, 1/0; as a flag without value, with --no-NAME for the opposite */
    NB_ARG_INT,     /* int64_t within [min, max]; suffix k = 1024, m = 1024^2; products: 1280*28*28 */
    NB_ARG_NUMBER,  /* double within [min, max], finite */
    NB_ARG_SIZE,    /* uint64_t bytes within [min, max]: 512, 8G = 8GiB = 8 * 2^30, 4GB = 4 * 10^9; fractions */
    NB_ARG_STRING,  /* const char * */
    NB_ARG_CHOICE,  /* int: index into .choices ("awq|gptq|rtn") */
    NB_ARG_STRINGS, /* nb_strings: every use of the flag adds one */
    NB_ARG_INTS,    /* nb_ints: 1,4,8  first-last  first-last+step  first-last*factor; every use adds */
} nb_arg_type;

typedef struct {
    const char **items;
    int          count;
} nb_strings;
typedef struct {
    int64_t *items;
    int      count;
} nb_ints;

typedef struct {
    const char *name;      /* kebab-case, without dashes */
    const char *brief;     /* short form without the dash ("n", "pg"), or NULL */
    const char *aliases;   /* other long names, comma separated; a leading '!' means the opposite of a bool ("!asym") */
    const char *metavar;   /* "N", "FILE"; NULL: the choices or the type's own word */
    const char *choices;   /* CHOICE: "a|b|c" */
    const char *text;      /* default, in the syntax of the flag; NULL: the field stays zero */
    const char *shown;     /* what the help prints as default when that is not .text ("from the checkpoint") */
    const char *help;      /* one sentence, no full stop */
    const char *group;     /* heading in the help; rows of a group need not be adjacent */
    size_t      at;        /* offsetof the field, counted from the block's struct */
    double      min, max;  /* INT, INTS, NUMBER, SIZE; both 0: anything the type holds from 0 on */
    nb_arg_type type;
    bool        positional, required;
    bool        advanced;  /* shown by --help=all only */
    bool        transient; /* about this run, not about its result: left out of nb_args_json */
} nb_arg;

typedef struct {
    const nb_arg *args; /* NULL ends the list */
    size_t        count;
    size_t        offset; /* of the block's struct in the options */
} nb_arg_block;

/* Where a value came from, weakest first. */
typedef enum { NB_FROM_DEFAULT, NB_FROM_CONFIG, NB_FROM_ENVIRONMENT, NB_FROM_FLAG } nb_arg_source;

typedef struct nb_args nb_args;

typedef struct {
    const char         *name;     /* the verb */
    const char         *summary;  /* one line without a full stop */
    const char         *usage;    /* "MODEL --out DIR [flags]" */
    const char         *about;    /* paragraphs separated by an empty line; wrapped when printed */
    const char         *examples; /* ready lines */
    const nb_arg_block *blocks;
    size_t              options_size;
    /* args: to ask where values came from; options: the filled struct.  Results to stdout by output.h. */
    nb_status         (*run)(nb_args *args, void *options, nb_error *err);
} nb_command;

/* argv[0] is the first argument after the verb.  options [command->options_size] must be zeroed; its strings and lists belong
 * to *out.  When --help or --version is among the arguments nothing else is checked and nb_args_wants tells. */
nb_status     nb_args_parse(nb_args **out, const nb_command *command, void *options, int argc, char *const *argv,
                            nb_error *err);
void          nb_args_free(nb_args *a);
nb_arg_source nb_args_source(const nb_args *a, const char *name); /* name must exist */
static inline bool nb_args_given(const nb_args *a, const char *name) { return nb_args_source(a, name) != NB_FROM_DEFAULT; }
typedef enum { NB_WANTS_RUN, NB_WANTS_HELP, NB_WANTS_HELP_ALL, NB_WANTS_VERSION } nb_args_wish;
nb_args_wish  nb_args_wants(const nb_args *a);
/* Set an option that still has its default from another file's text; where ("quant_config.json: w_bit") is for messages. */
nb_status     nb_args_suggest(nb_args *a, const char *name, const char *value, const char *where, nb_error *err);
/* The text of a choice value, in out: nb_args_choice(a, "method", word) -> "awq". */
const char   *nb_args_choice(const nb_args *a, const char *name, char out[40]);
/* All options with their present values as one JSON object that --config reads back ({"out": ..., "bits": 4, ...}); left out are
 * options that are unset, transient ones and nb_common_args. */
void          nb_args_json(const nb_args *a, nb_buf *out);
/* The same with the transient ones too, but for those in without [count]: the whole command, to be repeated. */
void          nb_args_json_all(const nb_args *a, const char *const *without, size_t count, nb_buf *out);

/* Help text of a command; all: advanced flags, aliases and environment names too. */
void nb_args_help(const nb_command *command, bool all, nb_buf *out);

/* The nearest of names by edit distance (a swap counts once), at most a third of the word's length away; or NULL. */
const char *nb_nearest(const char *word, const char *const *names, size_t count);

/* The converters, for values that come from elsewhere.  what: "--samples". */
nb_status nb_parse_int(int64_t *out, const char *text, double min, double max, const char *what, nb_error *err);
nb_status nb_parse_number(double *out, const char *text, double min, double max, const char *what, nb_error *err);
nb_status nb_parse_size(uint64_t *out, const char *text, double min, double max, const char *what, nb_error *err);
nb_status nb_parse_bool(bool *out, const char *text, const char *what, nb_error *err);
nb_status nb_parse_ints(nb_ints *list, const char *text, double min, double max, const char *what, nb_error *err); /* appends */

/* ---- options that every command has ------------------------------------------------------------------------------ */

typedef struct {
    bool verbose, quiet, json;
    int  progress; /* nb_progress_mode of progress.h */
    const char *config;
} nb_common; /* the first member of every options struct */

enum { NB_COMMON_ARGS = 5 };
extern const nb_arg nb_common_args[NB_COMMON_ARGS];

#endif
