/* cmd_doctor.c - what this machine offers and whether nibble works on it; the text to paste into a bug report.
 *
 * Libraries are asked through the dynamic loader, so that the answer is what this program really runs with.  Two things are
 * measured: a small product of the best instruction set against `ref`, and how fast memory can be read, since that is the
 * limit of generation (every weight is read once a token).
 */
#include <dlfcn.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "kernels/cuda/cuda.h"
#include "tools/cli/output.h"
#include "tools/commands.h"
#include "tools/session.h"

#if defined(__aarch64__)
#define NB_ISA_LOWER "ref"
#else
#define NB_ISA_LOWER "avx2"
#endif

typedef struct {
    nb_common        common;
    nb_compute_flags compute;
} options;

static const nb_arg_block blocks[] = {
    {nb_compute_args, NB_COMPUTE_ARGS, offsetof(options, compute)},
    {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)},
    {NULL, 0, 0}};

typedef struct {
    char     cpu[128], kernel[160], isa_used[16], flags[160], disk[256];
    int      cores, allowed;
    uint64_t memory, available, disk_free;
    nb_buf   libraries; /* "name version\n" */
    char     gpu[256];  /* "" and gpu_note when there is none */
    char     gpu_note[160];
    uint64_t gpu_memory;
    int      backend_devices; /* that nibble's own GPU backend can use */
    char     backend[512];    /* their names, or why there is none */
    double   self_test; /* relative error of the product, worst kind of weight */
    double   bandwidth; /* bytes a second */
    int      threads;
} machine;

/* ---- the system -------------------------------------------------------------------------------------------------- */

/* The value of the first "key : value" line of a /proc file. */
static bool proc_value(const char *path, const char *key, char *out, size_t n)
{
    FILE *f = fopen(path, "re");
    char  line[4096]; /* the flags of a processor are some 2000 bytes */
    bool  found = false;
    out[0] = 0;
    while (f && !found && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) != 0 || !colon) continue;
        colon++;
        colon += strspn(colon, " \t");
        snprintf(out, n, "%.*s", (int)strcspn(colon, "\n"), colon);
        found = true;
    }
    if (f) fclose(f);
    return found;
}

static uint64_t proc_kilobytes(const char *key)
{
    char text[64];
    return proc_value("/proc/meminfo", key, text, sizeof text) ? strtoull(text, NULL, 10) * 1024 : 0;
}

static void describe_system(machine *m)
{
    struct utsname u;
    struct statvfs disk;
    cpu_set_t      set;
    char           limit[64] = "";
    if (!proc_value("/proc/cpuinfo", "model name", m->cpu, sizeof m->cpu)) snprintf(m->cpu, sizeof m->cpu, "unknown");
    if (uname(&u) == 0) snprintf(m->kernel, sizeof m->kernel, "%.60s %.60s %.30s", u.sysname, u.release, u.machine);
    m->cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    m->allowed = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : m->cores;
    m->memory = proc_kilobytes("MemTotal");
    m->available = proc_kilobytes("MemAvailable");
    FILE *f = fopen("/sys/fs/cgroup/memory.max", "re"); /* a container's own limit; "max" when there is none */
    if (f && fgets(limit, sizeof limit, f) && strtoull(limit, NULL, 10) > 0 && strtoull(limit, NULL, 10) < m->memory)
        m->memory = strtoull(limit, NULL, 10);
    if (f) fclose(f);
    if (m->available > m->memory) m->available = m->memory;
    if (!getcwd(m->disk, sizeof m->disk)) snprintf(m->disk, sizeof m->disk, ".");
    if (statvfs(".", &disk) == 0) m->disk_free = (uint64_t)disk.f_bavail * disk.f_frsize;
}

static void add_flag(machine *m, bool there, const char *name)
{
    size_t used = strlen(m->flags);
    if (there) snprintf(m->flags + used, sizeof m->flags - used, "%s%s", used ? " " : "", name);
}

