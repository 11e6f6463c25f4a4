/* test_tools_pull.c - `nibble pull` against a hub on this machine (tests/check/hub_server.py): what it fetches, what it resumes, to
 * whom it shows the token, and what it refuses.  No other host is contacted.  Needs python3. */
#include "unit.h"

#ifdef NIBBLE_CURL

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "program.h"
#include "runtime/io/file.h"
#include "tools/hub/digest.h"
#include "tools/hub/hub.h"

enum { BIG = 300000 };

static char  folder[64], endpoint[64];
static pid_t server;
static int   server_input = -1;
static bool  have_server;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static const char *in_folder(const char *name)
{
    static char path[8][200];
    static int  i;
    i = (i + 1) % 8;
    snprintf(path[i], sizeof path[i], "%s/%s", folder, name);
    return path[i];
}

static int start_server(void **state)
{
    int  in[2], out[2], ports[2] = {0};
    char line[64] = "", log[200];
    (void)state;
    unsetenv("HF_TOKEN");
    unsetenv("HF_ENDPOINT");
    setenv("no_proxy", "*", 1);
    setenv("NO_PROXY", "*", 1);
    snprintf(folder, sizeof folder, "/tmp/nibble-pull-XXXXXX");
    if (!mkdtemp(folder) || pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) return -1;
    snprintf(log, sizeof log, "%s", in_folder("log"));
    server = fork();
    if (server == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execlp("python3", "python3", unit_path("tests/check/hub_server.py"), log, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    server_input = in[1];
    for (size_t n = 0; n + 1 < sizeof line && !strchr(line, '\n');) {
        ssize_t got = read(out[0], line + n, sizeof line - 1 - n);
        if (got <= 0) break;
        n += (size_t)got;
    }
    close(out[0]);
    have_server = sscanf(line, "%d %d", &ports[0], &ports[1]) == 2;
    snprintf(endpoint, sizeof endpoint, "http://127.0.0.1:%d", ports[0]);
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    close(server_input);
    waitpid(server, NULL, 0);
    return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

#define NEEDS_SERVER()                                                                     \
    do {                                                                                   \
        if (!have_server) {                                                                \
            fprintf(stderr, "SKIP %s: python3 is missing or does not serve\n", __func__);  \
            skip();                                                                        \
        }                                                                                  \
    } while (0)

/* nibble pull t/REPO --out FOLDER/out ARGUMENTS..., its streams in printed. */
static int pull(const char *repo, int argc, const char *const *argv)
{
    char        name[64];
    const char *words[32] = {"pull", name, "--out", in_folder("out"), "--endpoint", endpoint, "--retry-wait", "0.001"};
    int         n = 8;
    snprintf(name, sizeof name, "t/%s", repo);
    for (int i = 0; i < argc; i++) words[n++] = argv[i];
    return run_program(NULL, n, words);
}
#define PULL(repo, ...)                                                                                             \
    pull(repo, (int)NB_COUNT(((const char *const[]){NULL, ##__VA_ARGS__})) - 1, (const char *const[]){NULL, ##__VA_ARGS__} + 1)

static void drop(void)
{
    nftw(in_folder("out"), remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void forget_log(void)
{
    assert_int_equal(truncate(in_folder("log"), 0), 0);
}

/* How many lines of the log hold all three. */
static int logged(const char *a, const char *b, const char *c)
{
    FILE *f = fopen(in_folder("log"), "r");
    char  line[1000];
    int   n = 0;
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) n += strstr(line, a) && strstr(line, b) && strstr(line, c);
    fclose(f);
    return n;
}

static void file_is(const char *name, size_t size, const char *sha256)
{
    char     digest[65], path[300];
    nb_error err;
    uint64_t found;
    int      fd;
    snprintf(path, sizeof path, "%s/%s", in_folder("out"), name);
    OK(nb_open_regular(&fd, &found, path, &err), &err);
    assert_int_equal(found, size);
    OK(nb_digest_file(digest, fd, size, NB_DIGEST_SHA256, path, NULL, NULL, &err), &err);
    close(fd);
    if (sha256) assert_string_equal(digest, sha256);
}

static bool is_there(const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", in_folder("out"), name);
    return nb_file_exists(path);
}

/* SHA-256 of the server's big file, by Python's hashlib (random.Random(7).randbytes(300000)). */
static const char *big_digest(void)
{
    return "28ec62d1afe0845bef1af10d9623b386d7d3ef1fd3fa3e0e5404bb3d475f7af3";
}

static void all_there(void)
{
    file_is("config.json", 9, NULL);
    file_is("model.safetensors", BIG, big_digest());
    file_is("sub dir/notes.txt", 60, NULL);
    file_is("empty.txt", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_false(is_there(".gitattributes"));
    assert_false(is_there("model.safetensors.part"));
}

static void test_fetches(void **state)
{
    (void)state;
    NEEDS_SERVER();
    forget_log();
    assert_int_equal(PULL("good"), 0);
    all_there();
    holds(printed[1], "4 files, 300 kB; 4 to fetch");
    holds(printed[0], "complete and checked; 4 fetched");
    /* of the commit; nothing for the empty one */
    assert_int_equal(logged("/t/good/resolve/0123456789abcdef", "auth=None", "range=None"), 3);
    forget_log();
    assert_int_equal(PULL("good", "--json"), 0); /* again: only checked */
    assert_int_equal(logged("/resolve/", "", ""), 0);
    holds(printed[0], "\"fetched\": false");
    holds(printed[0], "\"checked_by\": \"sha256\"");
    holds(printed[0], "\"commit\": \"0123456789abcdef0123456789abcdef01234567\"");
    /* a file that differs is not replaced unasked */
    FILE *f = fopen(in_folder("out/config.json"), "w");
    fputs("{\"a\": 2}\n", f);
    fclose(f);
    assert_int_equal(PULL("good"), 2);
    holds(printed[1], "config.json differs from the hub's file");
    assert_int_equal(PULL("good", "--force"), 0);
    all_there();
    drop();
    assert_int_equal(PULL("good", "--include", "*.json", "--include", "sub*", "--exclude", "*notes*"), 0);
    assert_true(is_there("config.json") && !is_there("model.safetensors") && !is_there("sub dir"));
    assert_int_equal(PULL("good", "--include", "*.bin"), 2);
    drop();
    forget_log();
    assert_int_equal(PULL("ms", "--hub", "modelscope"), 0);
    all_there();
    assert_int_equal(logged("/api/v1/models/t/ms/repo?Revision=master&FilePath=sub%20dir%2Fnotes.txt", "", ""), 1);
    drop();
}

static void test_resumes(void **state)
{
    (void)state;
    NEEDS_SERVER();
    forget_log();
    assert_int_equal(PULL("cut"), 0); /* cut off, then the rest */
    all_there();
    holds(printed[1], "trying again in");
    assert_int_equal(logged("/model.safetensors", "range=bytes=200000-", ""), 1);
    drop();
    assert_int_equal(PULL("norange"), 0); /* the server starts from the beginning instead */
    all_there();
    drop();
    assert_int_equal(PULL("trickle", "--retries", "1"), 0); /* eight pieces: progress forgives */
    all_there();
    drop();
    assert_int_equal(PULL("stuck", "--retries", "3"), 1); /* and no progress does not */
    holds(printed[1], "(3 of 3)");
    assert_true(is_there("model.safetensors.part"));
    forget_log();
    assert_int_equal(PULL("good"), 0); /* the piece is used by the next run */
    assert_int_equal(logged("/model.safetensors", "range=bytes=1000-", ""), 1);
    all_there();
    /* a piece of something else is noticed by the digest and fetched again */
    assert_int_equal(rename(in_folder("out/model.safetensors"), in_folder("out/model.safetensors.part")), 0);
    int fd = open(in_folder("out/model.safetensors.part"), O_RDWR);
    assert_int_equal(pwrite(fd, "wrong", 5, 77), 5);
    assert_int_equal(ftruncate(fd, 123456), 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(PULL("good"), 1);
    holds(printed[1], "another program is fetching it");
    close(fd);
    forget_log();
    assert_int_equal(PULL("good"), 0);
    holds(printed[1], "does not belong to this version");
    assert_int_equal(logged("/model.safetensors", "range=bytes=123456-", ""), 1);
    assert_int_equal(logged("/model.safetensors", "range=None", ""), 1);
    all_there();
    /* a piece longer than the file is of no use */
    assert_int_equal(rename(in_folder("out/model.safetensors"), in_folder("out/model.safetensors.part")), 0);
    assert_int_equal(truncate(in_folder("out/model.safetensors.part"), BIG + 1), 0);
    assert_int_equal(PULL("good"), 0);
    all_there();
    drop();
    assert_int_equal(PULL("busy"), 0); /* two 503 for the list and two for the file */
    all_there();
    drop();
}

static bool stop_after(void *context, const char *name, uint64_t more)
{
    int64_t *left = context;
    (void)name;
    *left -= (int64_t)more;
    return *left > 0;
}

static void test_stops(void **state)
{
    (void)state;
    NEEDS_SERVER();
    nb_error           err;
    nb_hub             hub = {.endpoint = endpoint, .repo = "t/good", .revision = "main", .retries = 3, .wait_s = 0.001};
    nb_hub_connection *c;
    nb_hub_list        list;
    int64_t            left = 50000;
    const char        *only[] = {"model*"};
    OK(nb_hub_connect(&c, &hub, stop_after, &left, &err), &err);
    OK(nb_hub_list_files(&list, c, &err), &err);
    assert_int_equal(list.count, 4);
    assert_int_equal(list.hidden, 1);
    nb_hub_list_filter(&list, only, 1, NULL, 0);
    assert_int_equal(list.count, 1);
    mkdir(in_folder("out"), 0700);
    FAILS(nb_hub_fetch(c, &list, &list.files[0], in_folder("out"), &err), NB_ERR_STOPPED, "goes on where it was", &err);
    assert_false(is_there("model.safetensors"));
    assert_true(is_there("model.safetensors.part"));
    nb_hub_state what;
    uint64_t     have;
    left = 1;
    OK(nb_hub_look(&what, &have, &list.files[0], in_folder("out"), stop_after, &left, &err), &err);
    assert_true(what == NB_HUB_PARTIAL && have >= 50000 && have < BIG);
    left = BIG;
    OK(nb_hub_fetch(c, &list, &list.files[0], in_folder("out"), &err), &err);
    file_is("model.safetensors", BIG, big_digest());
    nb_hub_list_free(&list);
    nb_hub_disconnect(c);
    drop();
}

static void test_token(void **state)
{
    (void)state;
    NEEDS_SERVER();
    assert_int_equal(PULL("private"), 5);
    holds(printed[1], "needs a token");
    forget_log();
    assert_int_equal(PULL("private", "--token", "hf_secret"), 0);
    all_there();
    assert_int_equal(logged("", "", ""), logged("auth=Bearer hf_secret", "", "")); /* its own host sees it each time */
    drop();
    forget_log();
    setenv("HF_TOKEN", "hf_secret", 1);
    assert_int_equal(PULL("redirect"), 0);
    all_there();
    assert_int_equal(logged("main /t/redirect/resolve", "model.safetensors", "auth=Bearer hf_secret"), 1);
    assert_int_equal(logged("other /file", "auth=None", ""), 1);
    drop();
    assert_int_equal(PULL("back"), 0); /* away and back: still without */
    assert_int_equal(logged("other /back", "auth=None", ""), 1);
    assert_int_equal(logged("main /t/good/resolve/x/model", "auth=None", ""), 1);
    assert_int_equal(logged("other", "Bearer", ""), 0);
    drop();
    forget_log();
    assert_int_equal(PULL("same"), 0);
    assert_int_equal(logged("main /t/good/resolve/x/model", "auth=Bearer hf_secret", ""), 1);
    drop();
    forget_log();
    assert_int_equal(PULL("ms", "--hub", "modelscope"), 0); /* not this hub's token */
    assert_int_equal(logged("Bearer", "", ""), 0);
    drop();
    assert_int_equal(PULL("good", "--endpoint", "http://192.0.2.1"), 2); /* refused before anything is sent */
    holds(printed[1], "HF_TOKEN: refused");
    unsetenv("HF_TOKEN");
    assert_int_equal(PULL("good", "--token", "a\nb"), 2);
    assert_false(nb_file_exists(in_folder("out")));
}

static void test_refuses(void **state)
{
    (void)state;
    NEEDS_SERVER();
    static const struct {
        const char *repo;
        int         code;
        const char *message;
        bool        part; /* something to resume is left */
    } cases[] = {
        {"wrong", 5, "model.safetensors: removed, because its SHA-256 is", false},
        {"wronggit", 5, "removed, because its git id is", false},
        {"denied", 5, "HTTP status 401", false},
        {"denied2", 5, "HTTP status 403", true},
        {"missing", 5, "no such repository", false},
        {"html", 5, "t/html", false},
        {"down", 1, "HTTP status 503", false},
        {"loop", 5, "more than 5 redirects", true},
        {"scheme", 5, "to no http address", true},
        {"user", 5, "user name", true},
        {"long", 5, "more than the 299999 bytes", true},
        {"short", 1, "ended at byte 300000 of 300001", true},
        {"huge", 4, "are free on its disk", false},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        int code = PULL(cases[i].repo, "--retries", "2");
        if (code != cases[i].code || !strstr(printed[1], cases[i].message))
            fail_msg("%s: code %d (expected %d), '%s' (expected to hold '%s')", cases[i].repo, code, cases[i].code, printed[1],
                     cases[i].message);
        assert_false(is_there("model.safetensors"));
        if (is_there("model.safetensors.part") != cases[i].part) fail_msg("%s: part", cases[i].repo);
        drop();
    }
    mkdir(in_folder("out"), 0700);
    int fd = open(in_folder("out/model.safetensors.part"), O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "0123456789", 10), 10);
    close(fd);
    assert_int_equal(PULL("badrange"), 5);
    holds(printed[1], "another range");
    struct stat st;
    assert_int_equal(stat(in_folder("out/model.safetensors.part"), &st), 0);
    assert_int_equal(st.st_size, 10); /* and none of it was taken */
    drop();
    mkdir(in_folder("out"), 0700);
    assert_int_equal(symlink(in_folder("stolen"), in_folder("out/model.safetensors.part")), 0);
    assert_int_equal(PULL("good"), 1);
    assert_false(nb_file_exists(in_folder("stolen")));
    drop();
    assert_int_equal(PULL("good", "--offline"), 2);
    holds(printed[1], "--offline");
    assert_int_equal(PULL("../x"), 2);
    assert_int_equal(PULL("x/y"), 2); /* t/x/y */
    assert_int_equal(PULL("good", "--endpoint", "ftp://127.0.0.1"), 2);
    assert_int_equal(PULL("good", "--endpoint", "http://user@127.0.0.1"), 2);
    assert_int_equal(PULL("good", "--revision", "no such"), 2);
    assert_int_equal(PULL("good", "--endpoint", "http://127.0.0.1:1", "--retries", "1"), 1);
    holds(printed[1], "trying again");
    assert_false(nb_file_exists(in_folder("out")));
}

static void test_lists(void **state)
{
    (void)state;
#define FILE_(name) "{\"rfilename\": \"" name "\", \"size\": 1}"
#define LIST(files) "{\"siblings\": [" files "]}"
    static const struct {
        const char *json, *message;
    } bad[] = {
        {"", ""}, {"[]", "not an object"}, {"{}", "lists no files"}, {"{\"siblings\": {}}", "lists no files"},
        {LIST("1"), "not a file"}, {LIST("{}"), "rfilename"}, {LIST("{\"rfilename\": \"a\"}"), "size"},
        {LIST("{\"rfilename\": \"a\", \"size\": -1}"), "size"}, {LIST("{\"rfilename\": \"a\", \"size\": 1e300}"), "size"},
        {LIST("{\"rfilename\": \"a\", \"size\": \"1\"}"), "size"}, {LIST("{\"rfilename\": 1, \"size\": 1}"), "rfilename"},
        {LIST("{\"rfilename\": \"a\", \"size\": 1, \"lfs\": {\"sha256\": \"xyz\"}}"), "64 digits"},
        {LIST("{\"rfilename\": \"a\", \"size\": 1, \"blobId\": \"../x\"}"), "40 digits"},
        {"{\"sha\": \"../..\", \"siblings\": []}", "commit"},
        {LIST(FILE_("")), "is empty"}, {LIST(FILE_("/etc/passwd")), "absolute"}, {LIST(FILE_("../x")), "leads out"},
        {LIST(FILE_("a/../../x")), "leads out"}, {LIST(FILE_("..")), "leads out"}, {LIST(FILE_("a/..")), "leads out"},
        {LIST(FILE_("./a")), "leads out"}, {LIST(FILE_("a//b")), "empty part"}, {LIST(FILE_("a/")), "empty part"},
        {LIST(FILE_("a\\\\b")), "backslash"}, {LIST(FILE_("a\\u0000b")), ""}, {LIST(FILE_("a\\u001b[2J")), "control"},
        {LIST(FILE_("a\\nb")), "control"}, {LIST(FILE_("a\\u007f")), "control"}, {LIST(FILE_("x.part")), ".part"},
        {LIST(FILE_("a") ", " FILE_("a")), "twice"}, {LIST(FILE_("a") ", " FILE_("a/b")), "a file and a folder"},
        {LIST(FILE_("a/b/c") ", " FILE_("a-b") ", " FILE_("a")), "a file and a folder"},
    };
    nb_error    err;
    nb_hub_list list;
    for (size_t i = 0; i < NB_COUNT(bad); i++) {
        err.text[0] = 0;
        nb_status s = nb_hub_list_parse(&list, NB_HUB_HF, bad[i].json, strlen(bad[i].json), "t/bad", &err);
        if (s != NB_ERR_INPUT || !strstr(err.text, bad[i].message)) fail_msg("%s: status %d, '%s'", bad[i].json, s, err.text);
        assert_null(list.files);
    }
    char name[700] = "", json[900];
    memset(name, 'x', 600);
    snprintf(json, sizeof json, "{\"siblings\": [{\"rfilename\": \"%s\", \"size\": 1}]}", name);
    FAILS(nb_hub_list_parse(&list, NB_HUB_HF, json, strlen(json), "t/bad", &err), NB_ERR_INPUT, "too long", &err);
    const char *code = "{\"Code\": 10010205001, \"Data\": null}", *other = "{\"Code\": 404, \"Data\": {\"Files\": []}}";
    FAILS(nb_hub_list_parse(&list, NB_HUB_MODELSCOPE, code, strlen(code), "t/bad", &err), NB_ERR_INPUT, "Code", &err);
    FAILS(nb_hub_list_parse(&list, NB_HUB_MODELSCOPE, other, strlen(other), "t/bad", &err), NB_ERR_INPUT, "code 404", &err);
    const char *good = LIST(FILE_("a.txt") ", " FILE_("b/..c/d e") ", " FILE_(".git/config") ", " FILE_("b/.x"));
    OK(nb_hub_list_parse(&list, NB_HUB_HF, good, strlen(good), "t/good", &err), &err);
    assert_int_equal(list.count, 1);
    assert_int_equal(list.hidden, 3);
    assert_true(list.files[0].kind == NB_DIGEST_NONE && list.files[0].size == 1);
    nb_hub_list_free(&list);
}

/* Digests of known bytes: FIPS 180's "abc", and what `git hash-object` says of "hello\n". */
static void test_digests(void **state)
{
    (void)state;
    nb_error err;
    char     digest[65], path[200];
    snprintf(path, sizeof path, "%s", in_folder("bytes"));
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(pwrite(fd, "abc", 3, 0), 3);
    OK(nb_digest_file(digest, fd, 3, NB_DIGEST_SHA256, path, NULL, NULL, &err), &err);
    assert_string_equal(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(pwrite(fd, "hello\n", 6, 0), 6);
    OK(nb_digest_file(digest, fd, 6, NB_DIGEST_GIT, path, NULL, NULL, &err), &err);
    assert_string_equal(digest, "ce013625030ba8dba906f756967f9e9ca394464a");
    FAILS(nb_digest_file(digest, fd, 7, NB_DIGEST_SHA256, path, NULL, NULL, &err), NB_ERR_INPUT, "1 bytes short", &err);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fetches), cmocka_unit_test(test_resumes), cmocka_unit_test(test_stops), cmocka_unit_test(test_token),
        cmocka_unit_test(test_refuses), cmocka_unit_test(test_lists),   cmocka_unit_test(test_digests),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start_server, stop_server);
}

#else

int main(void)
{
    fprintf(stderr, "SKIP test_tools_pull: built without http\n");
    return 0;
}

#endif
