/* cage.h - giving up what a decoder of hostile bytes does not need. */
#ifndef NB_VIDEO_CAGE_H
#define NB_VIDEO_CAGE_H

#include <stdbool.h>
#include <stdint.h>

/* From here on: descriptors 0 to 2 and no others, no new processes or privileges, 2 GiB of addresses, `seconds` of time
 * (out_of_time is called at their end, as a signal handler), and only the system calls that reading, computing and writing
 * take.  False: the system refuses one of the limits. */
bool nb_enter_cage(int64_t seconds, void (*out_of_time)(int signal));

#endif
