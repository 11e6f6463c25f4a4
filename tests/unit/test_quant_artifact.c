/* Calibration artifacts of the demo model: any way to the same data gives the same bytes, AWQ from one is AWQ from the data, damage and
 * what does not belong together are refused by name, an interrupted run goes on. */
#include "unit.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "calib/artifact_info.h"
#include "quant/calibrate.h"
#include "quant_folder.h"

enum { LAYERS = 6 /* of the demo */ };

static nb_pool *pool;
static nb_ops   ops;

static int set_up(void **state)
{
    if (make_folder(state) || nb_pool_new(&pool, 2, NULL)) return -1;
    nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
    return 0;
}

static int tear_down(void **state)
{
    static const char *const made[] = {"all", "a", "b", "ab", "ba", "threads1", "threads4", "spool33", "spool900", "ref", "apart", "apart-a",
                                       "apart-b", "apart-ab", "weighed", "damaged", "other", "stopped", "plain"};
    for (size_t i = 0; i < NB_COUNT(made); i++) nb_remove_folder(in_folder(made[i]), NULL);
    nb_pool_free(pool);
    return remove_folder(state);
}

static nb_calibrate_options request(const char *name, int samples, int skip)
{
    return (nb_calibrate_options){.model_dir = source, .out_dir = in_folder(name), .modality_weights = {1, 1, 1},
                                  .data = {.path = chats, .samples = samples, .skip = skip, .dataset = {.need_answer = true}}};
}

static nb_calibrate_report calibrate(const nb_ops *with, const nb_calibrate_options *o)
{
    nb_error            err;
    nb_calibrate_report r;
    OK(nb_calibrate(with, o, NULL, NULL, &r, &err), &err);
    nb_buf_free(&r.notes);
    return r;
}

static nb_buf contents(const char *directory, const char *name)
{
    nb_error err;
    nb_buf   b = {0};
    char     path[1024];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    OK(nb_file_read(&b, path, (size_t)1 << 30, &err), &err);
    return b;
}

static bool same_file(const char *a, const char *b, const char *name)
{
    nb_buf x = contents(a, name), y = contents(b, name);
    bool   same = x.size == y.size && !memcmp(x.data, y.data, x.size);
    nb_buf_free(&x);
    nb_buf_free(&y);
    return same;
}

static const char *layer_name(int i)
{
    static char name[32];
    snprintf(name, sizeof name, "layer-%04d.stats", i);
    return name;
}

static void assert_same_artifact(const char *a, const char *b)
{
    for (int i = 0; i < LAYERS; i++)
        if (!same_file(in_folder(a), in_folder(b), layer_name(i))) fail_msg("layer %d of %s and %s differ", i, a, b);
    assert_true(same_file(in_folder(a), in_folder(b), "artifact.json"));
}

static void merge(const char *out, const char *first, const char *second)
{
    nb_error            err;
    nb_calibrate_report r;
    const char *const   parts[] = {in_folder(first), in_folder(second)};
    OK(nb_calibrate_merge(pool, parts, 2, in_folder(out), false, NULL, NULL, &r, &err), &err);
    nb_calibrate_report_free(&r);
}

static void any_way_gives_the_same_bytes(void **state)
{
    (void)state;
    nb_error             err;
    nb_calibrate_options o = request("all", 9, 0);
    nb_calibrate_report  r = calibrate(&ops, &o);
    assert_int_equal(r.info.samples, 9);
    assert_true(r.info.tokens[0] > 100 && r.info.tokens[1] > 10 && r.bytes < nb_artifact_bytes(&r.info));
    o = request("a", 4, 0), calibrate(&ops, &o);
    o = request("b", 5, 4), calibrate(&ops, &o);
    merge("ab", "a", "b");
    merge("ba", "b", "a");
    assert_same_artifact("all", "ab");
    assert_same_artifact("all", "ba");
    assert_false(same_file(in_folder("a"), in_folder("b"), layer_name(0)));
    for (int threads = 1; threads <= 4; threads += 3) {
        nb_ops other = ops;
        char   name[20];
        snprintf(name, sizeof name, "threads%d", threads);
        OK(nb_pool_new(&other.pool, threads, &err), &err);
        o = request(name, 9, 0), calibrate(&other, &o);
        nb_pool_free(other.pool);
        assert_same_artifact("all", name);
    }
    for (size_t chunk = 33; chunk <= 900; chunk += 867) {
        char name[20];
        snprintf(name, sizeof name, "spool%zu", chunk);
        o = request(name, 9, 0);
        o.data.spool = in_folder("hidden");
        o.data.spool_chunk = chunk;
        calibrate(&ops, &o);
        assert_same_artifact("all", name);
    }
    nb_artifact_info info;
    OK(nb_artifact_info_read(&info, in_folder("all"), &err), &err);
    assert_memory_equal(info.tokens, r.info.tokens, sizeof info.tokens);
    assert_true(info.model == r.info.model && info.layers == LAYERS && info.k[NB_SITE_DOWN] == r.info.k[NB_SITE_DOWN]);
}

