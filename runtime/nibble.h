/* nibble.h - the public face of libnibble: open a Qwen2-VL checkpoint directory, whatever its form, and let it answer.
 *
 *     char error[512];
 *     nb_handle *model;
 *     nb_reply   reply;
 *     if (nb_open(&model, "my-2b-awq", NULL, error, sizeof error) ||
 *         nb_ask(model, "[{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"image\": \"table.png\"},"
 *                       " {\"type\": \"text\", \"text\": \"What is on the table?\"}]}]", NULL, &reply, error, sizeof error))
 *         fprintf(stderr, "%s\n", error);
 *     else
 *         puts(reply.text);
 *     nb_reply_free(&reply);
 *     nb_close(model);
 *
 * Forms read: bf16, f16 and f32 safetensors, AWQ GEMM, GPTQ v1 and v2, compressed-tensors pack-quantized.
 *
 * Failure.  Every call that can fail returns 0 or the exit code that the program `nibble` documents for that kind of failure
 * (1 system, 2 usage, 4 does not fit, 5 bad input), and puts one sentence into error[error_size] (always terminated).  After
 * a failed nb_open *out is NULL; after a failed nb_ask the reply is empty and the handle is as good as before.
 *
 * Threads.  One handle belongs to one thread at a time; handles are independent of each other.
 */
#ifndef NIBBLE_H
#define NIBBLE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NB_API __attribute__((visibility("default")))

typedef struct nb_handle nb_handle;

/* A zeroed struct, or NULL, means the defaults. */
typedef struct {
    int         threads;     /* 0: one per CPU that the process may use */
    size_t      max_tokens;  /* of prompt and answer together; 0: 32768 */
    const char *media_root;  /* folder of relative picture paths; NULL: the working directory */
    int         offline;     /* refuse http(s) pictures */
} nb_open_options;

typedef struct {
    int          max_new_tokens; /* 0: 512 */
    double       temperature;    /* < 0: the checkpoint's own sampling settings; 0: greedy */
    int          top_k;          /* 0: the checkpoint's; used with temperature > 0 */
    double       top_p;          /* 0: the checkpoint's */
    uint64_t     seed;
    const char  *tools_json;     /* array of tools, or NULL */
    /* called with each new piece of text (whole UTF-8 characters); return 0 to stop.  NULL: none */
    int        (*on_text)(void *context, const char *text, size_t n);
    void        *context;
} nb_request;

typedef struct {
    char  *text;                  /* NUL-terminated */
    size_t prompt_tokens, answer_tokens;
    int    stopped;               /* 1: the model ended its answer; 0: max_new_tokens, or on_text said stop */
} nb_reply;

NB_API const char *nb_version(void);
NB_API int  nb_open(nb_handle **out, const char *directory, const nb_open_options *options, char *error, size_t error_size);
NB_API void nb_close(nb_handle *handle); /* NULL is fine */
/* messages_json: array of OpenAI-style messages.  request NULL: greedy, 512 tokens. */
NB_API int  nb_ask(nb_handle *handle, const char *messages_json, const nb_request *request, nb_reply *out, char *error,
                   size_t error_size);
NB_API void nb_reply_free(nb_reply *reply);

#ifdef __cplusplus
}
#endif

#endif
