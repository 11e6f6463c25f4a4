/* cuda_loader.c - finds libnibble_cuda.so once and passes calls on to it.
 *
 * It looks at NIBBLE_CUDA_PLUGIN (a path, for tests and odd installations), else beside the program, in ../lib beside it,
 * and in the system's library path.  It never closes the plugin: the GPU's runtime does not survive that.  It knows nothing
 * of GPUs; it is plain C, so that every build has it.
 */
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/plugin.h"

static const char library[] = "libnibble_cuda.so";

static pthread_once_t        once = PTHREAD_ONCE_INIT;
static const nb_cuda_plugin *plugin; /* NULL: `reason` says why */
static char                  reason[512];

/* dlsym gives a data pointer; the union is how it becomes a function of the type that plugin.h documents. */
typedef union {
    void                         *data;
    nb_cuda_plugin_open_function *function;
} symbol;

/* A library was found at all: then it is this one or none. */
static void adopt(void *handle, const char *path)
{
    symbol                open = { dlsym(handle, "nb_cuda_plugin_open") };
    const nb_cuda_plugin *p = open.data ? open.function() : NULL;
    if (!p)
        snprintf(reason, sizeof reason, "%s is not a plugin of nibble", path);
    else if (p->abi != NB_CUDA_ABI || p->ops_size != sizeof(nb_ops) || p->matrix_size != sizeof(nb_matrix) ||
             p->error_size != sizeof(nb_error))
        snprintf(reason, sizeof reason, "%s belongs to another version of nibble; install both from the same build", path);
    else
        plugin = p;
}

/* True when there was something to open, loadable or not: a broken plugin must not be passed over silently. */
static bool try_path(const char *path)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle) {
        adopt(handle, path);
        return true;
    }
    if (strchr(path, '/') && access(path, F_OK) != 0) return false;
    const char *text = dlerror();
    snprintf(reason, sizeof reason, "%s cannot be opened: %s", path, text ? text : "unknown error");
    return strchr(path, '/') != NULL;
}

static void find_plugin(void)
{
    const char *given = getenv("NIBBLE_CUDA_PLUGIN");
    if (given && *given) {
        if (!try_path(given)) snprintf(reason, sizeof reason, "NIBBLE_CUDA_PLUGIN=%s is not there", given);
        return;
    }
    char    folder[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", folder, sizeof folder - 1);
    folder[n > 0 ? n : 0] = 0;
    char *slash = strrchr(folder, '/');
    if (slash) {
        char path[PATH_MAX + sizeof library + 8];
        *slash = 0;
        snprintf(path, sizeof path, "%s/%s", folder, library);
        if (try_path(path)) return;
        snprintf(path, sizeof path, "%s/../lib/%s", folder, library);
        if (try_path(path)) return;
    }
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle)
        adopt(handle, library);
    else
        snprintf(reason, sizeof reason, "the GPU backend is not installed: there is no %s beside the program, in ../lib or in "
                 "the library path", library);
}

nb_status nb_cuda_ops_new(nb_ops *ops, int device, nb_pool *pool, nb_error *err)
{
    *ops = (nb_ops){ 0 };
    pthread_once(&once, find_plugin);
    if (!plugin) return nb_fail(err, NB_ERR_UNSUPPORTED, "no GPU can be used: %s", reason);
    return plugin->ops_new(ops, device, pool, err);
}

void nb_cuda_ops_free(nb_ops *ops)
{
    if (ops->state) plugin->ops_free(ops);
    *ops = (nb_ops){ 0 };
}

int nb_cuda_device_count(char *text, size_t n)
{
    pthread_once(&once, find_plugin);
    if (plugin) return plugin->device_count(text, n);
    snprintf(text, n, "%s", reason);
    return 0;
}