/* ---- quantizing from one ------------------------------------------------------------------------------------------------ */

static nb_quantize_options quantization(const char *name, nb_method method)
{
    bool awq = method == NB_METHOD_AWQ;
    return (nb_quantize_options){
        .model_dir = source, .out_dir = in_folder(name), .method = method, .grid = {.bits = 4, .group = 64, .sym = !awq},
        .format = awq ? NB_FORMAT_AWQ : NB_FORMAT_GPTQ, .awq_points = 2, .awq_clip = true, .damp = 0.01, .damp_max = 1, .block = 128,
        .modality_weights = {1, 1, 1}, .shard_size = 1 << 30, .force = true,
    };
}

static double quantize(const nb_quantize_options *o)
{
    nb_error           err;
    nb_quantize_report r;
    double             loss = 0;
    OK(nb_quantize(&ops, o, NULL, NULL, &r, &err), &err);
    for (size_t i = 0; i < r.count; i++) loss += r.matrices[i].loss;
    assert_true(r.tokens > 0 && r.samples == 9 && r.max_input > 0);
    nb_quantize_report_free(&r);
    return loss;
}

static void awq_and_gptq_from_an_artifact(void **state)
{
    (void)state;
    const char *const parts[] = {in_folder("b"), in_folder("a")};
    for (int method = NB_METHOD_AWQ; method <= NB_METHOD_GPTQ; method++) {
        nb_quantize_options direct = quantization("plain", (nb_method)method), from = quantization("other", (nb_method)method);
        direct.data = (nb_samples_options){.path = chats, .samples = 9, .dataset = {.need_answer = true}};
        from.artifacts = parts;
        from.artifact_count = 2;
        double loss = quantize(&direct);
        NEAR(quantize(&from), loss, 0);
        assert_true(same_file(direct.out_dir, from.out_dir, "model.safetensors"));
    }
}

/* Kept apart, modalities are weighed when they are used: with sums as good as those that were weighed from the beginning. */
static void modalities_apart(void **state)
{
    (void)state;
    const float          weights[3] = {1, 0.25f, 3};
    nb_error             err;
    nb_calibrate_options o = request("apart", 9, 0);
    nb_calibrate_report  r;
    o.per_modality = true;
    r = calibrate(&ops, &o);
    assert_true(r.info.per_modality && r.info.weights[1] == 1);
    o = request("apart-a", 4, 0), o.per_modality = true, calibrate(&ops, &o);
    o = request("apart-b", 5, 4), o.per_modality = true, calibrate(&ops, &o);
    merge("apart-ab", "apart-b", "apart-a");
    assert_same_artifact("apart", "apart-ab");
    o = request("weighed", 9, 0);
    memcpy(o.modality_weights, weights, sizeof weights);
    calibrate(&ops, &o);

    const char *const   apart = in_folder("apart"), *const weighed = in_folder("weighed");
    nb_artifact        *a, *w;
    nb_stats            sum, part, want;
    int                 k = r.info.k[NB_SITE_O];
    OK(nb_artifact_open(&a, &apart, 1, &err), &err);
    OK(nb_artifact_open(&w, &weighed, 1, &err), &err);
    OK(nb_stats_init(&sum, k, weights, &err), &err);
    OK(nb_stats_init(&part, k, (const float[]){1, 1, 1}, &err), &err);
    OK(nb_stats_init(&want, k, weights, &err), &err);
    OK(nb_artifact_add(w, &want, 2, NB_SITE_O, 0, pool, &err), &err);
    for (int m = 0; m < NB_MODALITIES; m++) {
        nb_stats_reset(&part, (const float[]){1, 1, 1});
        OK(nb_artifact_add(a, &part, 2, NB_SITE_O, m, pool, &err), &err);
        assert_int_equal(part.tokens[m], r.info.tokens[m]);
        nb_stats_merge_weighted(&sum, &part, (double)weights[m], pool);
    }
    assert_memory_equal(sum.tokens, want.tokens, sizeof want.tokens);
    OK(nb_stats_finish(&sum, pool, &err), &err);
    OK(nb_stats_finish(&want, pool, &err), &err);
    for (int i = 0; i < k; i++) {
        NEAR(sum.max_abs[i], want.max_abs[i], 0);
        for (int j = 0; j < k; j++) {
            double scale = sqrt(want.gram[i * k + i] * want.gram[j * k + j]);
            NEAR(sum.gram[i * k + j], want.gram[i * k + j], 1e-6 * scale + 1e-12);
        }
    }
    nb_stats_free(&sum), nb_stats_free(&part), nb_stats_free(&want);
    nb_artifact_close(a), nb_artifact_close(w);

    nb_quantize_options direct = quantization("plain", NB_METHOD_GPTQ), from = quantization("other", NB_METHOD_GPTQ);
    direct.data = (nb_samples_options){.path = chats, .samples = 9, .dataset = {.need_answer = true}};
    from.artifacts = &apart;
    from.artifact_count = 1;
    memcpy(direct.modality_weights, weights, sizeof weights);
    memcpy(from.modality_weights, weights, sizeof weights);
    double loss = quantize(&direct);
    NEAR(quantize(&from), loss, 1e-2 * loss); /* a few codes near a tie may differ */
}

