/* badinput.h - one case of bad input: how it is made from the demo model, what the program is asked, and the checks.
 *
 * Every case has a folder of its own with a model in it that is nothing but links into the demo checkpoint; what a case
 * changes becomes a small file of its own, and changed weights are a header before a hole.  The program is run as users run
 * it, a process with a time limit, and is held to its contract: the documented exit code, one sentence that begins with
 * "nibble: error: " and names the place, an empty standard output, and not one file made, changed or removed.
 *
 * NIBBLE_BINARY names another program to test, NIBBLE_SHOW=1 prints every sentence, NIBBLE_CASE_SECONDS another limit.
 */
#ifndef NB_BADINPUT_H
#define NB_BADINPUT_H

#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "runtime/io/buf.h"
#include "runtime/vision/media.h"

extern char **environ;

/* The tables name what a case has; all else is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

/* ---- what a case is ------------------------------------------------------------------------------------------------------ */

typedef enum {
    CHANGE_NONE,
    TEXT,    /* file holds `from` */
    REPLACE, /* the first `from` becomes `to`; in *.safetensors within the header, its length follows, the data is a hole */
    APPEND,  /* `from` at the end */
    RESIZE,  /* cut to `at` bytes, or by -`at` */
    GROW,    /* by `at` bytes of zero */
    LENGTH,  /* the eight bytes at the beginning become `at` */
    NOT_A_NUMBER, /* the first bytes of the tensor `from` become 0x7FC0: NaN in bf16 and f16, 32704 in a whole number */
    PICTURE, /* the bytes of the base64 text `from` */
    REMOVE,
    FOLDER,
    PIPE,
    LINK, /* to `from` */
} change_kind;

typedef struct {
    change_kind kind;
    const char *file; /* within the case's folder */
    const char *from, *to;
    long long   at;
} change;

/* In every text "@model" is the case's model, "@dir" its folder, "@demo" the demo's folder in the source tree. */
typedef struct {
    const char *name;
    int         code;
    const char *says[3];    /* each is part of the error, or of all that is printed when the code is 0 */
    change      changes[4];
    const char *run;        /* words after "nibble", separated by blanks; NULL: both of the commands below */
    const char *model;      /* name of the model's folder; NULL: "model" */
    const char *base;       /* what the model is made of: NULL: the demo; "awq", "gptq": the demo quantized to that format */
    const char *environment; /* NAME=VALUE */
    long long   file_limit; /* bytes; RLIMIT_FSIZE */
    int         signal;     /* sent as soon as the file `when` ("@stdout", "@stderr" or a path) is not empty, or holds `seen` */
    const char *when, *seen;
    const char *to;         /* standard output, a device */
} bad_case;

#define RUN "run @model -p Hi -n 2"
#define QUANTIZE "quantize @model --out @dir/out --data @demo/calib/chat.jsonl --samples 1 --method gptq"
static const char *const both[] = {RUN, QUANTIZE};

/* ---- folders ------------------------------------------------------------------------------------------------------------- */

static char bad_root[64], bad_folder[128], bad_model[256];

static int remove_entry(const char *path, const struct stat *s, int type, struct FTW *walk)
{
    (void)s, (void)type, (void)walk;
    return remove(path);
}

static int remove_root(void **state)
{
    (void)state;
    return bad_root[0] ? nftw(bad_root, remove_entry, 16, FTW_DEPTH | FTW_PHYS) : 0;
}

/* The text with @names filled in; lasts sixteen calls. */
static const char *expand(const char *text)
{
    static nb_buf ring[16];
    static int    turn;
    nb_buf       *out = &ring[turn++ % 16];
    nb_buf_clear(out);
    while (*text) {
        const struct {
            const char *name, *value;
        } names[] = {{"@model", bad_model}, {"@dir", bad_folder}, {"@demo", unit_path("tools/demo")}};
        size_t i = 0;
        while (i < NB_COUNT(names) && strncmp(text, names[i].name, strlen(names[i].name)) != 0) i++;
        if (i < NB_COUNT(names)) {
            nb_buf_str(out, names[i].value);
            text += strlen(names[i].name);
        } else {
            nb_buf_char(out, *text++);
        }
    }
    nb_buf_char(out, 0);
    assert_false(out->failed);
    return out->data;
}

static void read_all(const char *path, nb_buf *out)
{
    char   chunk[4096];
    size_t n;
    FILE  *f = fopen(path, "rb");
    nb_buf_clear(out);
    if (!f) fail_msg("%s: %s", path, strerror(errno));
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0) nb_buf_add(out, chunk, n);
    fclose(f);
    nb_buf_char(out, 0);
    out->size--;
}

