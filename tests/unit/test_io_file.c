/* Whole files in and out: limits and kinds of file when reading; complete-or-absent when writing, with the disk full
 * (a file size limit stands in for it), a missing or read-only folder, and a target that cannot be replaced. */
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "runtime/io/file.h"

static char folder[] = "/tmp/nibble-file-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[16][160];
    static int  i;
    i = (i + 1) % 16;
    snprintf(path[i], sizeof path[i], "%s/%s", folder, name);
    return path[i];
}

/* Names in a folder, without . and .. */
static int names_in(const char *path)
{
    DIR *d = opendir(path);
    int  n = -2;
    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static void expect_content(const char *path, const char *want)
{
    nb_buf   b;
    nb_error err;
    OK(nb_file_read(&b, path, 1 << 20, &err), &err);
    assert_string_equal(b.data, want);
    nb_buf_free(&b);
}

static void test_paths(void **state)
{
    (void)state;
    static const char *joins[][3] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"},        {"/", "b", "/b"}, {"a", "/b", "/b"},
                                     {"", "b", "b"},    {"a/b", "c/d", "a/b/c/d"}, {".", "x", "./x"}};
    for (size_t i = 0; i < NB_COUNT(joins); i++) {
        char *p = nb_path_join(joins[i][0], joins[i][1]);
        assert_string_equal(p, joins[i][2]);
        free(p);
    }
    static const char *folders[][2] = {{"a/b", "a"},  {"b", "."},   {"/b", "/"},    {"/", "/"},
                                       {"a/b/", "a"}, {"a/", "."},  {"", "."},      {"/a/b/c.json", "/a/b"},
                                       {"a//b", "a"}, {"./x", "."}, {"../x", ".."}, {"//x", "/"}};
    for (size_t i = 0; i < NB_COUNT(folders); i++) {
        char *p = nb_path_folder(folders[i][0]);
        if (strcmp(p, folders[i][1])) fail_msg("folder of '%s' is '%s'", folders[i][0], p);
        free(p);
    }
    assert_true(nb_file_exists(folder));
    assert_true(nb_is_directory(folder));
    assert_true(nb_file_exists("/etc/passwd"));
    assert_false(nb_is_directory("/etc/passwd"));
    assert_false(nb_file_exists(in_folder("nothing")));
}

static void test_read(void **state)
{
    (void)state;
    nb_error err;
    nb_buf   b = {.data = (char *)1}; /* whatever stood there is not freed */
    OK(nb_file_write_atomic(in_folder("five"), "12345", 5, &err), &err);
    OK(nb_file_read(&b, in_folder("five"), 5, &err), &err);
    assert_int_equal(b.size, 5);
    assert_string_equal(b.data, "12345");
    nb_buf_str(&b, "678"); /* the buffer goes on as any other */
    assert_string_equal(b.data, "12345678");
    nb_buf_free(&b);
    FAILS(nb_file_read(&b, in_folder("five"), 4, &err), NB_ERR_INPUT, "has 5 bytes, more than the 4 allowed", &err);
    assert_null(b.data);
    OK(nb_file_write_atomic(in_folder("empty"), "", 0, &err), &err);
    OK(nb_file_read(&b, in_folder("empty"), 0, &err), &err);
    assert_int_equal(b.size, 0);
    assert_string_equal(b.data, "");
    nb_buf_free(&b);
    FAILS(nb_file_read(&b, in_folder("nothing"), 9, &err), NB_ERR_INPUT, "no such file", &err);
    FAILS(nb_file_read(&b, folder, 9, &err), NB_ERR_INPUT, "is a folder", &err);
    FAILS(nb_file_read(&b, "/dev/zero", SIZE_MAX, &err), NB_ERR_INPUT, "is a device", &err);
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    FAILS(nb_file_read(&b, in_folder("fifo"), 9, &err), NB_ERR_INPUT, "is a FIFO", &err);
    /* The limit is looked at before memory is: 1 TB on paper. */
    int fd = open(in_folder("sparse"), O_RDWR | O_CREAT, 0600);
    if (ftruncate(fd, 1ll << 40) == 0)
        FAILS(nb_file_read(&b, in_folder("sparse"), 1 << 20, &err), NB_ERR_INPUT, "1099511627776 bytes", &err);
    close(fd);
    unlink(in_folder("sparse"));
    assert_null(b.data);
}

