/* amx_emulated.c - kernels/cpu/matmul_amx.c once more, over tiles made of plain memory, with faults that tests can switch on.
 * Compiled with the flags of avx512: nothing here may be called on a machine without that. */
#define NB_EMULATE_TILES
#include "amx_emulated.h"
#include "kernels/cpu/tiles.h"

#undef tile_signed_unsigned
#define tile_signed_unsigned(c, a, b)                                                                           \
    nb_tile_bytes(&this_threads_tiles, c, a, b, emulated_fault != EMULATED_UNSIGNED_ROWS,                       \
                  emulated_fault == EMULATED_SIGNED_CODES, "tdpbsud")
#undef tile_bf16
#define tile_bf16(c, a, b)                                                                                      \
    do {                                                                                                        \
        if (emulated_fault != EMULATED_LOST_PRODUCTS || (c) != 3) nb_tile_bf16(&this_threads_tiles, c, a, b);   \
    } while (0)
#undef tile_store
#define tile_store(tile, to, bytes)                                                                             \
    do {                                                                                                        \
        if (emulated_fault != EMULATED_LOST_STORE || (tile) != 2)                                               \
            nb_tile_store(&this_threads_tiles, tile, to, (ptrdiff_t)(bytes));                                   \
    } while (0)
#undef tile_release
#define tile_release()                                                                                          \
    do {                                                                                                        \
        if (emulated_fault != EMULATED_NO_RELEASE) nb_tiles_release(&this_threads_tiles);                       \
    } while (0)

static void *allocate_or_not(size_t alignment, size_t size)
{
    return emulated_fault == EMULATED_NO_HEAP ? NULL : aligned_alloc(alignment, size);
}
#define aligned_alloc allocate_or_not

emulated_faults emulated_fault;

#define nb_amx_fill_matmul emulated_amx_fill_matmul
#include "kernels/cpu/matmul_amx.c"

long emulated_products(void)
{
    return nb_tiles_products;
}

long emulated_configured(void)
{
    return nb_tiles_configured;
}