static void describe_isa(machine *m)
{
#if defined(__x86_64__)
    add_flag(m, __builtin_cpu_supports("avx2"), "avx2");
    add_flag(m, __builtin_cpu_supports("fma"), "fma");
    add_flag(m, __builtin_cpu_supports("avx512f"), "avx512f");
    add_flag(m, __builtin_cpu_supports("avx512bw"), "avx512bw");
    add_flag(m, __builtin_cpu_supports("avx512vl"), "avx512vl");
    add_flag(m, __builtin_cpu_supports("avx512dq"), "avx512dq");
    add_flag(m, __builtin_cpu_supports("avx512vnni"), "avx512vnni");
#elif defined(__aarch64__)
    add_flag(m, getauxval(AT_HWCAP) & HWCAP_ASIMD, "neon");
    add_flag(m, getauxval(AT_HWCAP) & HWCAP_ASIMDDP, "dotprod");
    add_flag(m, getauxval(AT_HWCAP) & HWCAP_SVE, "sve");
    add_flag(m, getauxval(AT_HWCAP2) & HWCAP2_I8MM, "i8mm");
    add_flag(m, getauxval(AT_HWCAP2) & HWCAP2_BF16, "bf16");
#endif
    char flags[4096];
    if (proc_value("/proc/cpuinfo", "flags", flags, sizeof flags)) {
        add_flag(m, strstr(flags, " avx512_bf16"), "avx512_bf16");
        add_flag(m, strstr(flags, " amx_tile"), "amx_tile");
        add_flag(m, strstr(flags, " amx_bf16"), "amx_bf16");
        add_flag(m, strstr(flags, " amx_int8"), "amx_int8");
    }
    if (!m->flags[0]) snprintf(m->flags, sizeof m->flags, "none of AVX2, AVX-512, AMX, NEON");
}

/* ---- libraries and the GPU driver, through the loader --------------------------------------------------------------- */

/* dlsym gives a data pointer; the union is how it becomes a function of the type that the library documents. */
typedef union {
    void *address;
    const char *(*text)(void);
    int (*number)(void);
    int (*cuda_init)(unsigned);
    int (*cuda_count)(int *);
    int (*cuda_get)(int *, int);
    int (*cuda_name)(char *, int, int);
    int (*cuda_memory)(size_t *, int);
} symbol;

static void describe_libraries(machine *m)
{
    static const struct {
        const char *name, *function;
        enum { TEXT, BYTES, DECIMALS } form; /* what the function returns: text, 0x010203 or 10203 for 1.2.3 */
    } libraries[] = {
        {"cJSON", "cJSON_Version", TEXT},         {"utf8proc", "utf8proc_version", TEXT},
        {"libspng", "spng_version_string", TEXT}, {"libcurl", "curl_version", TEXT},
        {"zstd", "ZSTD_versionString", TEXT},     {"libwebp", "WebPGetDecoderVersion", BYTES},
        {"xxHash", "XXH_versionNumber", DECIMALS}, {"OpenBLAS", "openblas_get_config", TEXT},
    };
    for (size_t i = 0; i < NB_COUNT(libraries); i++) {
        symbol s = {dlsym(RTLD_DEFAULT, libraries[i].function)};
        size_t name = strlen(libraries[i].name);
        int    v;
        if (!s.address) continue;
        switch (libraries[i].form) {
        case TEXT: {
            const char *text = s.text(); /* some begin with their own name: "libcurl/7.88.1 OpenSSL/3 ..." */
            if (strncmp(text, libraries[i].name, name) == 0 && text[name]) text += name + 1;
            nb_buf_printf(&m->libraries, "%s %.*s\n", libraries[i].name, (int)strcspn(text, " "), text);
            break;
        }
        case BYTES:
            v = s.number();
            nb_buf_printf(&m->libraries, "%s %d.%d.%d\n", libraries[i].name, v >> 16, v >> 8 & 255, v & 255);
            break;
        case DECIMALS:
            v = s.number();
            nb_buf_printf(&m->libraries, "%s %d.%d.%d\n", libraries[i].name, v / 10000, v / 100 % 100, v % 100);
            break;
        }
    }
    if (dlsym(RTLD_DEFAULT, "jpeg_std_error")) nb_buf_str(&m->libraries, "libjpeg present\n");
}

