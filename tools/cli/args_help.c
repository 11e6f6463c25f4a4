/* args_help.c - the help of a command, laid out from its table: usage, what it does, flags by group, examples. */
#include <string.h>
#include <strings.h>

#include "tools/cli/args.h"

enum { WIDTH = 100, HELP_COLUMN = 32 };

/* Words of text between columns `indent` and WIDTH; the cursor already stands at `column`.  Ends with a newline. */
static void wrap(nb_buf *out, const char *text, int indent, int column)
{
    while (*text) {
        size_t n = strcspn(text, " \n");
        bool   start = column <= indent;
        if (!start && column + 1 + (int)n > WIDTH) {
            nb_buf_printf(out, "\n%*s", indent, "");
            column = indent;
            start = true;
        }
        if (!start) nb_buf_char(out, ' '), column++;
        nb_buf_add(out, text, n);
        column += (int)n;
        text += n;
        if (text[0] == '\n' && text[1] == '\n') { /* a paragraph ends */
            nb_buf_printf(out, "\n\n%*s", indent, "");
            column = indent;
        }
        text += strspn(text, " \n");
    }
    nb_buf_char(out, '\n');
}

static const char *value_word(const nb_arg *arg)
{
    if (arg->metavar) return arg->metavar;
    switch (arg->type) {
    case NB_ARG_BOOL: return "";
    case NB_ARG_INT: return "N";
    case NB_ARG_NUMBER: return "X";
    case NB_ARG_SIZE: return "SIZE";
    case NB_ARG_CHOICE: return arg->choices;
    case NB_ARG_STRING:
    case NB_ARG_STRINGS: return "TEXT";
    case NB_ARG_INTS: return "N,...";
    }
    return "";
}

static void add_aliases(nb_buf *line, const nb_arg *arg)
{
    const char *lead = " Also ";
    for (const char *c = arg->aliases; c && *c;) {
        size_t n = strcspn(c, ",");
        bool   opposite = *c == '!';
        nb_buf_printf(line, "%s--%.*s%s", lead, (int)(n - opposite), c + opposite, opposite ? " (the opposite)" : "");
        lead = ", ";
        c += n + (c[n] == ',');
    }
    if (arg->aliases) nb_buf_char(line, '.');
}

static void option(nb_buf *out, const nb_arg *arg, bool all)
{
    nb_buf      left = {0}, help = {0};
    const char *word = value_word(arg);
    if (arg->positional) {
        nb_buf_printf(&left, "  %s", word);
    } else {
        nb_buf_str(&left, "  ");
        if (arg->brief) nb_buf_printf(&left, "-%s, ", arg->brief);
        nb_buf_printf(&left, "--%s", arg->name);
        /* the opposite is worth showing where the option is on, or decided elsewhere, by default */
        if (arg->type == NB_ARG_BOOL && (arg->shown || (arg->text && strcmp(arg->text, "true") == 0)))
            nb_buf_printf(&left, ", --no-%s", arg->name);
        if (*word) nb_buf_printf(&left, " %s", word);
    }
    nb_buf_str(&help, arg->help);
    if (arg->type == NB_ARG_STRINGS && !arg->positional) nb_buf_str(&help, "; may be repeated");
    if (arg->required && !arg->positional) nb_buf_str(&help, " (required)");
    else if (arg->shown) nb_buf_printf(&help, " (default: %s)", arg->shown);
    else if (arg->text && !(arg->type == NB_ARG_BOOL && strcasecmp(arg->text, "false") == 0))
        nb_buf_printf(&help, " (default: %s)", arg->text);
    nb_buf_char(&help, '.');
    if (all) add_aliases(&help, arg);

    if (!left.failed && !help.failed) {
        nb_buf_str(out, left.data);
        if (left.size + 2 > HELP_COLUMN)
            nb_buf_printf(out, "\n%*s", HELP_COLUMN, "");
        else
            nb_buf_printf(out, "%*s", HELP_COLUMN - (int)left.size, "");
        wrap(out, help.data, HELP_COLUMN, HELP_COLUMN);
    } else {
        out->failed = true;
    }
    nb_buf_free(&left);
    nb_buf_free(&help);
}

static const char *group_of(const nb_arg *arg)
{
    return arg->group ? arg->group : arg->positional ? "Arguments" : "Options";
}

/* All options of one group, under its heading, from whichever block they come. */
static void group(nb_buf *out, const nb_command *command, const char *name, bool all)
{
    bool headed = false;
    for (const nb_arg_block *b = command->blocks; b->args; b++)
        for (size_t i = 0; i < b->count; i++) {
            const nb_arg *arg = &b->args[i];
            if (strcmp(group_of(arg), name) != 0 || (arg->advanced && !all)) continue;
            if (!headed) nb_buf_printf(out, "\n%s:\n", name);
            headed = true;
            option(out, arg, all);
        }
}

static bool seen_before(const nb_command *command, const nb_arg *stop)
{
    for (const nb_arg_block *b = command->blocks; b->args; b++)
        for (size_t i = 0; i < b->count; i++) {
            if (&b->args[i] == stop) return false;
            if (strcmp(group_of(&b->args[i]), group_of(stop)) == 0) return true;
        }
    return false;
}

void nb_args_help(const nb_command *command, bool all, nb_buf *out)
{
    nb_buf_printf(out, "nibble %s - %s\n\nUsage: nibble %s %s\n\n", command->name, command->summary, command->name,
                  command->usage);
    wrap(out, command->about, 0, 0);
    for (const nb_arg_block *b = command->blocks; b->args; b++)
        for (size_t i = 0; i < b->count; i++)
            if (!seen_before(command, &b->args[i])) group(out, command, group_of(&b->args[i]), all);
    nb_buf_str(out, "  -h, --help");
    nb_buf_printf(out, "%*s", HELP_COLUMN - 12, "");
    nb_buf_str(out, "this text; --help=all shows every flag and its other spellings.\n");
    if (all) {
        nb_buf_str(out, "\nOther ways to set a flag:\n  ");
        wrap(out,
             "Every flag is also an environment variable (--group-size: NIBBLE_GROUP_SIZE) and a key of --config FILE "
             "(\"group_size\", at the top level or inside an object named after the command). A flag wins over the environment, that over the config "
             "file, that over the default. Underscores may stand for dashes. Counts take k (1024) and m; sizes take K, M, G, T "
             "(powers of 1024) or KB, MB, GB, TB (powers of 1000).",
             2, 2);
        nb_buf_str(out, "\nExit codes:\n"
                        "  0 done, 1 failed, 2 wrong use, 3 quality gate failed, 4 does not fit the memory or disk, 5 bad input,\n"
                        "  6 differences found, 7 stopped by SIGTERM, 130 stopped by Ctrl-C\n");
    }
    if (command->examples) nb_buf_printf(out, "\nExamples:\n%s", command->examples);
}
