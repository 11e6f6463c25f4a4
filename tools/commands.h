/* commands.h - the verbs of the program, in the order in which `nibble --help` teaches them.  A new verb is a file
 * tools/cmd_NAME.c that defines `const nb_command nb_command_NAME`, and one line here. */
#ifndef NB_COMMANDS_H
#define NB_COMMANDS_H

#include "tools/cli/args.h"

#define NB_COMMANDS(X) \
    X(doctor)          \
    X(pull)            \
    X(inspect)         \
    X(run)             \
    X(chat)            \
    X(data)            \
    X(plan)            \
    X(quantize)        \
    X(calibrate)       \
    X(resume)          \
    X(export)          \
    X(serve)           \
    X(batch)           \
    X(verify)          \
    X(diff)            \
    X(trace)           \
    X(eval)            \
    X(bench)           \
    X(synth)

#define X(name) extern const nb_command nb_command_##name;
NB_COMMANDS(X)
#undef X

extern const nb_command *const nb_commands[];
extern const size_t            nb_command_count;

/* The whole program: argv[0] is its name.  Returns the exit code. */
int nb_program(int argc, char *const *argv);

#endif
