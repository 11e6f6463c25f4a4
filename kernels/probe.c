/* probe.c - the list of probes, the memory they read, and running one on a pool. */
#include "kernels/probe.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/probe_levels.h"

enum { ITEM_BYTES = NB_PROBE_STREAMS * NB_PROBE_PIECE, HUGE_PAGE = 2 << 20 };

/* ---- the list ---------------------------------------------------------------------------------------------------------- */

#define STEPS(chains, lanes, unroll) (2.0 * (chains) * (lanes) * (unroll) * NB_PROBE_STEPS)
#define COMPUTE(what, title, where, text, lowest, operations, function) \
    { .kind = what, .name = title, .level = where, .instruction = text, .isa = lowest, .work = operations, .compute = function }
#define READ(where, text, lowest, function) \
    { .kind = NB_PROBE_READ, .name = "read memory", .level = where, .instruction = text, .isa = lowest, .work = ITEM_BYTES, .read = function }

#ifdef NIBBLE_AMX
static bool tiles_there(void)
{
    return !nb_amx_missing();
}
#endif

static const nb_probe probes[] = {
    READ("ref", "words", NB_ISA_REF, nb_ref_probe_read),
#if defined(__x86_64__)
    READ("avx2", "vmovdqu ymm", NB_ISA_AVX2, nb_avx2_probe_read),
    READ("avx512", "vmovdqu zmm", NB_ISA_AVX512, nb_avx512_probe_read),
    COMPUTE(NB_PROBE_F32, "f32 multiply-add", "avx2", "vfmadd ymm", NB_ISA_AVX2, STEPS(NB_AVX2_CHAINS, 8, NB_PROBE_UNROLL),
            nb_avx2_probe_f32),
    COMPUTE(NB_PROBE_F32, "f32 multiply-add", "avx512", "vfmadd zmm", NB_ISA_AVX512, STEPS(NB_AVX512_CHAINS, 16, NB_PROBE_UNROLL),
            nb_avx512_probe_f32),
#endif
    COMPUTE(NB_PROBE_F64, "f64 multiply, add", "ref", "scalar", NB_ISA_REF, STEPS(NB_REF_CHAINS, 1, NB_PROBE_UNROLL), nb_ref_probe_f64),
#if defined(__x86_64__)
    COMPUTE(NB_PROBE_F64, "f64 multiply-add", "avx2", "vfmadd ymm", NB_ISA_AVX2, STEPS(NB_AVX2_CHAINS, 4, NB_PROBE_UNROLL),
            nb_avx2_probe_f64),
    COMPUTE(NB_PROBE_F64, "f64 multiply-add", "avx512", "vfmadd zmm", NB_ISA_AVX512, STEPS(NB_AVX512_CHAINS, 8, NB_PROBE_UNROLL),
            nb_avx512_probe_f64),
    COMPUTE(NB_PROBE_DOT16, "16-bit pairs", "avx2", "vpmaddwd, vpaddd ymm", NB_ISA_AVX2, STEPS(NB_AVX2_CHAINS, 16, NB_PROBE_UNROLL),
            nb_avx2_probe_dot16),
    COMPUTE(NB_PROBE_DOT16, "16-bit pairs", "avx512", "vpdpwssd zmm", NB_ISA_AVX512, STEPS(NB_AVX512_CHAINS, 32, NB_PROBE_UNROLL),
            nb_avx512_probe_dot16),
    COMPUTE(NB_PROBE_DOT8, "8-bit fours", "avx512", "vpdpbusd zmm", NB_ISA_AVX512, STEPS(NB_AVX512_CHAINS, 64, NB_PROBE_UNROLL),
            nb_avx512_probe_dot8),
#endif
#ifdef NIBBLE_AMX /* 16 by 16 sums of 32 products (bf16) or 64 (int8) */
    { .kind = NB_PROBE_TILE_BF16, .name = "bf16 tiles", .level = "amx", .instruction = "tdpbf16ps", .isa = NB_ISA_LEVELS,
      .work = STEPS(NB_AMX_CHAINS, 16 * 16 * 32, 1), .there = tiles_there, .compute = nb_amx_probe_bf16 },
    { .kind = NB_PROBE_TILE_INT8, .name = "int8 tiles", .level = "amx", .instruction = "tdpbusd", .isa = NB_ISA_LEVELS,
      .work = STEPS(NB_AMX_CHAINS, 16 * 16 * 64, 1), .there = tiles_there, .compute = nb_amx_probe_int8 },
#endif
};

size_t nb_probe_count(void)
{
    return NB_COUNT(probes);
}

const nb_probe *nb_probe_at(size_t i)
{
    return &probes[i];
}

