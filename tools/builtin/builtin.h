/* builtin.h - chats that the program carries, for calibration without data of one's own.
 *
 * 68 conversations in 22 languages, 20 of them about pictures (inside as data: URLs), written and drawn by make.py for this
 * project and under its licence.  They keep a quantization from being blind; what they cannot know is the use that a model is
 * for, so chats of that use are better calibration data and every report says which was used.
 */
#ifndef NB_BUILTIN_H
#define NB_BUILTIN_H

#include <stddef.h>

#define NB_BUILTIN_NAME "the built-in data"

extern const unsigned char nb_builtin_chats[]; /* JSON lines of {"messages": ...}; made from chats.jsonl while building */
extern const size_t        nb_builtin_chats_size;

#endif
