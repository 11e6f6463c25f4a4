/* sweep.c - run a command once undisturbed, then once for every call that changes a file, with that call going wrong; and look at what
 * is left, and at what the same command makes of it.
 *
 *     fault_sweep [flags] NAME SHIM WORK RESULT -- PROGRAM ARGUMENT...
 *
 *     NAME        what to call it in the table
 *     SHIM        the library of shim.c
 *     WORK        an empty folder; everything that the command writes is in it
 *     RESULT      name of the file or folder in WORK that the command makes
 *     --old DIR   before every run WORK/RESULT is a copy of this folder, and the command replaces it
 *     --how A,B   kinds of faults (shim.c); all of them without it
 *     --every N   only every Nth call, beginning with --first F (1)
 *
 * After a kill RESULT is absent, old or complete, and the command (or `PROGRAM resume RESULT`, when there is a RESULT.job and RESULT is
 * complete) makes it complete, with the bytes of the undisturbed run, and leaves nothing else.  After an error either the command ended
 * well, with those bytes, or it said so (exit code 1 or 4, a message that names a path in WORK and what the system said), left RESULT
 * absent, old or complete, and nothing beside it but RESULT.job and RESULT.partial; and then it goes on as after a kill.  One row a
 * kind of fault is printed: calls tried, killed, ended with an error, ended well; after those that did not end well RESULT was absent,
 * old, complete.  The exit code is 1 when anything was otherwise.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

enum { PATH = 4096, CALLS = 4096 };

static const char *name, *shim, *work, *result, *old_dir;
static char      **command;
static char        log_path[PATH], said_path[PATH];
static char        calls[CALLS][16]; /* of the undisturbed run, by number */
static long        call_count, problems;
static uint64_t    want, old;        /* hashes of RESULT */

/* ---- files ------------------------------------------------------------------------------------------------------------- */

static void join(char out[PATH], const char *folder, const char *file)
{
    snprintf(out, PATH, "%.2000s/%.2000s", folder, file);
}

static void *read_all(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    *n = 0;
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long  size = ftell(f);
    char *data = malloc((size_t)size + 1);
    rewind(f);
    if (!data || fread(data, 1, (size_t)size, f) != (size_t)size) abort();
    data[size] = 0;
    fclose(f);
    *n = (size_t)size;
    return data;
}

/* Names and contents, in any order; 0 when there is nothing. */
static uint64_t hash_of(const char *path)
{
    struct stat st;
    size_t      n;
    uint64_t    sum = 1;
    if (stat(path, &st)) return 0;
    if (!S_ISDIR(st.st_mode)) {
        void *data = read_all(path, &n);
        sum = XXH64(data, n, 7);
        free(data);
        return sum;
    }
    DIR *dir = opendir(path);
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        char inner[PATH];
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        join(inner, path, e->d_name);
        uint64_t h = hash_of(inner);
        sum += XXH64(&h, sizeof h, XXH64(e->d_name, strlen(e->d_name), 0));
    }
    if (dir) closedir(dir);
    return sum;
}

static void remove_all(const char *path, bool itself)
{
    DIR *dir = opendir(path);
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        char inner[PATH];
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        join(inner, path, e->d_name);
        if (unlink(inner)) remove_all(inner, true);
    }
    if (dir) closedir(dir);
    if (itself) rmdir(path);
}

static void copy_folder(const char *from, const char *to)
{
    DIR *dir = opendir(from);
    if (!dir || mkdir(to, 0777)) abort();
    for (const struct dirent *e; (e = readdir(dir));) {
        char   a[PATH], b[PATH];
        size_t n;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        join(a, from, e->d_name);
        join(b, to, e->d_name);
        void *data = read_all(a, &n);
        FILE *f = fopen(b, "wb");
        if (!f || fwrite(data, 1, n, f) != n || fclose(f)) abort();
        free(data);
    }
    closedir(dir);
}