bool nb_probe_there(const nb_probe *p)
{
    return p->there ? p->there() : nb_isa_detect(p->isa) == p->isa;
}

const nb_probe *nb_probe_of(nb_probe_kind kind, nb_isa isa)
{
    const nb_probe *best = NULL;
    for (size_t i = 0; i < NB_COUNT(probes); i++)
        if (probes[i].kind == kind && probes[i].isa <= isa && nb_probe_there(&probes[i])) best = &probes[i];
    return best;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------ */

/* Word number i of the memory. */
static uint64_t random_word(uint64_t i)
{
    return nb_mix64((i + 1) * NB_RANDOM_STEP);
}

static void fill_piece(void *context, size_t item, int thread)
{
    (void)thread;
    nb_probe_memory *m = context;
    for (size_t i = 0; i < NB_PROBE_PIECE / 8; i++) {
        uint64_t word = random_word(item * (NB_PROBE_PIECE / 8) + i);
        memcpy(m->bytes + item * NB_PROBE_PIECE + 8 * i, &word, 8);
    }
}

static void fill_data(nb_probe_data *d)
{
    uint64_t next = 0;
#define UNIT() ((double)(random_word(next++) >> 11) * 0x1p-52 - 1.0) /* [-1, 1) */
    for (size_t i = 0; i < NB_COUNT(d->f32); i++) d->f32[i] = (float)(UNIT() * 0.999);
    for (size_t i = 0; i < NB_COUNT(d->f64); i++) d->f64[i] = UNIT();
    for (size_t i = 0; i < NB_COUNT(d->bf16); i++) d->bf16[i] = nb_f32_to_bf16((float)UNIT());
    for (size_t i = 0; i < NB_COUNT(d->bits); i++) d->bits[i] = (uint8_t)random_word(next++);
#undef UNIT
}

nb_status nb_probe_memory_new(nb_probe_memory **out, nb_pool *pool, size_t size, nb_error *err)
{
    *out = NULL;
    if (size && size < ITEM_BYTES)
        return nb_fail(err, NB_ERR_ARGUMENT, "memory to be read must have %d bytes at least, not %zu", ITEM_BYTES, size);
    nb_probe_memory *m = nb_calloc_aligned(1, sizeof *m);
    if (!m) return nb_fail(err, NB_ERR_MEMORY, "no memory for probes");
    fill_data(&m->data);
    m->size = size / ITEM_BYTES * ITEM_BYTES;
    if (m->size) {
        if (!nb_add(m->size, HUGE_PAGE, &m->reserved)) m->reserved = SIZE_MAX;
        void *p = mmap(NULL, m->reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) {
            free(m);
            return nb_fail(err, NB_ERR_MEMORY, "no memory to be read: %zu bytes; ask for less", size);
        }
        size_t skip = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
        if (skip) munmap(p, skip); /* what is left begins on a boundary of its pages */
        m->bytes = (uint8_t *)p + skip;
        m->reserved -= skip;
        madvise(m->bytes, m->size, MADV_HUGEPAGE); /* a wish */
        nb_parallel(pool, m->size / NB_PROBE_PIECE, fill_piece, m);
    }
    *out = m;
    return NB_OK;
}

void nb_probe_memory_free(nb_probe_memory *m)
{
    if (!m) return;
    if (m->bytes) munmap(m->bytes, m->reserved);
    free(m);
}

/* ---- running ----------------------------------------------------------------------------------------------------------- */

typedef struct {
    const nb_probe        *probe;
    const nb_probe_memory *memory;
    atomic_uint_fast64_t   all; /* what the items return, so that somebody reads it */
} call;

static void run_item(void *context, size_t item, int thread)
{
    (void)thread;
    call                  *c = context;
    const nb_probe_memory *m = c->memory;
    size_t                 stride = m->size / NB_PROBE_STREAMS;
    uint64_t               result = c->probe->read ? c->probe->read(m->bytes + item % (m->size / ITEM_BYTES) * NB_PROBE_PIECE, stride)
                                                   : c->probe->compute(&m->data, NB_PROBE_STEPS);
    atomic_fetch_xor_explicit(&c->all, result, memory_order_relaxed);
}

double nb_probe_run(const nb_probe *p, nb_pool *pool, const nb_probe_memory *m, size_t items)
{
    static atomic_uint_fast64_t somebody;
    call                        c = { .probe = p, .memory = m };
    if (p->read && !m->size) return 0;
    nb_parallel(pool, items, run_item, &c);
    atomic_fetch_xor_explicit(&somebody, c.all, memory_order_relaxed);
    return p->work * (double)items;
}