static void test_read_at(void **state)
{
    (void)state;
    nb_error err;
    uint64_t size;
    int      fd;
    char     data[8] = "........";
    OK(nb_file_write_atomic(in_folder("at"), "0123456789", 10, &err), &err);
    OK(nb_open_regular(&fd, &size, in_folder("at"), &err), &err);
    assert_int_equal(size, 10);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    OK(nb_read_at(fd, data, 3, 7, "f", &err), &err);
    assert_memory_equal(data, "789.....", 8);
    OK(nb_read_at(fd, data, 0, 99, "f", &err), &err);
    FAILS(nb_read_at(fd, data, 4, 7, "f", &err), NB_ERR_INPUT, "f: ends at byte 10, 1 bytes short", &err);
    FAILS(nb_read_at(fd, data, 4, UINT64_MAX - 1, "f", &err), NB_ERR_ARGUMENT, "beyond what a file can hold", &err);
    FAILS(nb_read_at(fd, data, 4, 1ull << 63, "f", &err), NB_ERR_ARGUMENT, "beyond", &err);
    close(fd);
    FAILS(nb_read_at(fd, data, 4, 0, "f", &err), NB_ERR_IO, "f: cannot read 4 bytes at byte 0", &err);
    FAILS(nb_write_all(fd, data, 4, "f", &err), NB_ERR_IO, "f: cannot write 4 of 4 bytes", &err);
    FAILS(nb_open_regular(&fd, NULL, in_folder("nothing"), &err), NB_ERR_INPUT, "no such file", &err);
    assert_int_equal(fd, -1);
}

static void test_write(void **state)
{
    (void)state;
    nb_error    err;
    const char *path = in_folder("out/file");
    assert_int_equal(mkdir(in_folder("out"), 0700), 0);
    OK(nb_file_write_atomic(path, "first", 5, &err), &err);
    expect_content(path, "first");
    int old = open(path, O_RDONLY); /* a reader that has the old file keeps it whole */
    OK(nb_file_write_atomic(path, "the second", 10, &err), &err);
    expect_content(path, "the second");
    char data[8] = "";
    assert_int_equal(read(old, data, 8), 5);
    assert_string_equal(data, "first");
    close(old);
    assert_int_equal(names_in(in_folder("out")), 1); /* no temporary left */
    struct stat s;
    mode_t      mask = umask(0);
    umask(mask);
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_mode & 0777, 0666 & ~mask);
    FAILS(nb_file_write_atomic(in_folder("absent/file"), "x", 1, &err), NB_ERR_IO, "No such file", &err);
    FAILS(nb_file_write_atomic(in_folder("out"), "x", 1, &err), NB_ERR_IO, "cannot be replaced", &err);
    assert_int_equal(names_in(folder) >= 1, 1);
    /* A bare name goes to the working directory. */
    char before[512];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(in_folder("out")), 0);
    OK(nb_file_write_atomic("bare", "b", 1, &err), &err);
    assert_int_equal(chdir(before), 0);
    expect_content(in_folder("out/bare"), "b");
    assert_int_equal(names_in(in_folder("out")), 2);
}

/* With RLIMIT_FSIZE at 64 KiB a write of 1 MB gets part of the way, as on a full disk. */
static void test_no_room(void **state)
{
    (void)state;
    nb_error    err;
    const char *path = in_folder("full/file"), *copy = in_folder("full/copy");
    char       *data = calloc(1, 1 << 20);
    assert_int_equal(mkdir(in_folder("full"), 0700), 0);
    OK(nb_file_write_atomic(path, "old", 3, &err), &err);
    OK(nb_file_write_atomic(in_folder("source"), data, 1 << 20, &err), &err);
    struct rlimit whole, small;
    getrlimit(RLIMIT_FSIZE, &whole);
    small          = whole;
    small.rlim_cur = 65536;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    nb_error  write_err = {0}, copy_err = {0};
    nb_status write_status = nb_file_write_atomic(path, data, 1 << 20, &write_err);
    nb_status copy_status  = nb_file_copy(in_folder("source"), copy, &copy_err);
    setrlimit(RLIMIT_FSIZE, &whole);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(write_status, NB_ERR_IO);
    assert_non_null(strstr(write_err.text, "full/file: cannot write 983040 of 1048576 bytes: File too large"));
    assert_int_equal(copy_status, NB_ERR_IO);
    assert_non_null(strstr(copy_err.text, "full/copy: cannot write"));
    expect_content(path, "old");
    assert_int_equal(names_in(in_folder("full")), 1); /* neither a temporary nor half a copy */
    free(data);
}

/* /dev/full takes nothing: ENOSPC by name. */
static void test_full_device(void **state)
{
    (void)state;
    nb_error err;
    int      fd = open("/dev/full", O_WRONLY);
    if (fd < 0) skip();
    FAILS(nb_write_all(fd, "abc", 3, "out.bin", &err), NB_ERR_IO,
          "out.bin: cannot write 3 of 3 bytes: No space left on device", &err);
    close(fd);
}

