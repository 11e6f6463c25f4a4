/* The media cache against a server of our own: what is fetched once, what survives damage, what goes when it is full, and bodies
 * that never end. */
#include "unit.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "runtime/io/file.h"
#include "runtime/vision/media.h"
#include "runtime/vision/http.h"
#include "runtime/vision/media_cache.h"

static char  folder[64];
static int   port;
static pid_t server;
static int  *served; /* requests, shared with the server */

/* ---- the server: /size/N/X gives N bytes of X, /drip a byte now and then for ever, /pieces an endless body, /away a redirect ---- */

static void say(int s, const char *text)
{
    if (send(s, text, strlen(text), MSG_NOSIGNAL) < 0) return;
}

static void answer(int s)
{
    char    request[2048], head[200];
    ssize_t n = recv(s, request, sizeof request - 1, 0);
    int     bytes;
    char    fill;
    request[n > 0 ? n : 0] = 0;
    __atomic_add_fetch(served, 1, __ATOMIC_SEQ_CST);
    if (sscanf(request, "GET /size/%d/%c", &bytes, &fill) == 2) {
        snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", bytes);
        say(s, head);
        for (int i = 0; i < bytes; i++)
            if (send(s, &fill, 1, MSG_NOSIGNAL) < 0) break;
    } else if (strstr(request, "GET /drip")) {
        say(s, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        while (send(s, "x", 1, MSG_NOSIGNAL) == 1) usleep(50000);
    } else if (strstr(request, "GET /head")) { /* a header that never ends */
        say(s, "HTTP/1.1 200 OK\r\n");
        while (send(s, "X: y\r\n", 6, MSG_NOSIGNAL) == 6) usleep(20000);
    } else if (strstr(request, "GET /pieces")) {
        say(s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
        while (send(s, "8\r\nxxxxxxxx\r\n", 13, MSG_NOSIGNAL) == 13) continue;
    } else if (strstr(request, "GET /away")) {
        say(s, "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    } else if (strstr(request, "GET /round")) {
        say(s, "HTTP/1.1 302 Found\r\nLocation: /round\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    } else {
        say(s, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    close(s);
}

static int start(void **state)
{
    (void)state;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t          size = sizeof at;
    int                s = socket(AF_INET, SOCK_STREAM, 0);
    snprintf(folder, sizeof folder, "/tmp/nibble-cache-XXXXXX");
    served = mmap(NULL, sizeof *served, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!mkdtemp(folder) || served == MAP_FAILED || s < 0 || bind(s, (struct sockaddr *)&at, sizeof at) || listen(s, 16) ||
        getsockname(s, (struct sockaddr *)&at, &size))
        return -1;
    port = ntohs(at.sin_port);
    server = fork();
    if (server < 0) return -1;
    if (!server) {
        alarm(120);
        for (;;) answer(accept(s, NULL, NULL));
    }
    close(s);
    return 0;
}

static void remove_tree(const char *path)
{
    static const char *const kinds[] = {"sha256", "address"};
    for (size_t i = 0; i < NB_COUNT(kinds); i++) {
        char below[256];
        snprintf(below, sizeof below, "%s/%s", path, kinds[i]);
        nb_remove_folder(below, NULL);
    }
    rmdir(path);
}

static int stop(void **state)
{
    (void)state;
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    rmdir(folder);
    return 0;
}

static const char *url(const char *path)
{
    static char text[4][200];
    static int  i;
    i = (i + 1) % 4;
    snprintf(text[i], sizeof text[i], "http://127.0.0.1:%d%s", port, path);
    return text[i];
}

static bool has_http(void)
{
    nb_buf   out;
    nb_error err;
    return nb_media_read(&out, "http://10.0.0.1/", NULL, &err) != NB_ERR_UNSUPPORTED;
}

/* Number of files in a part of the cache; *name: of the last. */
static int files(const char *cache, const char *kind, char name[80])
{
    char path[256];
    int  n = 0;
    snprintf(path, sizeof path, "%s/%s", cache, kind);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        if (name) snprintf(name, 80, "%.70s", e->d_name);
        n++;
    }
    if (d) closedir(d);
    return n;
}

static void fetched_once(void **state)
{
    (void)state;
    if (!has_http()) skip();
    char             cache[128], name[80], path[300];
    nb_error         err;
    nb_buf           out;
    snprintf(cache, sizeof cache, "%s/deep/cache", folder);
    nb_media_options o = {.allow_private = true, .cache = cache, .timeout_s = 5}, offline = {.offline = true, .cache = cache};
    int              before = *served;
    FAILS(nb_media_read(&out, url("/size/5/a"), &offline, &err), NB_ERR_ARGUMENT, "is not in the media cache", &err);
    for (int i = 0; i < 3; i++) {
        OK(nb_media_read(&out, url("/size/5/a"), i < 2 ? &o : &offline, &err), &err);
        assert_string_equal(out.data, "aaaaa");
        nb_buf_free(&out);
    }
    assert_int_equal(*served - before, 1);
    OK(nb_media_read(&out, url("/size/5/a#elsewhere"), &offline, &err), &err); /* the same address */
    nb_buf_free(&out);
    OK(nb_media_read(&out, url("/size/5/ab"), &o, &err), &err); /* another address of the same bytes */
    nb_buf_free(&out);
    assert_int_equal(*served - before, 2);
    assert_int_equal(files(cache, "sha256", name), 1);
    assert_int_equal(files(cache, "address", NULL), 2);
    assert_string_equal(name, "ed968e840d10d2d313a870bc131a4e2c311d7ad09bdf32b3418147221f51a6e2"); /* sha256sum of aaaaa */

    /* the limit of the caller holds for what is kept too */
    nb_media_options small = offline;
    small.max_bytes = 4;
    FAILS(nb_media_read(&out, url("/size/5/a"), &small, &err), NB_ERR_ARGUMENT, "is not in the media cache", &err);
    /* what is not a picture's bytes any more is not given out, and comes anew */
    snprintf(path, sizeof path, "%s/sha256/%s", cache, name);
    static const char *const damage[] = {"aaaab", "aaaa", "aaaaaa", ""};
    for (size_t i = 0; i < NB_COUNT(damage); i++) {
        before = *served;
        OK(nb_file_write_atomic(path, damage[i], strlen(damage[i]), &err), &err);
        FAILS(nb_media_read(&out, url("/size/5/a"), &offline, &err), NB_ERR_ARGUMENT, "is not in the media cache", &err);
        OK(nb_media_read(&out, url("/size/5/a"), &o, &err), &err);
        assert_string_equal(out.data, "aaaaa");
        nb_buf_free(&out);
        OK(nb_media_read(&out, url("/size/5/a"), &offline, &err), &err);
        nb_buf_free(&out);
        assert_int_equal(*served - before, 1);
    }
    /* a record that says something else */
    static const char *const records[] = {"", "x", "../../../../etc/passwd 5\n", "ed968e840d10d2d313a870bc131a4e2c311d7ad09bdf32b3418147221f51a6e2 -1\n"};
    char record[300];
    snprintf(cache, sizeof cache, "%s/deep/records", folder);
    OK(nb_media_read(&out, url("/size/5/a"), &o, &err), &err);
    nb_buf_free(&out);
    assert_int_equal(files(cache, "address", name), 1);
    snprintf(record, sizeof record, "%s/address/%s", cache, name);
    for (size_t i = 0; i < NB_COUNT(records); i++) {
        OK(nb_file_write_atomic(record, records[i], strlen(records[i]), &err), &err);
        FAILS(nb_media_read(&out, url("/size/5/a"), &offline, &err), NB_ERR_ARGUMENT, "is not in the media cache", &err);
    }
    remove_tree(cache);
    /* a folder that cannot be made costs nothing but the cache */
    o.cache = "/proc/no/such";
    OK(nb_media_read(&out, url("/size/5/a"), &o, &err), &err);
    nb_buf_free(&out);
    snprintf(cache, sizeof cache, "%s/deep/cache", folder);
    remove_tree(cache);
    snprintf(cache, sizeof cache, "%s/deep", folder);
    rmdir(cache);
}

static void oldest_goes_first(void **state)
{
    (void)state;
    if (!has_http()) skip();
    char     cache[128], bytes[100];
    nb_buf   out;
    snprintf(cache, sizeof cache, "%s/full", folder);
    for (int i = 0; i < 9; i++) { /* 9 objects of 100 bytes under a limit of 1000 */
        char address[32];
        memset(bytes, 'a' + i, sizeof bytes);
        snprintf(address, sizeof address, "http://x/%d", i);
        nb_media_cache_put(cache, 1000, address, bytes, sizeof bytes);
        usleep(2000);
    }
    assert_int_equal(files(cache, "sha256", NULL), 9);
    assert_true(nb_media_cache_get(&out, cache, "http://x/0", 1000)); /* used again: no longer the oldest */
    nb_buf_free(&out);
    memset(bytes, 'z', sizeof bytes);
    nb_media_cache_put(cache, 1000, "http://x/9", bytes, sizeof bytes);
    assert_int_equal(files(cache, "sha256", NULL), 10); /* exactly full */
    usleep(2000);
    memset(bytes, 'y', sizeof bytes);
    nb_media_cache_put(cache, 1000, "http://x/10", bytes, sizeof bytes); /* 1100: down to 900 */
    assert_int_equal(files(cache, "sha256", NULL), 9);
    assert_int_equal(files(cache, "address", NULL), 9);
    for (int i = 0; i <= 10; i++) {
        char address[32];
        snprintf(address, sizeof address, "http://x/%d", i);
        bool there = nb_media_cache_get(&out, cache, address, 1000);
        if (there != (i != 1 && i != 2)) fail_msg("object %d", i);
        nb_buf_free(&out);
    }
    nb_media_cache_put(cache, 50, "http://x/large", bytes, sizeof bytes); /* larger than the limit: not kept, nothing lost */
    assert_int_equal(files(cache, "sha256", NULL), 9);
    assert_false(nb_media_cache_get(&out, cache, "http://x/large", 1000));
    remove_tree(cache);
}

static bool this_machine(const struct sockaddr *address)
{
    return address->sa_family == AF_INET && ((const struct sockaddr_in *)address)->sin_addr.s_addr == htonl(INADDR_LOOPBACK);
}

static void bodies_without_end(void **state)
{
    (void)state;
    if (!has_http()) skip();
    char             cache[128];
    nb_error         err;
    nb_buf           out;
    snprintf(cache, sizeof cache, "%s/bad", folder);
    nb_media_options o = {.allow_private = true, .cache = cache, .timeout_s = 1, .max_bytes = 100000}, closed = {.cache = cache, .timeout_s = 1};
    double           begin = nb_seconds();
    FAILS(nb_media_read(&out, url("/drip"), &o, &err), NB_ERR_IO, "not received within 1 seconds", &err);
    FAILS(nb_media_read(&out, url("/head"), &o, &err), NB_ERR_IO, "", &err);
    assert_true(nb_seconds() - begin < 5);
    FAILS(nb_media_read(&out, url("/pieces"), &o, &err), NB_ERR_INPUT, "limit of 100000 bytes", &err);
    FAILS(nb_media_read(&out, url("/round"), &o, &err), NB_ERR_INPUT, "more than 5 redirects", &err);
    FAILS(nb_media_read(&out, url("/size/5/a"), &closed, &err), NB_ERR_INPUT, "127.0.0.1, which is not a public address", &err);
    nb_http_limits here = {.max_bytes = 100, .timeout_s = 1, .allowed = this_machine};
    FAILS(nb_http_get(&out, url("/away"), "x", &here, &err), NB_ERR_INPUT, "leads to 169.254.169.254, which is not", &err);
    FAILS(nb_media_read(&out, url("/missing"), &o, &err), NB_ERR_INPUT, "404", &err);
    assert_int_equal(files(cache, "sha256", NULL), 0); /* no failure is kept */
    assert_int_equal(files(cache, "address", NULL), 0);
    remove_tree(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(fetched_once), cmocka_unit_test(oldest_goes_first),
                                       cmocka_unit_test(bodies_without_end)};
    return cmocka_run_group_tests(tests, start, stop);
}
