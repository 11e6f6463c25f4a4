/* base.h - how a function says that it failed, and checked sizes.
 *
 * A function that can fail returns an nb_status and takes an nb_error as its last argument.  The error is
 * filled in one place, where the most is known: what is wrong, where (file, tensor, byte, JSON path, line)
 * and what to do about it.  Callers above pass the status on untouched:
 *
 *     if (rows != want)
 *         return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s' has %zu rows, expected %zu", file, name, rows, want);
 *
 * A wrong call by our own code is a bug, not a failure: assert it.  Input is never checked with assert.
 * Nothing below tools/ prints or exits.
 */
#ifndef NB_BASE_H
#define NB_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The last column is the exit code of the program when a command ends with this status. */
#define NB_STATUS_MAP(X)                                                                   \
    X(OK,              0, "ok")                                                            \
    X(ERR_ARGUMENT,    2, "the command or call asks for something invalid")                \
    X(ERR_MEMORY,      1, "out of memory")                                                 \
    X(ERR_IO,          1, "the system could not read or write")                            \
    X(ERR_INPUT,       5, "the input is missing, damaged or not what it claims to be")     \
    X(ERR_UNSUPPORTED, 5, "valid, but not something nibble can run")                       \
    X(ERR_GATE,        3, "the quality gate failed")                                       \
    X(ERR_BUDGET,      4, "it does not fit the memory or disk it was given")               \
    X(ERR_DIFFERENT,   6, "the compared things differ")                                    \
    X(ERR_STOPPED,     7, "stopped on request")                                            \
    X(ERR_DEVICE,      1, "the accelerator reported an error")                             \
    X(DIFFERS,         1, "the compared things differ, in the words of diff(1)")

typedef enum {
#define X(name, code, text) NB_##name,
    NB_STATUS_MAP(X)
#undef X
} nb_status;

typedef struct {
    nb_status status;
    char      text[768]; /* one sentence for a person; no trailing newline */
} nb_error;

const char *nb_status_text(nb_status status);
int         nb_status_exit_code(nb_status status);

/* Fill err, unless it is NULL, and return status.  Control characters in the result are shown as '?', so that a
 * hostile file name cannot drive a terminal; the text is cut at the end of a UTF-8 character. */
nb_status nb_fail(nb_error *err, nb_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Put "context: " in front of an error that is already filled, for a place that only the caller knows. */
nb_status nb_error_within(nb_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Checked arithmetic for sizes that come from a file: false on overflow, *out then unchanged. */
static inline bool nb_mul(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}
static inline bool nb_add(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

/* splitmix64 (Steele, Lea, Flood 2014): its step; its output function, in which every bit of the result depends on every bit of z;
 * and the generator of both.  Its state after n steps is a sum, which makes it random access. */
#define NB_RANDOM_STEP UINT64_C(0x9e3779b97f4a7c15)
static inline uint64_t nb_mix64(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}
static inline uint64_t nb_random64(uint64_t *state)
{
    return nb_mix64(*state += NB_RANDOM_STEP);
}

/* count * size bytes, 64-byte aligned and zeroed; NULL on overflow or lack of memory.  Never returns NULL for zero
 * bytes.  Free with free(). */
void *nb_calloc_aligned(size_t count, size_t size);

/* Memory for much data that is about to be written, not zeroed, 64-byte aligned; NULL on lack of memory.  Free with free(). */
void *nb_alloc_pages(size_t bytes);

/* malloc-family wrappers for arrays: checked product, error text names `what`.  *out is NULL after a failure. */
nb_status nb_alloc(void *out_pointer, size_t count, size_t size, const char *what, nb_error *err); /* zeroed */
/* Grow *array (element size `size`) so that it holds at least `need` elements; *capacity is updated. */
nb_status nb_grow(void *array_pointer, size_t *capacity, size_t need, size_t size, const char *what, nb_error *err);

char *nb_strdup(const char *s); /* NULL for NULL or no memory */

#define NB_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define NB_TRY(call)                                   \
    do {                                               \
        nb_status nb_try_status = (call);              \
        if (nb_try_status != NB_OK) return nb_try_status; \
    } while (0)

double nb_seconds(void); /* monotonic clock */

#endif
