/* References to bytes: base64, data URLs, paths, and http against a server that this test starts (python3). */
#include "unit_vision.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "runtime/vision/address.h"
#include "runtime/vision/http.h"

static void base64(void **state)
{
    static const struct {
        const char *text, *bytes;
        int         n;
    } good[] = {
        { "", "", 0 },
        { "Zg==", "f", 1 },
        { "Zm8=", "fo", 2 },
        { "Zm9v", "foo", 3 },
        { "Zm9vYg==", "foob", 4 },
        { "Zm9vYmE=", "fooba", 5 },
        { "Zm9vYmFy", "foobar", 6 }, /* RFC 4648 */
        { "Zg", "f", 1 },
        { "Zm8", "fo", 2 },
        { " Z\r\ng =\t=\n", "f", 1 },
        { "AP+/", "\0\xff\xbf", 3 },
        { "////", "\xff\xff\xff", 3 },
    };
    static const struct {
        const char *text, *part;
    } bad[] = {
        { "Z", "cut short" },          { "Zm9vY", "cut short" },        { "Zg=", "wrongly padded" },
        { "Zm8==", "wrongly padded" }, { "=", "wrongly padded" },       { "====", "wrongly padded" },
        { "Zm9v=", "wrongly padded" }, { "Zg==Zg==", "after its '='" }, { "Zm9-", "character 4" },
        { "Zm9_", "character 4" },     { "Zm%3D", "character 3" },      { "Zm9v\xc3\xa9", "code 195" },
        { "Zh==", "bits left over" },  { "Zm9=", "bits left over" },    { "<html>", "character 1" },
    };
    nb_error err;
    nb_buf   out;
    (void)state;
    for (size_t i = 0; i < NB_COUNT(good); i++) {
        OK(nb_base64_decode(&out, good[i].text, strlen(good[i].text), "x", &err), &err);
        assert_int_equal(out.size, good[i].n);
        if (out.size) assert_memory_equal(out.data, good[i].bytes, out.size);
        nb_buf_free(&out);
    }
    for (size_t i = 0; i < NB_COUNT(bad); i++) {
        FAILS(nb_base64_decode(&out, bad[i].text, strlen(bad[i].text), "the name", &err), NB_ERR_INPUT, bad[i].part, &err);
        assert_non_null(strstr(err.text, "the name"));
        assert_null(out.data);
    }
    FAILS(nb_base64_decode(&out, "Zm\0v", 4, "x", &err), NB_ERR_INPUT, "character 3", &err);
    /* every length, against an encoder written from the definition: bit i of the bytes is bit i of the text */
    for (int n = 0; n < 2000; n += 7) {
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        uint64_t          seed = n;
        uint8_t           bytes[2001] = { 0 };
        char              text[3000];
        int               length = (n * 8 + 5) / 6;
        for (int i = 0; i < n; i++) bytes[i] = (uint8_t)unit_random(&seed);
        for (int i = 0; i < length; i++) {
            int v = 0;
            for (int b = 6 * i; b < 6 * i + 6; b++) v = v << 1 | (b / 8 < n ? bytes[b / 8] >> (7 - b % 8) & 1 : 0);
            text[i] = digits[v];
        }
        OK(nb_base64_decode(&out, text, length, "x", &err), &err);
        assert_int_equal(out.size, n);
        if (n) assert_memory_equal(out.data, bytes, n);
        nb_buf_free(&out);
    }
}

