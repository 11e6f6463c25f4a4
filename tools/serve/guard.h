/* guard.h - deadlines that hold whatever a peer does, and noticing that it has gone.
 *
 * The HTTP library's timeouts count idle time, so a peer that sends one byte a second stays for ever; and it does not look at
 * connections that wait for the engine.  One thread walks over all connections a few times a second: past its deadline a socket is shut
 * down, and where an answer is waited for, a hang-up is reported.
 */
#ifndef NB_GUARD_H
#define NB_GUARD_H

#include "kernels/base.h"

typedef struct nb_guard nb_guard;
typedef struct nb_peer nb_peer;

/* gone: the peer of `subject` hung up; tick: called for every subject about once a second.  Both under the guard's lock: they must
 * not call the guard. */
nb_status nb_guard_new(nb_guard **out, void (*gone)(void *subject), void (*tick)(void *subject), nb_error *err);
void      nb_guard_free(nb_guard *g);
nb_peer  *nb_guard_add(nb_guard *g, int fd, double seconds); /* NULL without memory */
void      nb_guard_remove(nb_guard *g, nb_peer *p);          /* before the descriptor is closed */
void      nb_guard_deadline(nb_guard *g, nb_peer *p, double seconds); /* from now; 0: none */
/* What gone and tick are told about; NULL: nothing. */
void      nb_guard_watch(nb_guard *g, nb_peer *p, void *subject);

#endif
