/* amx.c - may this process use the tile registers?
 *
 * Three have to agree: the processor has the instructions (CPUID), the system saves the registers at a switch of threads (XCR0),
 * and Linux grants them, which it does to a process that asks once (8 KB more for each thread that uses them).
 */
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/cpu.h"

/* CPUID leaf 7, EDX; the parts of XCR0 */
enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25, XCR0_TILES = 3 << 17 };

const char *nb_amx_lacks(uint32_t leaf7_edx, uint64_t xcr0, bool (*permitted)(void))
{
    const uint32_t needed = AMX_BF16 | AMX_TILE | AMX_INT8;
    if ((leaf7_edx & needed) != needed) return "the processor has no AMX for int8 and bf16";
    if ((xcr0 & XCR0_TILES) != XCR0_TILES) return "the system does not save the tile registers of AMX";
    if (!permitted()) return "Linux does not let this process use the tile registers of AMX";
    return NULL;
}

#if defined(__x86_64__) && defined(NIBBLE_AMX)

#include <cpuid.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ARCH_GET_XCOMP_PERM = 0x1022, ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };

/* Asked twice, Linux says yes twice.  What it granted holds for every thread of the process. */
static bool ask_linux(void)
{
    uint64_t granted = 0;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 &&
           syscall(SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &granted) == 0 && granted >> XFEATURE_XTILEDATA & 1;
}

/* Found once: CPUID costs tens of microseconds in a virtual machine.  Threads that come together find the same. */
const char *nb_amx_missing(void)
{
    static _Atomic(const char *) missing;
    static atomic_bool           known;
    if (atomic_load(&known)) return atomic_load(&missing);
    uint32_t a, b, c, d, low = 0, high = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) && c & bit_OSXSAVE) __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) d = 0;
    atomic_store(&missing, nb_amx_lacks(d, (uint64_t)high << 32 | low, ask_linux));
    atomic_store(&known, true);
    return atomic_load(&missing);
}

#else

const char *nb_amx_missing(void)
{
    return "nibble was built without it: the compiler has no -mamx-tile, -mamx-int8 and -mamx-bf16";
}

#endif