static void data_urls(void **state)
{
    static const char *const good[] = { "data:image/png;base64,Zm9v", "data:image;base64,Zm9v", "DATA:IMAGE/PNG;base64,Zm 9v",
                                        "data:image/png;charset=utf-8;base64,Zm9v" };
    static const char *const bad[] = {
        "data:image/png,Zm9v", "data:image/png;base64",         "data:text/plain;base64,Zm9v", "data:",
        "data:image",          "data:image/svg+xml;utf8,<svg/>"
    };
    nb_error err;
    nb_buf   out;
    (void)state;
    for (size_t i = 0; i < NB_COUNT(good); i++) {
        OK(nb_media_read(&out, good[i], &(nb_media_options){ .offline = true }, &err), &err);
        assert_string_equal(out.data, "foo");
        nb_buf_free(&out);
    }
    for (size_t i = 0; i < NB_COUNT(bad); i++)
        FAILS(nb_media_read(&out, bad[i], NULL, &err), NB_ERR_INPUT, "data:image/TYPE;base64", &err);
    FAILS(nb_media_read(&out, "data:image/png;base64,", NULL, &err), NB_ERR_INPUT, "data URL (22 characters): holds no bytes",
          &err);
    FAILS(nb_media_read(&out, "data:image/png;base64,AAAA====", NULL, &err), NB_ERR_INPUT, "data URL (30 characters)", &err);
    OK(nb_media_read(&out, "data:image/png;base64,AAAA", &(nb_media_options){ .max_bytes = 3 }, &err), &err);
    nb_buf_free(&out);
    FAILS(nb_media_read(&out, "data:image/png;base64,AAAA", &(nb_media_options){ .max_bytes = 2 }, &err), NB_ERR_INPUT,
          "limit of 2 bytes", &err);
    FAILS(nb_media_read(&out, "data:image/png;base64,AAAAAAAAAAAAAAAAAAAA", &(nb_media_options){ .max_bytes = 2 }, &err),
          NB_ERR_INPUT, "limit of 2 bytes", &err);
}

static void names(void **state)
{
    char name[160], long_path[400], reference[500];
    (void)state;
    nb_media_name(name, "a/b.png");
    assert_string_equal(name, "a/b.png");
    nb_media_name(name, "file:///a/b.png");
    assert_string_equal(name, "/a/b.png");
    nb_media_name(name, "https://host/pic.png?token=secret#x");
    assert_string_equal(name, "https://host/pic.png");
    nb_media_name(name, "data:image/png;base64,AAAA");
    assert_string_equal(name, "data URL (26 characters)");
    for (int n = 150; n < 399; n++) {
        for (int i = 0; i < n; i++) long_path[i] = i % 2 ? '\xa9' : '\xc3'; /* e with an accent, in pairs */
        long_path[n] = 0;
        snprintf(reference, sizeof reference, "%s", long_path);
        nb_media_name(name, reference);
        assert_true(strlen(name) < 160);
        if (n >= 160) assert_true(!strncmp(name, "...\xc3", 4));
    }
}

static void paths(void **state)
{
    nb_error err;
    nb_buf   out;
    char     folder[] = "/tmp/nibble-media-XXXXXX", path[128], reference[160], fifo[128];
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a%%20b.bin", folder);
    snprintf(fifo, sizeof fifo, "%s/fifo", folder);
    OK(nb_file_write_atomic(path, "12345", 5, &err), &err);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    nb_media_options in = { .root = folder }, small = { .root = folder, .max_bytes = 4 };
#define READS(ref, options)                                                                                                    \
    do {                                                                                                                       \
        OK(nb_media_read(&out, ref, options, &err), &err);                                                                     \
        assert_string_equal(out.data, "12345");                                                                                \
        nb_buf_free(&out);                                                                                                     \
    } while (0)
    READS(path, NULL);
    READS(path, &in); /* absolute: the root does not matter */
    READS("a%20b.bin", &in);
    READS("./a%20b.bin", &in);
    READS("file://a%20b.bin", &in);
    snprintf(reference, sizeof reference, "file://%s", path);
    READS(reference, NULL); /* no percent-decoding */
    FAILS(nb_media_read(&out, "a b.bin", &in, &err), NB_ERR_INPUT, "a b.bin", &err);
    FAILS(nb_media_read(&out, "a%20b.bin", &small, &err), NB_ERR_INPUT, "5 bytes", &err);
    FAILS(nb_media_read(&out, "fifo", &in, &err), NB_ERR_INPUT, "fifo", &err);
    FAILS(nb_media_read(&out, folder, NULL, &err), NB_ERR_INPUT, folder, &err);
    FAILS(nb_media_read(&out, "/dev/zero", NULL, &err), NB_ERR_INPUT, "/dev/zero", &err);
    FAILS(nb_media_read(&out, "", &in, &err), NB_ERR_INPUT, "empty", &err);
    FAILS(nb_media_read(&out, "file://", NULL, &err), NB_ERR_INPUT, "empty", &err);
    FAILS(nb_media_read(&out, "ftp://host/x.png", NULL, &err), NB_ERR_UNSUPPORTED, "'ftp://'", &err);
    FAILS(nb_media_read(&out, "gopher://host/x.png", NULL, &err), NB_ERR_UNSUPPORTED, "'gopher://'", &err);
    FAILS(nb_media_read(&out, "http://host/x.png", &(nb_media_options){ .offline = true }, &err), NB_ERR_ARGUMENT, "offline",
          &err);
    assert_null(out.data);
    unlink(path);
    unlink(fifo);
    rmdir(folder);
}