static void make_ready(void)
{
    char path[PATH];
    remove_all(work, false);
    join(path, work, result);
    if (old_dir) copy_folder(old_dir, path);
}

/* Is there anything in WORK but RESULT and, when they may be there, its .job and .partial? */
static bool leftovers(bool job, char what[PATH])
{
    bool found = false;
    DIR *dir = opendir(work);
    for (const struct dirent *e; dir && !found && (e = readdir(dir));) {
        size_t n = strlen(result);
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || !strcmp(e->d_name, result)) continue;
        bool known = !strncmp(e->d_name, result, n) && (!strcmp(e->d_name + n, ".job") || !strcmp(e->d_name + n, ".partial"));
        if (job && known) continue;
        snprintf(what, PATH, "%s", e->d_name);
        found = true;
    }
    if (dir) closedir(dir);
    return found;
}

/* ---- runs -------------------------------------------------------------------------------------------------------------- */

/* The exit code, or minus the signal.  how NULL: nothing goes wrong. */
static int run(char **words, const char *how, long at)
{
    pid_t child = fork();
    int   code;
    if (child == 0) {
        char number[32];
        snprintf(number, sizeof number, "%ld", at);
        setenv("LD_PRELOAD", shim, 1);
        setenv("FAULT_UNDER", work, 1);
        if (how) {
            setenv("FAULT_HOW", how, 1);
            setenv("FAULT_AT", number, 1);
        } else {
            setenv("FAULT_LOG", log_path, 1);
        }
        int said = open(said_path, O_WRONLY | O_CREAT | O_TRUNC, 0666), null = open("/dev/null", O_WRONLY);
        if (said < 0 || null < 0 || dup2(null, 1) < 0 || dup2(said, 2) < 0) _exit(120);
        execv(words[0], words);
        _exit(121);
    }
    if (waitpid(child, &code, 0) != child) abort();
    return WIFSIGNALED(code) ? -WTERMSIG(code) : WEXITSTATUS(code);
}

static int again(void)
{
    char  place[PATH], job[PATH + 8];
    char *resume[] = {command[0], (char *)"resume", place, NULL};
    struct stat st;
    join(place, work, result);
    snprintf(job, sizeof job, "%s.job", place);
    bool complete = hash_of(place) == want;
    if (complete && stat(job, &st) == 0) return run(resume, NULL, 0);
    return complete ? 0 : run(command, NULL, 0);
}

static void problem(const char *how, long at, const char *what, const char *more)
{
    size_t n;
    char  *said = read_all(said_path, &n);
    printf("PROBLEM %s: %s at call %ld (%s): %s%s\n%s", name, how, at, at <= call_count ? calls[at] : "?", what, more, said ? said : "");
    free(said);
    problems++;
}

/* ---- one kind of fault ----------------------------------------------------------------------------------------------------- */

typedef struct {
    long points, killed, refused, well, absent, was_old, complete;
} row;

/* After a failure RESULT is one of three things. */
static void look(row *r, const char *how, long at)
{
    char place[PATH];
    join(place, work, result);
    uint64_t h = hash_of(place);
    if (!h) r->absent++;
    else if (h == want) r->complete++;
    else if (old_dir && h == old) r->was_old++;
    else problem(how, at, "the result is neither absent nor old nor complete", "");
    if (old_dir && !h) problem(how, at, "the old result is gone", "");
}

static bool message_is_good(const char *how)
{
    const char *cause = !strcmp(how, "enospc") ? "No space left on device" : !strcmp(how, "edquot") ? "Disk quota exceeded"
                                                                                                    : "Input/output error";
    size_t n;
    char  *said = read_all(said_path, &n);
    bool   good = said && strstr(said, "nibble: error: ") && strstr(said, work) && strstr(said, cause);
    free(said);
    return good;
}