/* A missing driver is the usual case, not a failure. */
static void describe_gpu(machine *m)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!driver) {
        snprintf(m->gpu_note, sizeof m->gpu_note, "no CUDA driver");
        return;
    }
    symbol init = {dlsym(driver, "cuInit")}, count = {dlsym(driver, "cuDeviceGetCount")},
           get = {dlsym(driver, "cuDeviceGet")}, name = {dlsym(driver, "cuDeviceGetName")},
           memory = {dlsym(driver, "cuDeviceTotalMem_v2")}, version = {dlsym(driver, "cuDriverGetVersion")};
    int    devices = 0, device = 0, number = 0;
    size_t bytes = 0;
    char   text[128] = "";
    bool   complete = init.address && count.address && get.address && name.address && memory.address && version.address;
    if (!complete || init.cuda_init(0) != 0) {
        snprintf(m->gpu_note, sizeof m->gpu_note, "a CUDA driver that does not start (no GPU, or no permission)");
    } else if (count.cuda_count(&devices) != 0 || devices == 0 || get.cuda_get(&device, 0) != 0) {
        snprintf(m->gpu_note, sizeof m->gpu_note, "a CUDA driver without a GPU");
    } else {
        name.cuda_name(text, (int)sizeof text, device);
        memory.cuda_memory(&bytes, device);
        version.cuda_count(&number);
        m->gpu_memory = bytes;
        snprintf(m->gpu, sizeof m->gpu, "%s%s (driver for CUDA %d.%d)", text, devices > 1 ? " and others" : "", number / 1000,
                 number % 1000 / 10);
    }
    dlclose(driver);
}

/* ---- measurements ------------------------------------------------------------------------------------------------ */

enum { TEST_ROWS = 19 /* amx has another way from 16 on */, TEST_N = 48, TEST_K = 256, TEST_GROUP = 64 };

/* Multiply by one matrix with both tables; *error is |a - b| / |b|, infinite for anything that is not a number. */
static nb_status compare_product(const nb_ops *best, const nb_ops *ref, const nb_weights *w, const float *x, double *error,
                                 nb_error *err)
{
    const nb_ops *tables[2] = {best, ref};
    float         result[2][TEST_ROWS * TEST_N];
    for (int i = 0; i < 2; i++) {
        const nb_ops *ops = tables[i];
        nb_matrix     m = {0};
        NB_TRY(ops->pack(ops, &m, w, 1, err));
        float *x_d = ops->alloc(ops, TEST_ROWS * TEST_K * sizeof *x), *y_d = ops->alloc(ops, sizeof result[i]);
        if (x_d && y_d) {
            ops->upload(ops, x_d, x, TEST_ROWS * TEST_K * sizeof *x);
            ops->matmul(ops, y_d, TEST_N, x_d, TEST_K, TEST_ROWS, &m, NULL, false);
            ops->download(ops, result[i], y_d, sizeof result[i]);
        }
        ops->free(ops, x_d);
        ops->free(ops, y_d);
        ops->release(ops, &m);
        if (!x_d || !y_d) return nb_fail(err, NB_ERR_MEMORY, "out of memory in the self-test");
        NB_TRY(ops->status(ops, err));
    }
    double difference = 0, norm = 0;
    for (int i = 0; i < TEST_ROWS * TEST_N; i++) {
        difference += pow((double)result[0][i] - result[1][i], 2);
        norm += pow(result[1][i], 2);
    }
    double relative = sqrt(difference / norm);
    if (!(relative <= *error)) *error = isfinite(relative) ? relative : INFINITY;
    return NB_OK;
}

static nb_status self_test(machine *m, const nb_session *s, nb_error *err)
{
    static float    x[TEST_ROWS * TEST_K], scales[TEST_N * (TEST_K / TEST_GROUP)];
    static uint16_t bf16[TEST_N * TEST_K];
    static uint8_t  codes[TEST_N * TEST_K], zeros[TEST_N * (TEST_K / TEST_GROUP)];
    uint32_t        state = 1;
    nb_ops          ref;
    nb_ops_init(&ref, NB_ISA_REF, s->pool);
#define NEXT() (state = state * 1664525u + 1013904223u, state >> 16)
    for (size_t i = 0; i < NB_COUNT(x); i++) x[i] = (float)NEXT() / 32768.0f - 1.0f;
    for (size_t i = 0; i < NB_COUNT(bf16); i++) bf16[i] = nb_f32_to_bf16((float)NEXT() / 32768.0f - 1.0f);
    for (size_t i = 0; i < NB_COUNT(codes); i++) codes[i] = (uint8_t)(NEXT() & 15);
    for (size_t i = 0; i < NB_COUNT(scales); i++)
        scales[i] = 0.01f + (float)NEXT() / 6553600.0f, zeros[i] = (uint8_t)(NEXT() & 15);
#undef NEXT
    nb_weights floats = {.kind = NB_W_FLOAT, .n = TEST_N, .k = TEST_K, .dtype = NB_BF16, .data = bf16};
    nb_weights ints = {
        .kind = NB_W_INT4, .n = TEST_N, .k = TEST_K, .group = TEST_GROUP, .codes = codes, .scales = scales, .zeros = zeros};
    NB_TRY(compare_product(&s->ops, &ref, &floats, x, &m->self_test, err));
    NB_TRY(compare_product(&s->ops, &ref, &ints, x, &m->self_test, err));
    ints.kind = NB_W_INT8;
    return compare_product(&s->ops, &ref, &ints, x, &m->self_test, err);
}