/* A writer killed at any moment leaves the old file or the new one. */
static void test_killed_writer(void **state)
{
    (void)state;
    nb_error    err;
    const char *path = in_folder("killed/file");
    assert_int_equal(mkdir(in_folder("killed"), 0700), 0);
    char *data[2];
    for (int i = 0; i < 2; i++) {
        data[i] = malloc(300001);
        memset(data[i], 'A' + i, 300000);
        data[i][300000] = 0;
    }
    OK(nb_file_write_atomic(path, data[0], 300000, &err), &err);
    for (int round = 0; round < 20; round++) {
        pid_t child = fork();
        if (child == 0)
            for (int i = 0;; i++) nb_file_write_atomic(path, data[i % 2], 300000, NULL);
        usleep((unsigned)(500 + 731 * round));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        nb_buf b;
        OK(nb_file_read(&b, path, 300000, &err), &err);
        assert_int_equal(b.size, 300000);
        if (strcmp(b.data, data[0]) && strcmp(b.data, data[1])) fail_msg("a mixed file after kill %d", round);
        nb_buf_free(&b);
    }
    for (int i = 0; i < 2; i++) free(data[i]);
}

static void test_copy(void **state)
{
    (void)state;
    nb_error err;
    size_t   n    = (1 << 20) + 12345; /* more than one chunk */
    char    *data = malloc(n);
    uint64_t seed = 9;
    for (size_t i = 0; i < n; i++) data[i] = (char)unit_random(&seed);
    OK(nb_file_write_atomic(in_folder("from"), data, n, &err), &err);
    OK(nb_file_copy(in_folder("from"), in_folder("to"), &err), &err);
    nb_buf b;
    OK(nb_file_read(&b, in_folder("to"), n, &err), &err);
    assert_int_equal(b.size, n);
    assert_memory_equal(b.data, data, n);
    nb_buf_free(&b);
    FAILS(nb_file_copy(in_folder("from"), in_folder("to"), &err), NB_ERR_IO, "cannot be created: File exists", &err);
    assert_true(nb_file_exists(in_folder("to"))); /* what stood there is not removed */
    FAILS(nb_file_copy(in_folder("nothing"), in_folder("to2"), &err), NB_ERR_INPUT, "no such file", &err);
    FAILS(nb_file_copy(folder, in_folder("to2"), &err), NB_ERR_INPUT, "is a folder", &err);
    assert_false(nb_file_exists(in_folder("to2")));
    free(data);
}

static void test_remove_folder(void **state)
{
    (void)state;
    nb_error err;
    OK(nb_remove_folder(in_folder("never"), &err), &err);
    assert_int_equal(mkdir(in_folder("gone"), 0700), 0);
    OK(nb_file_write_atomic(in_folder("gone/a"), "a", 1, &err), &err);
    OK(nb_file_write_atomic(in_folder("gone/.b"), "b", 1, &err), &err);
    assert_int_equal(symlink("/etc", in_folder("gone/link")), 0); /* a link to a folder is a plain thing to remove */
    OK(nb_remove_folder(in_folder("gone"), &err), &err);
    assert_false(nb_file_exists(in_folder("gone")));
    assert_true(nb_file_exists("/etc/passwd"));

    assert_int_equal(mkdir(in_folder("keep"), 0700), 0);
    assert_int_equal(mkdir(in_folder("keep/inner"), 0700), 0);
    OK(nb_file_write_atomic(in_folder("keep/a"), "a", 1, &err), &err);
    FAILS(nb_remove_folder(in_folder("keep"), &err), NB_ERR_IO, "holds the folder 'inner'", &err);
    assert_true(nb_file_exists(in_folder("keep/a"))); /* nothing was removed */
    FAILS(nb_remove_folder(in_folder("keep/a"), &err), NB_ERR_IO, "not a folder", &err);
    assert_int_equal(symlink("keep", in_folder("alias")), 0);
    FAILS(nb_remove_folder(in_folder("alias"), &err), NB_ERR_IO, "not a folder", &err);
    rmdir(in_folder("keep/inner"));
    OK(nb_remove_folder(in_folder("keep"), &err), &err);
    OK(nb_fsync_folder(folder, &err), &err);
    FAILS(nb_fsync_folder(in_folder("never"), &err), NB_ERR_IO, "cannot open the folder", &err);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *inner[] = {"out", "full", "killed"};
    for (size_t i = 0; i < NB_COUNT(inner); i++) nb_remove_folder(in_folder(inner[i]), NULL);
    return nb_remove_folder(folder, NULL) == NB_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),         cmocka_unit_test(test_read),          cmocka_unit_test(test_read_at),
        cmocka_unit_test(test_write),         cmocka_unit_test(test_no_room),       cmocka_unit_test(test_full_device),
        cmocka_unit_test(test_killed_writer), cmocka_unit_test(test_copy),          cmocka_unit_test(test_remove_folder),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
