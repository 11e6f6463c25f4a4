/* threads.h - one pool of pthreads and one parallel loop.
 *
 * Work is cut into items whose number and content depend on the problem alone, never on the number of threads; which
 * thread runs an item changes nothing in the result.  That is what makes results byte-identical for any thread count.
 */
#ifndef NB_THREADS_H
#define NB_THREADS_H

#include "kernels/base.h"

typedef struct nb_pool nb_pool;

/* threads = 0: one per CPU this process may run on.  The caller's thread is one of them. */
nb_status nb_pool_new(nb_pool **out, int threads, nb_error *err);
void      nb_pool_free(nb_pool *pool); /* NULL is fine */
int       nb_pool_threads(const nb_pool *pool);

/* Run body(context, item, thread) for item = 0 .. items-1 and return when all are done.  thread < nb_pool_threads.
 * Must not be called from inside a body.  Items are handed out in ascending order. */
typedef void nb_body(void *context, size_t item, int thread);
void nb_parallel(nb_pool *pool, size_t items, nb_body *body, void *context);

#endif