static void addresses(void **state)
{
    static const char *const refused[] = {
        "0.0.0.0",     "0.1.2.3",          "10.0.0.1",        "10.255.255.255", "100.64.0.1",        "100.127.255.255",
        "127.0.0.1",   "127.255.255.254",  "169.254.169.254", "172.16.0.1",     "172.31.255.255",    "192.0.0.8",
        "192.0.2.1",   "192.88.99.1",      "192.168.0.1",     "198.18.0.1",     "198.19.255.255",    "198.51.100.7",
        "203.0.113.7", "224.0.0.1",        "239.1.1.1",       "240.0.0.1",      "255.255.255.255",   "::",
        "::1",         "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1",    "64:ff9b::10.0.0.1", "64:ff9b:1::1",
        "100::1",      "2001::1",          "2001:2::1",       "2001:db8::1",    "2002:0a00:0001::1", "2002:7f00:0001::",
        "3fff::1",     "fc00::1",          "fd12::1",         "fe80::1",        "fec0::1",           "ff02::1",
        "4000::1"
    };
    static const char *const allowed[] = {
        "1.1.1.1",         "8.8.8.8",      "9.255.255.255",  "11.0.0.0",         "100.63.255.255",    "100.128.0.0",
        "126.255.255.255", "128.0.0.1",    "169.253.0.1",    "172.15.255.255",   "172.32.0.0",        "192.0.1.0",
        "192.167.255.255", "192.169.0.0",  "198.17.255.255", "198.20.0.0",       "223.255.255.255",   "2001:4860:4860::8888",
        "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:0808:0808::1", "2001:200::1"
    };
    (void)state;
    for (int good = 0; good < 2; good++)
        for (size_t i = 0; i < (good ? NB_COUNT(allowed) : NB_COUNT(refused)); i++) {
            const char         *text = good ? allowed[i] : refused[i];
            struct sockaddr_in  v4 = { .sin_family = AF_INET };
            struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
            bool                is_v4 = inet_pton(AF_INET, text, &v4.sin_addr) == 1;
            assert_true(is_v4 || inet_pton(AF_INET6, text, &v6.sin6_addr) == 1);
            if (nb_address_is_public(is_v4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6) != good) fail_msg("%s", text);
        }
    assert_false(nb_address_is_public(&(struct sockaddr){ .sa_family = AF_UNIX }));
}

/* ---- http ---- */

