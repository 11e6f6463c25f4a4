/* program.h - run a command line of the program inside a test and keep what it printed. */
#ifndef NB_TEST_PROGRAM_H
#define NB_TEST_PROGRAM_H

#include <fcntl.h>

#include "runtime/io/json.h"
#include "temp_files.h"
#include "tools/commands.h"

static char printed[2][1 << 17]; /* standard output, standard error */

static int run_program(int argc, const char *const *argv)
{
    char        paths[2][160];
    const char *words[40] = {"nibble"};
    int         saved[2];
    assert_true(argc < 39);
    for (int i = 0; i < argc; i++) words[i + 1] = argv[i];
    fflush(stdout);
    fflush(stderr);
    for (int i = 0; i < 2; i++) {
        snprintf(paths[i], sizeof paths[i], "%s", write_file(i ? "stderr" : "stdout", ""));
        int file = open(paths[i], O_WRONLY | O_TRUNC);
        saved[i] = dup(i + 1);
        dup2(file, i + 1);
        close(file);
    }
    int code = nb_program(argc + 1, (char *const *)words);
    fflush(stdout);
    fflush(stderr);
    for (int i = 0; i < 2; i++) {
        dup2(saved[i], i + 1);
        close(saved[i]);
        FILE  *f = fopen(paths[i], "r");
        size_t n = fread(printed[i], 1, sizeof printed[i] - 1, f);
        printed[i][n] = 0;
        fclose(f);
    }
    return code;
}
#define RUN(...) run_program((int)NB_COUNT(((const char *const[]){__VA_ARGS__})), (const char *const[]){__VA_ARGS__})

/* RUN with the exit code that is expected; shows what was said instead. */
#define ENDS(code, ...)                                                                              \
    do {                                                                                             \
        int ends_with = RUN(__VA_ARGS__);                                                            \
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
