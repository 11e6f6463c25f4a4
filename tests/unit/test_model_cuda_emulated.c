/* test_model_cuda_emulated.c - the golden model through the CUDA kernels, compiled for the CPU: pictures and hidden states of
 * the golden prompts that have them must agree with transformers as they do at every CPU level (1e-4 relative RMS).
 *
 * The checks are those of test_model_golden.c, which asks nb_ops_init for a level; here it is given the emulated table. */
#include "levels_cuda.h"

static nb_ops emulated; /* one for all models: they copy the table and share its state */

#define nb_ops_init(ops, isa, pool) ((void)(isa), *(ops) = emulated)
#define main golden_main
#include "test_model_golden.c"
#undef main

static void test_emulated(void **state)
{
    (void)state;
    nb_error err;
    setenv("NIBBLE_EMULATE", "", 1);
    emulated = emulated_ops(pool);
    double start = nb_seconds();
    check_level(NB_ISA_REF);
    OK(emulated.status(&emulated, &err), &err);
    fprintf(stderr, "golden hidden states through the emulated GPU kernels: %.1f s\n", nb_seconds() - start);
    nb_cuda_ops_free(&emulated);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_emulated) };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
