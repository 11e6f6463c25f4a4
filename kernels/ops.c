/* ops.c - which level this machine has, and the table for it.
 *
 * The definitions (ref) are stored first and each level overrides them in ascending order, so a level that lacks an
 * operation has the next lower one's, and no caller ever asks about the CPU.
 */
#include "kernels/ops.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/cpu/cpu.h"

#if defined(__aarch64__)
static const char *const names[NB_ISA_LEVELS] = { "ref", "neon" };

static bool cpu_has(nb_isa isa)
{
    (void)isa; /* NEON is a part of the architecture */
    return true;
}

static void fill_vectors(nb_ops *ops, nb_isa isa)
{
    if (isa < NB_ISA_NEON) return;
    nb_neon_fill_matmul(ops);
    nb_neon_fill_rows(ops);
    nb_neon_fill_attention(ops);
    nb_neon_fill_gram(ops);
}

static const char *why_not(nb_isa isa)
{
    (void)isa;
    return NULL;
}
#else
static const char *const names[NB_ISA_LEVELS] = { "ref", "avx2", "avx512", "amx" };

/* The compiler's runtime asks CPUID for the instructions and XGETBV for the register state that the OS saves; a feature
 * whose registers the OS does not save is reported as missing. */
static bool cpu_has(nb_isa isa)
{
    __builtin_cpu_init();
    switch (isa) {
    case NB_ISA_AMX:
        return cpu_has(NB_ISA_AVX512) && !nb_amx_missing();
    case NB_ISA_AVX512:
        return cpu_has(NB_ISA_AVX2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vnni");
    case NB_ISA_AVX2: /* every CPU with AVX2 and FMA has F16C */
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    default:
        return true;
    }
}

static void fill_vectors(nb_ops *ops, nb_isa isa)
{
    if (isa >= NB_ISA_AVX2) {
        nb_avx2_fill_matmul(ops);
        nb_avx2_fill_rows(ops);
        nb_avx2_fill_attention(ops);
        nb_avx2_fill_gram(ops);
    }
    if (isa >= NB_ISA_AVX512) {
        nb_avx512_fill_matmul(ops);
        nb_avx512_fill_rows(ops);
        nb_avx512_fill_attention(ops);
        nb_avx512_fill_gram(ops);
    }
#ifdef NIBBLE_AMX
    if (isa >= NB_ISA_AMX) nb_amx_fill_matmul(ops);
#endif
}

/* What stands against a level, in words, where that is known. */
static const char *why_not(nb_isa isa)
{
    return isa == NB_ISA_AMX ? nb_amx_missing() : NULL;
}
#endif

nb_isa nb_isa_detect(nb_isa limit)
{
    nb_isa best = limit < NB_ISA_LEVELS ? limit : NB_ISA_LEVELS - 1;
    while (best > NB_ISA_REF && !cpu_has(best)) best--;
    return best;
}

const char *nb_isa_name(nb_isa isa)
{
    return isa < NB_ISA_LEVELS ? names[isa] : "unknown";
}

nb_status nb_isa_from_environment(nb_isa *out, nb_error *err)
{
    *out = nb_isa_detect(NB_ISA_LEVELS - 1);
    const char *want = getenv("NIBBLE_ISA");
    if (!want || !*want) return NB_OK;
    for (nb_isa isa = NB_ISA_REF; isa < NB_ISA_LEVELS; isa++) {
        if (strcmp(want, names[isa])) continue;
        if (isa > *out) {
            const char *why = why_not(isa);
            return nb_fail(err, NB_ERR_UNSUPPORTED, "NIBBLE_ISA=%s, but the best level of this machine is %s%s%s%s; unset it or "
                           "ask for that", want, names[*out], why ? " (" : "", why ? why : "", why ? ")" : "");
        }
        *out = isa;
        return NB_OK;
    }
    return nb_fail(err, NB_ERR_ARGUMENT, "NIBBLE_ISA=%s is not a level; use " NB_ISA_CHOICES, want);
}

nb_isa nb_isa_best(void)
{
    nb_isa   isa;
    nb_error ignored;
    return nb_isa_from_environment(&isa, &ignored) == NB_OK ? isa : nb_isa_detect(NB_ISA_LEVELS - 1);
}

/* ---- memory: the host's own, the same at every CPU level ------------------ */

enum { HUGE_PAGE = 1 << 21 };

static void *host_alloc(const nb_ops *ops, size_t bytes)
{
    (void)ops;
    if (bytes < 4 * (size_t)HUGE_PAGE || bytes > SIZE_MAX - HUGE_PAGE) return nb_calloc_aligned(bytes, 1);
    bytes = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *p = aligned_alloc(HUGE_PAGE, bytes);
    if (!p) return NULL;
    madvise(p, bytes, MADV_HUGEPAGE); /* fewer translations; failing advice is no failure */
    memset(p, 0, bytes);
    return p;
}

static void host_free(const nb_ops *ops, void *p)
{
    (void)ops;
    free(p);
}

static void host_copy(const nb_ops *ops, void *dst, const void *src, size_t bytes)
{
    (void)ops;
    if (bytes) memcpy(dst, src, bytes);
}

static nb_status host_status(const nb_ops *ops, nb_error *err)
{
    (void)ops;
    (void)err;
    return NB_OK; /* a CPU kernel has finished when it returns, and cannot fail */
}

/* ---- the table ------------------------------------------------------------ */

void nb_ops_init(nb_ops *ops, nb_isa isa, nb_pool *pool)
{
    assert(isa < NB_ISA_LEVELS && nb_isa_detect(isa) == isa);
    *ops = (nb_ops){ .name = names[isa], .isa = isa, .pool = pool, .alloc = host_alloc, .free = host_free,
                     .upload = host_copy, .download = host_copy, .status = host_status };
    nb_ref_fill(ops);
    fill_vectors(ops, isa);
}
