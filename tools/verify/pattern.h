/* pattern.h - the regular expressions that people write into quantization configs, matched as Python's re.match does: from the
 * start of the text, not necessarily to its end.
 *
 * Understood: literals, '.', classes, \d \w \s and their opposites, \. and other escaped characters, groups (plain, (?:...),
 * (?P<name>...)), alternation, * + ? {m,n} (lazy forms too, as only the yes or no counts), ^ and $.  Lookaround and
 * back references are not: such a pattern is refused, and its user says that it cannot be judged.
 *
 * All states are followed at once (Thompson 1968), so a hostile pattern costs time in proportion to its length times the
 * text's, and no recursion on the text. */
#ifndef NB_PATTERN_H
#define NB_PATTERN_H

#include "kernels/base.h"

typedef enum { NB_PATTERN_NO, NB_PATTERN_YES, NB_PATTERN_UNKNOWN } nb_pattern_answer;

nb_pattern_answer nb_pattern_match(const char *pattern, const char *text);

#endif
