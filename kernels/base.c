/* base.c - errors as sentences, checked allocation, the clock.
 *
 * The one idea: an error text may quote anything that a hostile file holds (a tensor name, a path), so it is made safe
 * for a terminal here, once, and not by whoever prints it.
 */
#include "kernels/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

const char *nb_status_text(nb_status status)
{
    switch (status) {
#define X(name, code, text) case NB_##name: return text;
        NB_STATUS_MAP(X)
#undef X
    }
    return "unknown status";
}

int nb_status_exit_code(nb_status status)
{
    switch (status) {
#define X(name, code, text) case NB_##name: return code;
        NB_STATUS_MAP(X)
#undef X
    }
    return 1;
}

/* ---- error text ---------------------------------------------------------- */

/* Length of the UTF-8 character at s, or 0 when it is malformed, overlong, a surrogate, or cut off by the end. */
static size_t utf8_length(const unsigned char *s)
{
    if (s[0] < 0x80) return 1;
    size_t n = s[0] >= 0xf0 && s[0] <= 0xf4 ? 4 : s[0] >= 0xe0 && s[0] <= 0xef ? 3 : s[0] >= 0xc2 && s[0] <= 0xdf ? 2 : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0; /* also stops at the terminating zero */
    if (n == 3 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f))) return 0;
    if (n == 4 && ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))) return 0;
    return n;
}

/* True for C0 controls, DEL, and the C1 controls U+0080..U+009F that some terminals obey. */
static bool is_control(const unsigned char *s, size_t length)
{
    return s[0] < 0x20 || s[0] == 0x7f || (length == 2 && s[0] == 0xc2 && s[1] < 0xa0);
}

/* Replace what could drive a terminal or is no UTF-8 by '?'.  When vsnprintf cut the text, the cut may have split the
 * last character: drop the broken tail instead of marking it. */
static void make_printable(char *text, bool cut)
{
    unsigned char *in = (unsigned char *)text, *out = in;
    while (*in) {
        size_t n = utf8_length(in);
        if (n == 0 && cut && strlen((char *)in) < 4 && in[0] >= 0xc2) break;
        if (n == 0 || is_control(in, n)) {
            *out++ = '?';
            in += n ? n : 1;
        } else {
            memmove(out, in, n);
            out += n;
            in += n;
        }
    }
    *out = 0;
}

static void fill_text(nb_error *err, const char *format, va_list arguments)
{
    int n = vsnprintf(err->text, sizeof err->text, format, arguments);
    make_printable(err->text, n >= (int)sizeof err->text);
}

nb_status nb_fail(nb_error *err, nb_status status, const char *format, ...)
{
    if (!err) return status;
    err->status = status;
    va_list arguments;
    va_start(arguments, format);
    fill_text(err, format, arguments);
    va_end(arguments);
    return status;
}

nb_status nb_error_within(nb_error *err, const char *format, ...)
{
    if (!err) return NB_OK; /* the caller holds the status itself */
    nb_error context;
    va_list  arguments;
    va_start(arguments, format);
    fill_text(&context, format, arguments);
    va_end(arguments);
    /* The first error says what happened: of an overlong pair, the context is what gets cut. */
    size_t have = strlen(err->text), room = sizeof err->text - 1 - have, prefix = strlen(context.text);
    if (room < 2) return err->status;
    if (prefix > room - 2) {
        prefix = room - 2;
        context.text[prefix] = 0;
        make_printable(context.text, true);
        prefix = strlen(context.text);
    }
    memmove(err->text + prefix + 2, err->text, have + 1);
    memcpy(err->text, context.text, prefix);
    memcpy(err->text + prefix, ": ", 2);
    return err->status;
}

/* ---- memory -------------------------------------------------------------- */

void *nb_calloc_aligned(size_t count, size_t size)
{
    size_t bytes;
    if (!nb_mul(count, size, &bytes) || !nb_add(bytes, 63, &bytes)) return NULL;
    bytes &= ~(size_t)63; /* aligned_alloc wants a multiple */
    if (bytes == 0) bytes = 64;
    void *p = aligned_alloc(64, bytes);
    if (p) memset(p, 0, bytes);
    return p;
}

/* On 2 MB pages where the system gives them: a decode step reads gigabytes once, and half of the time of a 4 KB page is its
 * translation; and each 4 KB page of a buffer costs a fault.  What does not fill the last of them stays on small pages:
 * rounded up, a model of many matrices would take some percent more.  Failing advice is no failure. */
void *nb_alloc_pages(size_t bytes)
{
    const size_t huge = 2 << 20;
    if (bytes > SIZE_MAX - huge) return NULL;
    bytes = bytes ? (bytes + 63) / 64 * 64 : 64;
    void *memory;
    if (posix_memalign(&memory, bytes < huge ? 64 : huge, bytes) != 0) return NULL; /* aligned_alloc wants a multiple */
    if (bytes >= huge) madvise(memory, bytes / huge * huge, MADV_HUGEPAGE);
    return memory;
}

nb_status nb_alloc(void *out_pointer, size_t count, size_t size, const char *what, nb_error *err)
{
    size_t bytes;
    void  *p = nb_mul(count, size, &bytes) ? calloc(1, bytes ? bytes : 1) : NULL;
    memcpy(out_pointer, &p, sizeof p);
    if (!p) return nb_fail(err, NB_ERR_MEMORY, "no memory for %s: %zu elements of %zu bytes", what, count, size);
    return NB_OK;
}

nb_status nb_grow(void *array_pointer, size_t *capacity, size_t need, size_t size, const char *what, nb_error *err)
{
    if (need <= *capacity) return NB_OK;
    size_t want = *capacity + *capacity / 2, bytes;
    if (want < need) want = need;
    if (want < 8) want = 8;
    void *old;
    memcpy(&old, array_pointer, sizeof old);
    void *p = nb_mul(want, size, &bytes) ? realloc(old, bytes) : NULL;
    if (!p) return nb_fail(err, NB_ERR_MEMORY, "no memory for %s: %zu elements of %zu bytes", what, want, size);
    memcpy(array_pointer, &p, sizeof p);
    *capacity = want;
    return NB_OK;
}

char *nb_strdup(const char *s)
{
    return s ? strdup(s) : NULL;
}

/* ---- clock --------------------------------------------------------------- */

double nb_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
