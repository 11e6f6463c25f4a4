/* ref.c - the table of definitions: what every operation means, in plain C that accumulates in double.
 *
 * Each ref_*.c is the plainest loop that says what its operations compute, and shares no shortcut with the faster levels,
 * which are tested against it.  It still runs in parallel, one row, head or column per item, so that a whole model can be
 * run at this level.
 */
#include "kernels/cpu/cpu.h"

void nb_ref_fill(nb_ops *ops)
{
    nb_ref_fill_matmul(ops);
    nb_ref_fill_rows(ops);
    nb_ref_fill_attention(ops);
    nb_ref_fill_gram(ops);
}
