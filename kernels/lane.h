/* lane.h - one thread beside the pool for what waits: reading ahead and writing behind.
 *
 * Jobs run one after the other in the order in which they were given, so those of one lane never meet.  A lane computes nothing that
 * the pool could: its jobs sleep in the kernel, or pack and unpack what goes through it.
 */
#ifndef NB_LANE_H
#define NB_LANE_H

#include "kernels/base.h"

typedef struct nb_lane nb_lane;
typedef nb_status nb_lane_job(void *context, size_t item, nb_error *err);

nb_status nb_lane_new(nb_lane **out, nb_error *err);
/* At most NB_LANE_JOBS wait or run: one more waits for its place.  After a job has failed no other is run.  The result is for
 * nb_lane_wait. */
enum { NB_LANE_JOBS = 4 };
size_t    nb_lane_give(nb_lane *lane, nb_lane_job *job, void *context, size_t item);
/* Until this job and all before it are done; the first failure among all that were ever given, every time. */
nb_status nb_lane_wait(nb_lane *lane, size_t ticket, nb_error *err);
/* Waits for what was given, too.  NULL is fine. */
void      nb_lane_free(nb_lane *lane);

#endif
