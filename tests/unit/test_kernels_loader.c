/* test_kernels_loader.c - the GPU plugin is missing, broken or foreign: a sentence, and never a crash.  Each case is a process
 * of its own (this program again, with a case's name), because the loader looks only once. */
#include "unit.h"

#include <dlfcn.h>
#include <sys/wait.h>

#include "kernels/cuda/cuda.h"

/* In the child: ask for a GPU and print what comes back. */
static int ask(void)
{
    nb_error  err = { 0 };
    nb_ops    ops;
    char      text[512];
    nb_status status = nb_cuda_ops_new(&ops, 0, NULL, &err);
    int       count = nb_cuda_device_count(text, sizeof text);
    nb_cuda_ops_free(&ops);
    printf("%d %d %s\n%s\n", status == NB_ERR_UNSUPPORTED, count, err.text, text);
    return 0;
}

/* The answer must be "unsupported, no device" and hold `part` in both texts. */
static void check(const char *plugin, const char *part)
{
    int    pipes[2];
    char   text[4096] = "", program[4096];
    size_t used = 0;
    assert_int_equal(pipe(pipes), 0);
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    assert_true(length > 0);
    program[length] = 0;
    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(pipes[1], 1);
        close(pipes[0]);
        if (plugin)
            setenv("NIBBLE_CUDA_PLUGIN", plugin, 1);
        else
            unsetenv("NIBBLE_CUDA_PLUGIN");
        execl(program, program, "ask", (char *)NULL);
        _exit(127);
    }
    close(pipes[1]);
    for (ssize_t n; used < sizeof text - 1 && (n = read(pipes[0], text + used, sizeof text - 1 - used)) > 0;) used += (size_t)n;
    close(pipes[0]);
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    char *second = strchr(text, '\n');
    assert_non_null(second);
    *second++ = 0;
    if (strncmp(text, "1 0 no GPU can be used: ", 24) || !strstr(text, part) || !strstr(second, part))
        fail_msg("plugin '%s': '%s' and '%s', expected '%s'", plugin ? plugin : "none", text, second, part);
}

static void test_missing(void **state)
{
    (void)state;
    if (dlopen("libnibble_cuda.so", RTLD_LAZY)) {
        fprintf(stderr, "SKIP the search for the plugin: it is installed on this machine\n");
    } else {
        check(NULL, "the GPU backend is not installed");
        check("", "the GPU backend is not installed");
    }
    check("/nowhere/libnibble_cuda.so", "NIBBLE_CUDA_PLUGIN=/nowhere/libnibble_cuda.so is not there");
}

static void test_broken(void **state)
{
    (void)state;
    char path[] = "/tmp/nibble-loader-XXXXXX";
    int  file = mkstemp(path);
    assert_true(file >= 0);
    check(path, "cannot be opened"); /* empty */
    assert_int_equal(write(file, "\177ELF nonsense", 13), 13);
    close(file);
    check(path, "cannot be opened");
    unlink(path);
    check("libm.so.6", "is not a plugin of nibble");
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "ask") == 0) return ask();
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_missing), cmocka_unit_test(test_broken) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