static const char server_text[] =
    "import http.server, sys, time\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "    def log_message(self, *a): pass\n"
    "    def head(self, status, *pairs):\n"
    "        self.send_response(status)\n"
    "        for k, v in pairs: self.send_header(k, v)\n"
    "        self.end_headers()\n"
    "    def do_GET(self):\n"
    "        port, p = self.server.server_address[1], self.path\n"
    "        to = {'/redirect': '/ok', '/loop': '/loop', '/ftp': 'ftp://127.0.0.1/x', '/file': 'file:///etc/passwd',\n"
    "              '/elsewhere': 'http://127.0.0.2:%d/ok' % port, '/userinfo': 'http://a:b@127.0.0.1:%d/ok' % port}.get(p)\n"
    "        if p.startswith('/ok'): self.head(200, ('Content-Length', '5')); self.wfile.write(b'12345')\n"
    "        elif to: self.head(302, ('Location', to), ('Content-Length', '0'))\n"
    "        elif p == '/long': self.head(200, ('Content-Length', '1000000')); self.wfile.write(b'x' * 1000000)\n"
    "        elif p == '/endless':\n"
    "            self.head(200)\n"
    "            try:\n"
    "                for i in range(100000): self.wfile.write(b'x' * 1000)\n"
    "            except OSError: pass\n"
    "        elif p == '/short': self.head(200, ('Content-Length', '100')); self.wfile.write(b'12345')\n"
    "        elif p == '/empty': self.head(200, ('Content-Length', '0'))\n"
    "        elif p == '/none': self.head(204)\n"
    "        elif p == '/slow': time.sleep(5)\n"
    "        else: self.head(404, ('Content-Length', '4')); self.wfile.write(b'oops')\n"
    "s = http.server.ThreadingHTTPServer(('0.0.0.0', 0), H)\n"
    "s.daemon_threads = True\n"
    "print(s.server_address[1], flush=True)\n"
    "s.serve_forever()\n";

