/* stop.h - Ctrl-C and SIGTERM: a request that long commands poll between steps, so that nothing is left half-written.
 *
 * A command that sees nb_stop_requested() ends with nb_stop_status(err), and main exits with 130 (SIGINT) or 7 (SIGTERM).  A
 * second signal ends the process at once, for a command that does not come to a step.
 */
#ifndef NB_STOP_H
#define NB_STOP_H

#include "kernels/base.h"

void      nb_stop_install(void);
bool      nb_stop_requested(void);
int       nb_stop_signal(void);           /* SIGINT, SIGTERM or 0 */
nb_status nb_stop_status(nb_error *err);  /* NB_OK, or NB_ERR_STOPPED with a sentence when a stop was requested */
void      nb_stop_reset(void);            /* chat: a Ctrl-C ended the answer, not the program */

#endif