static void write_all(const char *path, const void *data, size_t n)
{
    unlink(path); /* a link into the source tree: never written through */
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f) != 0) fail_msg("%s: %s", path, strerror(errno));
}

static bool ends_in(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* The text before the first `from`, `to`, the text after it. */
static void replace_text(nb_buf *text, const change *c)
{
    char *at = strstr(text->data, c->from);
    if (!at) fail_msg("%s does not hold '%s' any more", c->file, c->from);
    nb_buf out = {0};
    nb_buf_add(&out, text->data, (size_t)(at - text->data));
    nb_buf_str(&out, c->to);
    nb_buf_str(&out, at + strlen(c->from));
    nb_buf_free(text);
    *text = out;
}

static uint64_t header_size(const nb_buf *file)
{
    uint64_t n = 0;
    memcpy(&n, file->data, 8); /* both are little-endian */
    return n;
}

static void replace_header(const char *path, const change *c)
{
    nb_buf file = {0}, header = {0};
    read_all(path, &file);
    uint64_t n = header_size(&file), data = file.size - 8 - n;
    nb_buf_add(&header, file.data + 8, n);
    nb_buf_char(&header, 0);
    header.size--;
    replace_text(&header, c);
    while (header.size % 8) nb_buf_char(&header, ' ');
    nb_buf_clear(&file);
    n = header.size;
    nb_buf_add(&file, &n, 8);
    nb_buf_add(&file, header.data, header.size);
    write_all(path, file.data, file.size);
    assert_int_equal(truncate(path, (off_t)(8 + n + data)), 0);
    nb_buf_free(&file);
    nb_buf_free(&header);
}

static void put_nan(nb_buf *file, const char *tensor)
{
    char *entry = strstr(file->data + 8, tensor);
    assert_non_null(entry);
    entry = strstr(entry, "\"data_offsets\":[");
    assert_non_null(entry);
    size_t at = 8 + header_size(file) + strtoull(entry + strlen("\"data_offsets\":["), NULL, 10);
    assert_in_range(at, 8, file->size - 2);
    memcpy(file->data + at, "\xC0\x7F", 2);
}

static void make_change(const change *c)
{
    char        path[512];
    nb_buf      file = {0};
    struct stat s;
    nb_error    err;
    snprintf(path, sizeof path, "%s/%s", bad_folder, c->file);
    const char *from = c->from ? expand(c->from) : "";
    if (c->kind == APPEND || c->kind == REPLACE || c->kind == RESIZE || c->kind == GROW || c->kind == LENGTH || c->kind == NOT_A_NUMBER)
        read_all(path, &file);
    switch (c->kind) {
    case CHANGE_NONE: break;
    case TEXT: write_all(path, from, strlen(from)); break;
    case APPEND:
        nb_buf_str(&file, from);
        write_all(path, file.data, file.size);
        break;
    case REPLACE:
        if (ends_in(path, ".safetensors")) {
            replace_header(path, c);
        } else {
            replace_text(&file, c);
            write_all(path, file.data, file.size);
        }
        break;
    case RESIZE: write_all(path, file.data, c->at < 0 ? file.size - (size_t)-c->at : (size_t)c->at); break;
    case GROW:
        write_all(path, file.data, file.size);
        assert_int_equal(truncate(path, (off_t)file.size + c->at), 0);
        break;
    case LENGTH:
        memcpy(file.data, &c->at, 8);
        write_all(path, file.data, file.size);
        break;
    case NOT_A_NUMBER:
        put_nan(&file, c->from);
        write_all(path, file.data, file.size);
        break;
    case PICTURE:
        OK(nb_base64_decode(&file, from, strlen(from), c->file, &err), &err);
        write_all(path, file.data, file.size);
        break;
    case REMOVE: assert_int_equal(unlink(path), 0); break;
    case FOLDER:
        if (lstat(path, &s) == 0) assert_int_equal(unlink(path), 0);
        assert_int_equal(mkdir(path, 0777), 0);
        break;
    case PIPE:
        unlink(path);
        assert_int_equal(mkfifo(path, 0666), 0);
        break;
    case LINK:
        unlink(path);
        assert_int_equal(symlink(from, path), 0);
        break;
    }
    nb_buf_free(&file);
}

/* Every path in the case's folder with its size and time, sorted. */
static nb_buf listed;

static int note_entry(const char *path, const struct stat *s, int type, struct FTW *walk)
{
    (void)type, (void)walk;
    bool file = S_ISREG(s->st_mode);
    nb_buf_printf(&listed, "%s %lld %lld.%09ld\n", path, file ? (long long)s->st_size : 0, file ? (long long)s->st_mtim.tv_sec : 0,
                  file ? s->st_mtim.tv_nsec : 0L);
    return 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *contents(void)
{
    char  *lines[256], *at;
    size_t n = 0;
    nb_buf out = {0};
    nb_buf_clear(&listed);
    assert_int_equal(nftw(bad_folder, note_entry, 16, FTW_PHYS), 0);
    nb_buf_char(&listed, 0);
    at = listed.data;
    for (char *line; (line = strsep(&at, "\n")) != NULL;)
        if (*line) lines[n++ % NB_COUNT(lines)] = line;
    assert_in_range(n, 1, NB_COUNT(lines));
    qsort(lines, n, sizeof *lines, by_text);
    for (size_t i = 0; i < n; i++) nb_buf_printf(&out, "%s\n", lines[i]);
    nb_buf_char(&out, 0);
    return out.data;
}

/* ---- the program --------------------------------------------------------------------------------------------------------- */

static const char *binary(void)
{
    static char path[1200];
    const char *given = getenv("NIBBLE_BINARY");
    if (given) return given;
    char    self[1024];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = 0;
    snprintf(path, sizeof path, "%s/../nibble", dirname(self));
    return path;
}

/* ---- a case's folder ------------------------------------------------------------------------------------------------------- */

static void link_files(const char *from, const char *to)
{
    DIR *names = opendir(from);
    if (!names) fail_msg("%s: %s", from, strerror(errno));
    for (struct dirent *e; (e = readdir(names)) != NULL;) {
        char link[512], target[1024];
        if (e->d_name[0] == '.') continue;
        snprintf(link, sizeof link, "%s/%s", to, e->d_name);
        snprintf(target, sizeof target, "%s/%s", from, e->d_name);
        assert_int_equal(symlink(target, link), 0);
    }
    closedir(names);
}

static const char *base_model(const char *base)
{
    static char path[128];
    if (!base) return unit_path("tools/demo/model");
    snprintf(path, sizeof path, "%s/%s", bad_root, base);
    if (access(path, F_OK) != 0) {
        char command[2048];
        snprintf(command, sizeof command, "'%s' quantize '%s' --out '%s' --method rtn --format %s -q >/dev/null 2>&1", binary(),
                 unit_path("tools/demo/model"), path, base);
        if (system(command) != 0) fail_msg("%s failed", command);
    }
    return path;
}

static void make_case(const bad_case *c)
{
    if (!bad_root[0]) {
        snprintf(bad_root, sizeof bad_root, "/tmp/nibble-bad-XXXXXX");
        assert_non_null(mkdtemp(bad_root));
    }
    snprintf(bad_folder, sizeof bad_folder, "%s/case", bad_root);
    if (access(bad_folder, F_OK) == 0) assert_int_equal(nftw(bad_folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
    snprintf(bad_model, sizeof bad_model, "%s/%s", bad_folder, c->model ? c->model : "model");
    assert_int_equal(mkdir(bad_folder, 0777), 0);
    assert_int_equal(mkdir(bad_model, 0777), 0);
    link_files(base_model(c->base), bad_model);
    for (size_t i = 0; i < NB_COUNT(c->changes); i++) make_change(&c->changes[i]);
}

/* ---- a run of the program -------------------------------------------------------------------------------------------------- */

static void child(const bad_case *c, const char *command, const char *const out[2])
{
    char *words[40] = {(char *)binary()}, *at = strdup(command);
    int   n = 1;
    for (char *word; (word = strsep(&at, " ")) != NULL && n < 38;) words[n++] = strdup(expand(word));
    for (char **e = environ; *e;) { /* what the user of this test set for nibble is no part of a case */
        if (strncmp(*e, "NIBBLE_", 7) != 0 || strncmp(*e, "NIBBLE_ISA", 10) == 0) {
            e++;
            continue;
        }
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(*e, "="), *e);
        unsetenv(name);
        e = environ;
    }
    setenv("NIBBLE_THREADS", "1", 1);
    if (c->environment) putenv(strdup(expand(c->environment)));
    const char *to[3] = {"/dev/null", c->to ? c->to : out[0], out[1]};
    for (int i = 0; i < 3; i++) {
        int fd = open(to[i], i ? O_WRONLY : O_RDONLY);
        if (fd < 0 || dup2(fd, i) < 0) _exit(126);
        close(fd);
    }
    struct rlimit limit = {(rlim_t)c->file_limit, (rlim_t)c->file_limit}, none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    if (c->file_limit) setrlimit(RLIMIT_FSIZE, &limit);
    execv(words[0], words);
    _exit(127);
}

#if defined(__has_feature) /* clang */
#if __has_feature(address_sanitizer)
#define SECONDS 120
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SECONDS 120
#endif
#ifndef SECONDS
#define SECONDS 20
#endif
static double case_seconds(void)
{
    const char *given = getenv("NIBBLE_CASE_SECONDS");
    return given ? atof(given) : SECONDS;
}

static bool it_is_time(const char *path, const char *seen)
{
    static nb_buf text;
    struct stat   s;
    if (stat(path, &s) != 0 || s.st_size == 0) return false;
    if (!seen) return true;
    read_all(path, &text);
    return strstr(text.data, seen) != NULL;
}

/* The exit code, or 1000 + the signal that ended it, or -1 for one that had to be killed. */
static int spawn(const bad_case *c, const char *command, const char *const out[2])
{
    const char *when = !c->when ? "" : strcmp(c->when, "@stdout") == 0 ? out[0] : strcmp(c->when, "@stderr") == 0 ? out[1] : expand(c->when);
    double      start = nb_seconds();
    bool        sent = !c->signal;
    int         status;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) child(c, command, out);
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (!sent && it_is_time(when, c->seen)) {
            kill(pid, c->signal);
            sent = true;
        }
        if (nb_seconds() - start > case_seconds()) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return -1;
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* ---- the checks ---------------------------------------------------------------------------------------------------------- */

static int cases_run, cases_wrong;

static void __attribute__((format(printf, 3, 4))) wrong(const char *name, const char *text, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fprintf(stderr, "WRONG %s: ", name);
    vfprintf(stderr, format, list);
    fprintf(stderr, "\n    %s\n", text);
    va_end(list);
    cases_wrong++;
}

/* The one error sentence in what stands on standard error; how many there are. */
static int find_error(const char *text, char *line, size_t n)
{
    static const char lead[] = "nibble: error: ";
    int               count = 0;
    *line = 0;
    for (const char *at = text; at && *at; at = strchr(at, '\n'), at += at != NULL) {
        if (strncmp(at, lead, strlen(lead)) != 0) continue;
        snprintf(line, n, "%.*s", (int)strcspn(at + strlen(lead), "\n"), at + strlen(lead));
        count++;
    }
    return count;
}

static void check_command(const bad_case *c, const char *command)
{
    static nb_buf printed[2];
    static char   all[1 << 16];
    char          line[2048], paths[2][100], name[200];
    snprintf(name, sizeof name, "'%s' (nibble %.*s)", c->name, (int)strcspn(command, " "), command);
    for (int i = 0; i < 2; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/std%s", bad_root, i ? "err" : "out");
        write_all(paths[i], "", 0);
    }
    char *before = contents();
    int   code = spawn(c, command, (const char *const[]){paths[0], paths[1]});
    char *after = contents();
    for (int i = 0; i < 2; i++) read_all(paths[i], &printed[i]);
    const char *text = printed[1].data;
    int         errors = find_error(text, line, sizeof line);
    snprintf(all, sizeof all, "%s%s", printed[0].data, text);
    cases_run++;
    if (getenv("NIBBLE_SHOW")) printf("%-46.46s %3d  %s\n", c->name, code, *line ? line : "-");
    if (code == -1) wrong(name, text, "did not end within %.0f s", case_seconds());
    else if (code > 1000) wrong(name, text, "ended by signal %d", code - 1000);
    else if (code != c->code) wrong(name, text, "exit code %d, expected %d", code, c->code);
    if (strstr(text, "Sanitizer") || strstr(text, "runtime error:")) wrong(name, text, "a sanitizer has something to say");
    if (errors != (c->code != 0)) wrong(name, text, "%d error sentences", errors);
    for (size_t i = 0; i < NB_COUNT(c->says) && c->says[i]; i++)
        if (!strstr(c->code ? line : all, expand(c->says[i]))) wrong(name, c->code ? line : all, "does not say '%s'", expand(c->says[i]));
    if (c->code && printed[0].size && !c->signal) wrong(name, printed[0].data, "has a result on standard output");
    bool job = c->signal && (strstr(text, "the same command goes on from there") || /* which leaves OUT.job and OUT.partial, */
                             strstr(text, "--resume goes on from there"));            /* or a log of rows */
    if (job && strstr(after, "/case/out ")) wrong(name, after, "left an output");
    if (c->code && !job && strcmp(before, after) != 0) wrong(name, after, "left something behind; before it was\n%s", before);
    free(before);
    free(after);
}

static void check_cases(const bad_case *cases, size_t n)
{
    int wrong_before = cases_wrong;
    if (access(binary(), X_OK) != 0) fail_msg("%s is not there: build the program first, or set NIBBLE_BINARY", binary());
    for (size_t i = 0; i < n; i++) {
        const bad_case *c = &cases[i];
        for (size_t k = 0; k < (c->run ? 1 : NB_COUNT(both)); k++) {
            make_case(c);
            check_command(c, c->run ? c->run : both[k]);
        }
    }
    assert_int_equal(cases_wrong, wrong_before);
}

#endif
