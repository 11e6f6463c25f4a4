/* form.h - which form an answer must have, as requests say it in half a dozen ways, in one: nb_call_request.form. */
#ifndef NB_FORM_H
#define NB_FORM_H

#include "tools/serve/call.h"

enum { NB_FORM_TOOLS = 128 }; /* in a request, at the most */

/* response_format, guided_json/regex/choice, structured_outputs, tool_choice.  Sets form, tools and named_tool; *hide_tools: the
 * template is not to be told of them. */
bool      nb_form_read(nb_call_request *r, const cJSON *body, bool *hide_tools, nb_api_error *error);
nb_status nb_form_grammar(nb_grammar **out, const cJSON *form, const nb_token_trie *trie, nb_error *err);

#endif
