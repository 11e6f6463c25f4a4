/* tiles_trapped.h - runs the machine code of the amx level on a processor without AMX: its tile instructions are undefined there, the
 * signal that follows is caught, and the instruction is done by tiles_emulated.h.  So the compiler's own order of stores and tile
 * loads is tested, which a second build cannot do.  On the calling thread alone: workers of a pool take no signals. */
#ifndef NB_TILES_TRAPPED_H
#define NB_TILES_TRAPPED_H

#include <signal.h>
#include <ucontext.h>

#include "kernels/cpu/tiles_emulated.h"

static nb_tiles trapped_tiles; /* of the one thread */

static long long trapped_register(const ucontext_t *u, int number)
{
    static const int order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                   REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
    return u->uc_mcontext.gregs[order[number]];
}

/* A memory operand: its address without the index, the index times its scale, and the bytes from ModRM to its end. */
typedef struct {
    uint8_t  *base;
    ptrdiff_t stride;
    int       length;
} trapped_operand;

static trapped_operand trapped_memory(const ucontext_t *u, const uint8_t *modrm, bool x, bool b)
{
    int             mode = modrm[0] >> 6, base = modrm[0] & 7;
    trapped_operand o = { .length = 1 };
    long long       address = 0;
    bool            nothing = mode == 0 && base == 5; /* relative to the next instruction, which begins behind the displacement */
    if (base == 4) {
        int sib = modrm[o.length++], index = (sib >> 3 & 7) | x << 3;
        base = sib & 7;
        if (index != 4) o.stride = trapped_register(u, index) * (1 << (sib >> 6));
        if (mode == 0 && base == 5) nb_tiles_fault("trap", "an address without a base");
    }
    if (!nothing) address = trapped_register(u, base | b << 3);
    if (mode == 1) address += (int8_t)modrm[o.length++];
    if (mode == 2 || nothing) {
        int32_t far;
        memcpy(&far, modrm + o.length, 4);
        o.length += 4;
        address += far;
    }
    if (nothing) address += (long long)(uintptr_t)(modrm + o.length);
    o.base = (uint8_t *)(uintptr_t)address;
    return o;
}

/* VEX.128, map 0F38, W0: C4, then R X B m-mmmm, then W vvvv L pp (R X B vvvv inverted), opcode, ModRM. */
static void trap(int number, siginfo_t *info, void *context)
{
    (void)info;
    ucontext_t    *u = context;
    const uint8_t *i = (const uint8_t *)(uintptr_t)u->uc_mcontext.gregs[REG_RIP];
    enum { NONE, P66, PF3, PF2 };
    if (i[0] != 0xc4 || (i[1] & 0x1f) != 2 || i[2] & 0x84) {
        signal(number, SIG_DFL); /* somebody else's: it happens again */
        return;
    }
    bool      x = !(i[1] & 0x40), b = !(i[1] & 0x20);
    int       prefix = i[2] & 3, third = ~i[2] >> 3 & 15, opcode = i[3], reg = i[4] >> 3 & 7, rm = i[4] & 7, length = 5;
    bool      registers = i[4] >> 6 == 3;
    nb_tiles *t = &trapped_tiles;
    trapped_operand m = { 0 };
    if (!registers) {
        m = trapped_memory(u, i + 4, x, b);
        length = 4 + m.length;
    }
    switch (opcode << 8 | prefix << 4 | registers) {
    case 0x49 << 8 | NONE << 4 | 0: nb_tiles_configure(t, m.base); break;
    case 0x49 << 8 | NONE << 4 | 1: nb_tiles_release(t); break;
    case 0x49 << 8 | PF2 << 4 | 1: nb_tile_zero(t, reg); break;
    case 0x4b << 8 | PF2 << 4 | 0: nb_tile_load(t, reg, m.base, m.stride); break;
    case 0x4b << 8 | PF3 << 4 | 0: nb_tile_store(t, reg, m.base, m.stride); break;
    case 0x5e << 8 | PF3 << 4 | 1: nb_tile_bytes(t, reg, rm, third, true, false, "tdpbsud"); break;
    case 0x5c << 8 | PF3 << 4 | 1: nb_tile_bf16(t, reg, rm, third); break;
    default: signal(number, SIG_DFL); return;
    }
    u->uc_mcontext.gregs[REG_RIP] += length;
}

static inline void trap_tiles(void)
{
    struct sigaction action = { .sa_sigaction = trap, .sa_flags = SA_SIGINFO };
    sigaction(SIGILL, &action, NULL);
}

#endif