static void one(row *r, const char *how, long at)
{
    char what[PATH], place[PATH];
    bool kills = !strcmp(how, "kill") || !strcmp(how, "torn");
    join(place, work, result);
    make_ready();
    int code = run(command, how, at);
    r->points++;
    if (kills) {
        if (code != -SIGKILL) problem(how, at, "was not killed", "");
        r->killed++;
        look(r, how, at);
    } else if (code == 0) {
        r->well++;
        if (hash_of(place) != want) problem(how, at, "ended well with other bytes", "");
    } else {
        r->refused++;
        if (code != 1 && code != 4) problem(how, at, "another exit code than 1 or 4", "");
        if (!message_is_good(how)) problem(how, at, "the message does not say where and why", "");
        if (leftovers(true, what)) problem(how, at, "left behind: ", what);
        look(r, how, at);
    }
    code = again();
    if (code) problem(how, at, "the command does not go on", "");
    if (hash_of(place) != want) problem(how, at, "other bytes than those of the undisturbed run", "");
    bool removing = !strcmp(calls[at], "unlink"); /* what cannot be removed stays */
    if (!kills && leftovers(removing, what)) problem(how, at, "left behind at the end: ", what);
}

static void read_log(void)
{
    FILE *f = fopen(log_path, "r");
    long  n;
    char  call[16], path[PATH];
    while (f && fscanf(f, "%ld %15s %4095[^\n]", &n, call, path) == 3) {
        if (n >= CALLS) abort();
        strcpy(calls[n], call);
        call_count = n;
    }
    if (f) fclose(f);
}

static void print_calls(void)
{
    static const char *const kinds[] = {"openat", "write", "pwrite", "fsync", "fdatasync", "fallocate", "ftruncate", "rename", "mkdir",
                                        "unlink", "close"};
    printf("%s: %ld calls:", name, call_count);
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        long n = 0;
        for (long i = 1; i <= call_count; i++) n += !strcmp(calls[i], kinds[k]);
        if (n) printf(" %ld %s", n, kinds[k]);
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    char hows[200] = "kill,torn,enospc,edquot,eio,short", place[PATH];
    long every = 1, first = 1;
    int  i = 1;
    for (; i + 1 < argc && !strncmp(argv[i], "--", 2); i += 2) {
        if (!strcmp(argv[i], "--old")) old_dir = argv[i + 1];
        else if (!strcmp(argv[i], "--how")) snprintf(hows, sizeof hows, "%s", argv[i + 1]);
        else if (!strcmp(argv[i], "--every")) every = atol(argv[i + 1]);
        else if (!strcmp(argv[i], "--first")) first = atol(argv[i + 1]);
    }
    if (argc - i < 6 || strcmp(argv[i + 4], "--") || every < 1 || first < 1) {
        fprintf(stderr, "usage: fault_sweep [--old DIR] [--how A,B] [--every N] [--first N] NAME SHIM WORK RESULT -- PROGRAM ARGUMENT...\n");
        return 2;
    }
    name = argv[i], shim = argv[i + 1], work = argv[i + 2], result = argv[i + 3];
    command = argv + i + 5;
    snprintf(log_path, sizeof log_path, "%.4000s.calls", work);
    snprintf(said_path, sizeof said_path, "%.4000s.said", work);
    unlink(log_path);
    make_ready();
    join(place, work, result);
    old = hash_of(place);
    if (run(command, NULL, 0)) {
        problem("nothing", 0, "the command fails undisturbed", "");
        return 1;
    }
    want = hash_of(place);
    read_log();
    print_calls();
    for (const char *how = strtok(hows, ","); how; how = strtok(NULL, ",")) {
        row r = {0};
        for (long at = first; at <= call_count; at += every) one(&r, how, at);
        printf("| %s | %s | %ld | %ld | %ld | %ld | %ld | %ld | %ld |\n", name, how, r.points, r.killed, r.refused, r.well, r.absent,
               r.was_old, r.complete);
        fflush(stdout);
    }
    unlink(log_path);
    unlink(said_path);
    remove_all(work, false);
    if (problems) printf("%ld problems\n", problems);
    return problems != 0;
}
