/* pack_peak.c - how fast weights are packed: GB of packed bytes a second of CPU time, of one core.
 *
 *     pack_peak [THREADS]
 *
 * A matrix [17920, 1536] (gate and up of a 2B) in each form that a checkpoint has, the best of some rounds; "bytes" are codes one
 * by one, as the quantizer has them.  Memory for what is packed is new each time, as it is when a model is loaded.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/ops.h"

enum { ROWS = 17920, K = 1536, GROUP = 128, ROUNDS = 8 };

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    nb_error  err;
    nb_pool  *pool;
    nb_ops    ops;
    size_t    count = (size_t)ROWS * K, groups = (size_t)ROWS * (K / GROUP);
    uint8_t  *data = nb_alloc_pages(4 * count), *zeros = malloc(groups);
    float    *scales = malloc(groups * sizeof *scales);
    uint64_t  x = 1;
    const struct {
        const char *name;
        nb_weights  w;
    } forms[] = {
        { "int4, bytes", { .kind = NB_W_INT4, .codes = data } },
        { "int4, compressed-tensors", { .kind = NB_W_INT4, .order = NB_CODES_ROWS } },
        { "int4, GPTQ", { .kind = NB_W_INT4, .order = NB_CODES_INPUTS } },
        { "int4, AWQ", { .kind = NB_W_INT4, .order = NB_CODES_OUTPUTS } },
        { "int8, bytes", { .kind = NB_W_INT8, .codes = data } },
        { "int8, GPTQ", { .kind = NB_W_INT8, .order = NB_CODES_INPUTS } },
        { "bf16", { .kind = NB_W_FLOAT, .dtype = NB_BF16 } },
        { "f32", { .kind = NB_W_FLOAT, .dtype = NB_F32 } },
    };
    if (!data || !zeros || !scales) return 1;
    for (size_t i = 0; i < 4 * count; i++, x = x * 6364136223846793005u + 1442695040888963407u) data[i] = (uint8_t)(x >> 56) & 15;
    for (size_t i = 0; i < groups; i++) {
        zeros[i] = (uint8_t)(i % 16);
        scales[i] = (float)(1 + i % 1000) / 1024;
    }
    if (nb_pool_new(&pool, argc > 1 ? atoi(argv[1]) : 1, &err) != NB_OK) return 1;
    nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
    printf("| %s, %d threads | GB/s a core | GB/s |\n|---|---|---|\n", ops.name, nb_pool_threads(pool));
    for (size_t f = 0; f < NB_COUNT(forms); f++) {
        nb_weights w = forms[f].w;
        double     cpu = 1e9, wall = 1e9;
        nb_matrix  m = { 0 };
        size_t     bytes = 0;
        w.n = ROWS;
        w.k = K;
        w.data = data;
        w.group = GROUP;
        w.words = (const uint32_t *)(const void *)data;
        w.scales = scales;
        w.zeros = zeros;
        for (int r = 0; r < ROUNDS; r++) {
            double c = cpu_seconds(), s = nb_seconds();
            if (ops.pack(&ops, &m, &w, 1, &err) != NB_OK) {
                fprintf(stderr, "%s\n", err.text);
                return 1;
            }
            c = cpu_seconds() - c;
            s = nb_seconds() - s;
            cpu = c < cpu ? c : cpu;
            wall = s < wall ? s : wall;
            bytes = m.bytes;
            ops.release(&ops, &m);
        }
        printf("| %s | %.2f | %.2f |\n", forms[f].name, (double)bytes / cpu / 1e9, (double)bytes / wall / 1e9);
    }
    nb_pool_free(pool);
    free(data);
    free(zeros);
    free(scales);
    return 0;
}
