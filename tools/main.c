/* main.c - nothing but the door: everything else is in a library, where tests reach it. */
#include "tools/commands.h"

int main(int argc, char **argv)
{
    return nb_program(argc, argv);
}