enum { PIECE = 1 << 20 };

typedef struct {
    uint64_t *words;
    uint64_t  sums[4096]; /* one per piece, so that no read can be left out */
    bool      write;
} sweep;

static void sweep_piece(void *context, size_t item, int thread)
{
    sweep    *w = context;
    uint64_t *p = w->words + item * (PIECE / 8), a = 0, b = 0, c = 0, d = 0;
    (void)thread;
    if (w->write) {
        memset(p, (int)item, PIECE);
        return;
    }
    for (size_t i = 0; i < PIECE / 8; i += 4) a += p[i], b += p[i + 1], c += p[i + 2], d += p[i + 3];
    w->sums[item] = a + b + c + d;
}

/* Reads a block far larger than the caches for about 0.3 s with all threads; the best pass counts. */
static nb_status measure_bandwidth(machine *m, const nb_session *s, nb_error *err)
{
    size_t pieces = 512;
    while (pieces > 64 && (uint64_t)pieces * PIECE > m->available / 4) pieces /= 2;
    sweep *w = NULL;
    NB_TRY(nb_alloc(&w, 1, sizeof *w, "the memory test", err));
    w->words = nb_calloc_aligned(pieces, PIECE);
    if (!w->words) {
        free(w);
        return nb_fail(err, NB_ERR_MEMORY, "out of memory for the memory test of %zu MiB", pieces);
    }
    w->write = true;
    nb_parallel(s->pool, pieces, sweep_piece, w);
    w->write = false;
    for (double begin = nb_seconds(); nb_seconds() - begin < 0.3;) {
        double start = nb_seconds();
        nb_parallel(s->pool, pieces, sweep_piece, w);
        double rate = (double)pieces * PIECE / (nb_seconds() - start);
        if (rate > m->bandwidth) m->bandwidth = rate;
    }
    free(w->words);
    free(w);
    return NB_OK;
}

/* ---- report ------------------------------------------------------------------------------------------------------ */

static const double TOLERANCE = 1e-3; /* ops.h allows 1e-4 a product; sums of 256 stay well below this */

static void text_report(const machine *m, nb_buf *out)
{
    char total[32], available[32], disk[32], rate[32], gpu[32];
    nb_human_bytes(total, (double)m->memory);
    nb_human_bytes(available, (double)m->available);
    nb_human_bytes(disk, (double)m->disk_free);
    nb_human_bytes(rate, m->bandwidth);
    nb_human_bytes(gpu, (double)m->gpu_memory);
    nb_buf_printf(out, "nibble %s on %s\n", NIBBLE_VERSION, m->kernel);
    nb_buf_printf(out, "  CPU            %s, %d CPUs, %d usable, computing with %d\n", m->cpu, m->cores, m->allowed,
                  m->threads);
    nb_buf_printf(out, "  instructions   %s; nibble uses %s\n", m->flags, m->isa_used);
    nb_buf_printf(out, "  memory         %s, %s available\n", total, available);
    nb_buf_printf(out, "  disk           %s free at %s\n", disk, m->disk);
    nb_buf_printf(out, "  GPU            %s", m->gpu[0] ? m->gpu : m->gpu_note);
    if (m->gpu[0]) nb_buf_printf(out, ", %s", gpu);
    nb_buf_printf(out, "\n  GPU backend    %s", m->backend);
    nb_buf_str(out, "\n  libraries      ");
    for (const char *l = m->libraries.data ? m->libraries.data : ""; *l;) {
        size_t n = strcspn(l, "\n");
        nb_buf_printf(out, "%.*s", (int)n, l);
        l += n + 1;
        if (*l) nb_buf_str(out, ", ");
    }
    nb_buf_printf(out, "\n  read speed     %s/s, so 1 GB of weights allows %.0f tokens/s\n", rate, m->bandwidth / 1e9);
    nb_buf_printf(out, "  self-test      %s against ref: relative error %.1e, %s\n", m->isa_used, m->self_test,
                  m->self_test <= TOLERANCE ? "good" : "WRONG");
}

