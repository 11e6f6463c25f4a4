/* program.h - the whole program, run in this process with its standard streams on files. */
#ifndef NB_TEST_PROGRAM_H
#define NB_TEST_PROGRAM_H

#include "unit.h"

#include <stdio_ext.h>

#include "runtime/io/json.h"
#include "tools/commands.h"

static char printed[2][1 << 20]; /* standard output and standard error of the last run */

/* The exit code of `nibble ARGV...`; input, when it is not NULL, is its standard input. */
static int run_program(const char *input, int argc, const char *const *argv)
{
    const char *words[40] = {"nibble"};
    FILE       *files[3];
    int         saved[3];
    assert_true(argc < (int)NB_COUNT(words));
    for (int i = 0; i < argc; i++) words[i + 1] = argv[i];
    for (int i = 0; i < 3; i++) assert_non_null(files[i] = tmpfile());
    fputs(input ? input : "", files[0]);
    rewind(files[0]);
    fflush(stdout);
    fflush(stderr);
    for (int i = 0; i < 3; i++) {
        saved[i] = dup(i);
        dup2(fileno(files[i]), i);
    }
    clearerr(stdin);
    __fpurge(stdin); /* what an earlier run left unread */
    int code = nb_program(argc + 1, (char *const *)words);
    fflush(stdout);
    fflush(stderr);
    for (int i = 0; i < 3; i++) {
        dup2(saved[i], i);
        close(saved[i]);
    }
    for (int i = 0; i < 2; i++) {
        rewind(files[i + 1]);
        printed[i][fread(printed[i], 1, sizeof printed[i] - 1, files[i + 1])] = 0;
    }
    for (int i = 0; i < 3; i++) fclose(files[i]);
    return code;
}
#define PROGRAM(input, ...)                                                                                                  \
    run_program(input, (int)NB_COUNT(((const char *const[]){__VA_ARGS__})), (const char *const[]){__VA_ARGS__})
#define RUN(...) PROGRAM(NULL, __VA_ARGS__)

/* RUN with the exit code that is expected; shows what was said instead. */
#define ENDS(code, ...)                                                                                  \
    do {                                                                                                 \
        int ends_with = RUN(__VA_ARGS__);                                                                \
        if (ends_with != (code)) fail_msg("exit code %d, expected %d: %s", ends_with, code, printed[1]); \
    } while (0)

static inline void holds(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("'%s' does not hold '%s'", text, part);
}

static inline void lacks(const char *text, const char *part)
{
    if (strstr(text, part)) fail_msg("'%s' holds '%s'", text, part);
}

/* What was printed, as JSON. */
static inline cJSON *printed_json(void)
{
    cJSON   *tree;
    nb_error err;
    OK(nb_json_parse(&tree, printed[0], strlen(printed[0]), "what was printed", &err), &err);
    return tree;
}

#endif