/* ---- refusals ----------------------------------------------------------------------------------------------------------- */

static void write_at(const char *path, long offset, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0 && pwrite(fd, bytes, n, offset) == (ssize_t)n);
    close(fd);
}

/* The artifact `damaged`: a copy of all, with another artifact.json where `from` is replaced by `to`. */
static void copy_with(const char *from, const char *to)
{
    nb_error err;
    nb_remove_folder(in_folder("damaged"), NULL);
    assert_int_equal(mkdir(in_folder("damaged"), 0777), 0);
    for (int i = 0; i < LAYERS; i++) {
        char path[2][1024];
        snprintf(path[0], 1024, "%s/%s", in_folder("all"), layer_name(i));
        snprintf(path[1], 1024, "%s/%s", in_folder("damaged"), layer_name(i));
        OK(nb_file_copy(path[0], path[1], &err), &err);
    }
    nb_buf text = contents(in_folder("all"), "artifact.json"), changed = {0};
    char  *at = from ? strstr(text.data, from) : NULL;
    assert_true(!from || at);
    if (at) nb_buf_add(&changed, text.data, (size_t)(at - text.data)), nb_buf_str(&changed, to), nb_buf_str(&changed, at + strlen(from));
    OK(nb_file_write_atomic(in_folder("damaged/artifact.json"), at ? changed.data : text.data, at ? changed.size : text.size, &err), &err);
    nb_buf_free(&text);
    nb_buf_free(&changed);
}

static void refused(const char *part)
{
    nb_error            err;
    nb_quantize_report  r;
    const char *const   name = in_folder("damaged");
    nb_quantize_options o = quantization("plain", NB_METHOD_AWQ);
    o.artifacts = &name;
    o.artifact_count = 1;
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_INPUT, part, &err);
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    nb_error    err;
    nb_artifact *a;
    struct stat  st;
    const char *const name = in_folder("damaged"), *const none = in_folder("hidden");
    FAILS(nb_artifact_open(&a, &none, 1, &err), NB_ERR_INPUT, "has no artifact.json", &err);
    copy_with("\"version\": 1", "\"version\": 2");
    FAILS(nb_artifact_open(&a, &name, 1, &err), NB_ERR_UNSUPPORTED, "has version 2 of the format", &err);
    copy_with("nibble-calibration", "other-calibration");
    refused("is not that of a nibble calibration artifact");
    copy_with("\"model\": \"", "\"model\": \"z");
    refused("model is not a hash of 16 digits");
    copy_with("\"layers\": 6", "\"layers\": 5");
    refused("is of another model");
    copy_with("\"down\": 1024", "\"down\": 512");
    refused("is of another model");
    copy_with("\"layers\": 6", "\"layers\": 0");
    refused("layers");
    copy_with("{\"text\": ", "{\"text\": 1");
    refused("calibrate again");

    copy_with(NULL, NULL);
    const char *layer = in_folder("damaged/layer-0003.stats");
    assert_int_equal(stat(layer, &st), 0);
    write_at(layer, st.st_size / 2, "\x55\xaa\x55\xaa", 4);
    refused("layer-0003.stats: byte ");
    copy_with(NULL, NULL);
    assert_int_equal(truncate(layer, st.st_size - 1), 0);
    refused("the file ends in it");
    copy_with(NULL, NULL);
    write_at(layer, st.st_size, "x", 1);
    refused("something follows the last chunk");
    copy_with(NULL, NULL);
    assert_int_equal(unlink(layer), 0);
    refused("layer-0003.stats");
    copy_with(NULL, NULL);
    OK(nb_remove_folder(in_folder("other"), &err), &err);
    assert_int_equal(rename(in_folder("damaged/layer-0004.stats"), layer), 0); /* whole, but not this layer */
    refused("its head is that of another chunk");
}