static void json_report(const machine *m, nb_buf *out)
{
    nb_emit e = nb_emit_start(out, true);
    nb_emit_open(&e, NULL, '{');
    nb_emit_string(&e, "version", NIBBLE_VERSION);
    nb_emit_string(&e, "system", m->kernel);
    nb_emit_string(&e, "cpu", m->cpu);
    nb_emit_int(&e, "cpus", m->cores);
    nb_emit_int(&e, "cpus_usable", m->allowed);
    nb_emit_int(&e, "threads", m->threads);
    nb_emit_string(&e, "instructions", m->flags);
    nb_emit_string(&e, "isa", m->isa_used);
    nb_emit_int(&e, "memory_bytes", (int64_t)m->memory);
    nb_emit_int(&e, "memory_available_bytes", (int64_t)m->available);
    nb_emit_int(&e, "disk_free_bytes", (int64_t)m->disk_free);
    nb_emit_string(&e, "gpu", m->gpu[0] ? m->gpu : NULL);
    nb_emit_int(&e, "gpu_backend_devices", m->backend_devices);
    nb_emit_string(&e, "gpu_backend", m->backend);
    nb_emit_string(&e, "gpu_note", m->gpu[0] ? NULL : m->gpu_note);
    nb_emit_int(&e, "gpu_memory_bytes", (int64_t)m->gpu_memory);
    nb_emit_open(&e, "libraries", '{');
    for (const char *l = m->libraries.data ? m->libraries.data : ""; *l;) {
        size_t n = strcspn(l, "\n"), name = strcspn(l, " ");
        char   key[32];
        snprintf(key, sizeof key, "%.*s", (int)name, l);
        nb_emit_bytes(&e, key, l + name + 1, n - name - 1);
        l += n + 1;
    }
    nb_emit_close(&e);
    nb_emit_number(&e, "read_bytes_per_s", m->bandwidth);
    nb_emit_number(&e, "self_test_error", m->self_test);
    nb_emit_bool(&e, "self_test_good", m->self_test <= TOLERANCE);
    nb_emit_close(&e);
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    const options *opt = opaque;
    machine        m = {0};
    nb_session     s;
    nb_buf         out = {0};
    (void)args;
    nb_status status = nb_session_open(&s, &opt->compute, err);
    if (status == NB_OK) {
        describe_system(&m);
        describe_isa(&m);
        describe_libraries(&m);
        describe_gpu(&m);
        m.backend_devices = nb_cuda_device_count(m.backend, sizeof m.backend);
        for (char *c = m.backend; (c = strchr(c, '\n')) != NULL;) *c = c[1] ? ',' : 0; /* one a line to one line */
        snprintf(m.isa_used, sizeof m.isa_used, "%s", s.ops.name);
        m.threads = nb_pool_threads(s.pool);
        status = self_test(&m, &s, err);
    }
    if (status == NB_OK) status = measure_bandwidth(&m, &s, err);
    if (status == NB_OK) {
        if (nb_json_wanted()) json_report(&m, &out);
        else text_report(&m, &out);
        status = nb_print(&out, err);
    }
    if (status == NB_OK && !(m.self_test <= TOLERANCE))
        status = nb_fail(err, NB_ERR_DIFFERENT,
                         "the self-test failed: products by %s differ from ref by %.1e; NIBBLE_ISA=ref avoids it, "
                         "and please report it",
                         m.isa_used, m.self_test);
    nb_buf_free(&out);
    nb_buf_free(&m.libraries);
    nb_session_close(&s);
    return status;
}

const nb_command nb_command_doctor = {
    .name = "doctor",
    .summary = "say what this machine offers and test that nibble computes correctly on it",
    .usage = "[flags]",
    .about = "Prints the processor and its instruction sets, memory, disk, GPU driver and library versions, checks a "
             "small product against the reference arithmetic, and measures how fast memory can be read, which bounds "
             "the speed of generation. NIBBLE_ISA=" NB_ISA_CHOICES " chooses the instruction set of every command.",
    .examples = "  nibble doctor\n"
                "  nibble doctor --json            # for a bug report\n"
                "  NIBBLE_ISA=" NB_ISA_LOWER " nibble doctor   # test a lower level\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
