/* whole_program.h - the whole program, run in this process with its standard streams on files. */
#ifndef NB_WHOLE_PROGRAM_H
#define NB_WHOLE_PROGRAM_H

#include "temp_files.h"

#include <fcntl.h>
#include <stdio_ext.h>

#include "tools/commands.h"

/* Run the whole program with standard streams on files; what it printed is in printed[0] (stdout) and printed[1] (stderr). */
static char printed[2][1 << 16];

static int program(const char *input, int argc, const char *const *argv)
{
    char        paths[2][160];
    const char *words[32] = {"nibble"};
    int         saved[3], files[3];
    for (int i = 0; i < argc; i++) words[i + 1] = argv[i];
    snprintf(paths[0], sizeof paths[0], "%s", write_file("stdout", ""));
    snprintf(paths[1], sizeof paths[1], "%s", write_file("stderr", ""));
    fflush(stdout);
    fflush(stderr);
    files[0] = open(write_file("stdin", input ? input : ""), O_RDONLY);
    files[1] = open(paths[0], O_WRONLY | O_TRUNC);
    files[2] = open(paths[1], O_WRONLY | O_TRUNC);
    for (int i = 0; i < 3; i++) {
        saved[i] = dup(i);
        dup2(files[i], i);
        close(files[i]);
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
        FILE  *f = fopen(paths[i], "r");
        size_t n = fread(printed[i], 1, sizeof printed[i] - 1, f);
        printed[i][n] = 0;
        fclose(f);
    }
    return code;
}
#define PROGRAM(input, ...)                                                                                              \
    program(input, (int)NB_COUNT(((const char *const[]){__VA_ARGS__})), (const char *const[]){__VA_ARGS__})

static void holds(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("'%s' does not hold '%s'", text, part);
}

#endif