static void what_does_not_belong_together(void **state)
{
    (void)state;
    nb_error          err;
    nb_artifact      *a;
    nb_quantize_report r;
    const char *const twice[] = {in_folder("a"), in_folder("a")}, *const weights[] = {in_folder("a"), in_folder("weighed")},
                *const apart[] = {in_folder("a"), in_folder("apart-b")}, *const models[] = {in_folder("a"), in_folder("damaged")};
    FAILS(nb_artifact_open(&a, twice, 2, &err), NB_ERR_INPUT, "the same conversations", &err);
    FAILS(nb_artifact_open(&a, weights, 2, &err), NB_ERR_INPUT, "weighs a token of image with 1", &err);
    FAILS(nb_artifact_open(&a, apart, 2, &err), NB_ERR_INPUT, "make both with --per-modality or both without", &err);
    copy_with("\"model\": \"", "\"model\": \"0123456789abcdef\", \"was\": \"");
    FAILS(nb_artifact_open(&a, models, 2, &err), NB_ERR_INPUT, "are of different models", &err);
    refused("is of another model");

    nb_quantize_options o = quantization("plain", NB_METHOD_GPTQ);
    o.artifacts = twice;
    o.artifact_count = 1;
    o.propagate_quantized = true;
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_ARGUMENT, "what the float model sees", &err);
    o.propagate_quantized = false;
    o.modality_weights[1] = 2;
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_ARGUMENT, "was made with modality weights 1:1:1, not 1:2:1", &err);

    nb_calibrate_report  report;
    nb_calibrate_options c = request("all", 1, 0);
    FAILS(nb_calibrate(&ops, &c, NULL, NULL, &report, &err), NB_ERR_ARGUMENT, "exists; choose another name", &err);
    c = request("", 1, 0);
    c.force = true; /* replaces artifacts, not what happens to have the name */
    FAILS(nb_calibrate(&ops, &c, NULL, NULL, &report, &err), NB_ERR_ARGUMENT, "is no calibration artifact", &err);
}

/* ---- interruptions ------------------------------------------------------------------------------------------------------ */

static bool stop_at(void *context, size_t done, size_t total, const char *what)
{
    (void)total;
    (void)what;
    return done < *(size_t *)context;
}

static void a_stopped_run_goes_on(void **state)
{
    (void)state;
    nb_error             err;
    nb_calibrate_report  r;
    nb_calibrate_options o = request("stopped", 9, 0);
    size_t               at = 4;
    FAILS(nb_calibrate(&ops, &o, stop_at, &at, &r, &err), NB_ERR_STOPPED, "goes on from there", &err);
    assert_true(!nb_is_directory(in_folder("stopped")) && nb_file_exists(in_folder("stopped.partial/layer-0002.stats")));
    assert_false(nb_file_exists(in_folder("stopped.partial/layer-0003.stats")));
    r = calibrate(&ops, &o);
    assert_int_equal(r.taken, 3);
    assert_same_artifact("all", "stopped");
    assert_false(nb_is_directory(in_folder("stopped.partial")));

    o.force = true; /* other data: nothing is taken over */
    FAILS(nb_calibrate(&ops, &o, stop_at, &at, &r, &err), NB_ERR_STOPPED, "goes on from there", &err);
    o.data.skip = 1;
    r = calibrate(&ops, &o);
    assert_int_equal(r.taken, 0);
    assert_false(same_file(in_folder("all"), in_folder("stopped"), "artifact.json"));
    at = 0;
    o.out_dir = in_folder("never");
    FAILS(nb_calibrate(&ops, &o, stop_at, &at, &r, &err), NB_ERR_STOPPED, "stopped before the calibration data", &err);
    assert_false(nb_is_directory(in_folder("never.partial")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_way_gives_the_same_bytes), cmocka_unit_test(awq_and_gptq_from_an_artifact),
                                       cmocka_unit_test(modalities_apart), cmocka_unit_test(what_is_wrong_is_named),
                                       cmocka_unit_test(what_does_not_belong_together), cmocka_unit_test(a_stopped_run_goes_on)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