/* The port of a server that dies with *child; 0 when python3 cannot be run. */
static int start_server(pid_t *child)
{
    int  ends[2], port = 0;
    char line[16] = "";
    assert_int_equal(pipe(ends), 0);
    *child = fork();
    assert_true(*child >= 0);
    if (!*child) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(2);
        execlp("python3", "python3", "-c", server_text, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    for (size_t n = 0; n + 1 < sizeof line && read(ends[0], line + n, 1) == 1 && line[n] != '\n'; n++) {
    }
    port = atoi(line);
    close(ends[0]);
    return port;
}

static bool only_127_0_0_1(const struct sockaddr *address)
{
    return address->sa_family == AF_INET && ((const struct sockaddr_in *)address)->sin_addr.s_addr == htonl(INADDR_LOOPBACK);
}

static void http(void **state)
{
    nb_error err = { 0 };
    nb_buf   out;
    pid_t    child;
    char     url[200];
    (void)state;
    if (nb_http_get(&out, "http://127.0.0.1:1/", "x", &(nb_http_limits){ .max_bytes = 1, .timeout_s = 1 }, &err) ==
        NB_ERR_UNSUPPORTED) {
        fprintf(stderr, "SKIP http: built without libcurl\n");
        skip();
    }
    int port = start_server(&child);
    if (!port) {
        waitpid(child, NULL, 0);
        fprintf(stderr, "SKIP http: python3 is not here to run a server\n");
        skip();
    }
    const nb_media_options open = { .allow_private = true, .max_bytes = 100000, .timeout_s = 5 }, closed = { 0 };
    const nb_media_options brief = { .allow_private = true, .timeout_s = 1 };
#define URL(host, path) (snprintf(url, sizeof url, "http://%s:%d%s", host, port, path), url)
#define HERE(path) URL("127.0.0.1", path)
    for (int i = 0; i < 2; i++) {
        OK(nb_media_read(&out, HERE(i ? "/redirect" : "/ok?a=b"), &open, &err), &err);
        assert_string_equal(out.data, "12345");
        nb_buf_free(&out);
    }
    FAILS(nb_media_read(&out, HERE("/missing"), &open, &err), NB_ERR_INPUT, "HTTP status 404", &err);
    FAILS(nb_media_read(&out, HERE("/none"), &open, &err), NB_ERR_INPUT, "HTTP status 204", &err);
    FAILS(nb_media_read(&out, HERE("/empty"), &open, &err), NB_ERR_INPUT, "empty", &err);
    FAILS(nb_media_read(&out, HERE("/long"), &open, &err), NB_ERR_INPUT, "limit of 100000 bytes", &err);
    FAILS(nb_media_read(&out, HERE("/endless"), &open, &err), NB_ERR_INPUT, "limit of 100000 bytes", &err);
    FAILS(nb_media_read(&out, HERE("/short"), &open, &err), NB_ERR_IO, "cannot be fetched", &err);
    FAILS(nb_media_read(&out, HERE("/loop"), &open, &err), NB_ERR_INPUT, "more than 5 redirects", &err);
    FAILS(nb_media_read(&out, HERE("/ftp"), &open, &err), NB_ERR_INPUT, "other than http or https", &err);
    FAILS(nb_media_read(&out, HERE("/file"), &open, &err), NB_ERR_INPUT, "other than http or https", &err);
    FAILS(nb_media_read(&out, HERE("/slow"), &brief, &err), NB_ERR_IO, "within 1 seconds", &err);
    FAILS(nb_media_read(&out, "http://127.0.0.1:1/x", &open, &err), NB_ERR_IO, "cannot be fetched", &err);
    FAILS(nb_media_read(&out, URL("user@127.0.0.1", "/ok"), &open, &err), NB_ERR_INPUT, "user name", &err);
    FAILS(nb_media_read(&out, "http://", &open, &err), NB_ERR_INPUT, "not a valid URL", &err);
    FAILS(nb_media_read(&out, "http://127.0.0.1:99999/", &open, &err), NB_ERR_INPUT, "not a valid URL", &err);
    FAILS(nb_media_read(&out, HERE("/a\r\nX: y"), &open, &err), NB_ERR_INPUT, "", &err);

    /* a redirect is judged like the first address: 127.0.0.1 is allowed here and leads to 127.0.0.2 */
    nb_http_limits limits = { .max_bytes = 100, .timeout_s = 5, .allowed = only_127_0_0_1 };
    OK(nb_http_get(&out, HERE("/ok"), "x", &limits, &err), &err);
    nb_buf_free(&out);
    FAILS(nb_http_get(&out, HERE("/elsewhere"), "x", &limits, &err), NB_ERR_INPUT, "leads to 127.0.0.2", &err);
    OK(nb_media_read(&out, HERE("/elsewhere"), &open, &err), &err);
    nb_buf_free(&out);

    static const char *const spellings[] = { "127.0.0.1",       "localhost", "127.1",     "0x7f.1", "0177.0.0.1",
                                             "2130706433",      "0.0.0.0",   "0",         "[::1]",  "[::ffff:127.0.0.1]",
                                             "[::ffff:7f00:1]", "LOCALHOST", "127.0.0.1." };
    for (size_t i = 0; i < NB_COUNT(spellings); i++) {
        nb_status got = nb_media_read(&out, URL(spellings[i], "/ok"), &closed, &err);
        if (got == NB_OK || out.data) fail_msg("%s was fetched", url);
        if (i < 8 && !strstr(err.text, "not a public address")) fail_msg("%s: %s", url, err.text);
    }
    FAILS(nb_media_read(&out, "http://169.254.169.254/latest/meta-data", &closed, &err), NB_ERR_INPUT,
          "169.254.169.254, which is not", &err);
    FAILS(nb_media_read(&out, "http://192.168.1.1/", &closed, &err), NB_ERR_INPUT, "not a public address", &err);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

/* A proxy named in the environment would resolve names for us, past the check of addresses. */
static void no_proxy_is_used(void **state)
{
    nb_error err;
    nb_buf   out;
    (void)state;
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    nb_status got = nb_media_read(&out, "http://10.0.0.1/", NULL, &err);
    unsetenv("http_proxy");
    if (got == NB_ERR_UNSUPPORTED) skip();
    assert_int_equal(got, NB_ERR_INPUT);
    assert_non_null(strstr(err.text, "leads to 10.0.0.1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64),
        cmocka_unit_test(data_urls),
        cmocka_unit_test(names),
        cmocka_unit_test(paths),
        cmocka_unit_test(addresses),
        cmocka_unit_test(http),
        cmocka_unit_test(no_proxy_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
