/* Runs killed at every layer, stopped, and started again: the files are those of a run that nobody disturbed; what changed meanwhile
 * is refused by name; damage costs the layers it hit and nothing else.
 *
 * Each run is a child process, so that SIGKILL is what it is for a user. */
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "quant/journal.h"
#include "runtime/io/file.h"

static char folder[512], source[1024], chats[1024];

static int make_folder(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/nb-resume-XXXXXX", base ? base : P_tmpdir);
    snprintf(source, sizeof source, "%s", unit_path("tools/demo/model"));
    snprintf(chats, sizeof chats, "%s", unit_path("tools/demo/calib/chat.jsonl"));
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return nb_remove_folder(folder, NULL) == NB_OK ? 0 : -1;
}

static const char *in_folder(const char *name)
{
    static char path[32][600];
    static int  i;
    i = (i + 1) % 32;
    snprintf(path[i], sizeof path[i], "%.500s/%.90s", folder, name);
    return path[i];
}

static nb_quantize_options request(nb_method method)
{
    static char out[600]; /* outlives the request */
    bool        awq = method == NB_METHOD_AWQ;
    snprintf(out, sizeof out, "%s", in_folder("out"));
    return (nb_quantize_options){
        .model_dir = source, .out_dir = out, .method = method, .grid = {.bits = 4, .group = 64, .sym = !awq},
        .format = awq ? NB_FORMAT_AWQ : NB_FORMAT_GPTQ, .awq_points = 2, .awq_clip = true, .damp = 0.01, .damp_max = 1, .block = 128,
        .true_sequential = true, .propagate_quantized = true, .modality_weights = {1, 1, 1},
        .data = {.path = chats, .samples = 2, .dataset = {.need_answer = true}}, .shard_size = 600000, .recipe_json = "{\"a\": 1}",
        .job = true,
    };
}

enum { KILL, STOP };
typedef struct {
    size_t calls, at; /* SIZE_MAX: never */
    int    how;
    size_t steps;     /* of this run, not counting finished layers */
} interruption;

static bool interrupt(void *context, size_t done, size_t total, const char *what)
{
    interruption *i = context;
    (void)total;
    i->steps += !strstr(what, "which is finished");
    if (i->how == KILL && done >= i->at) raise(SIGKILL);
    return done < i->at;
}

typedef struct {
    nb_status status;
    char      text[800];
    size_t    steps;
    double    loss; /* sum over the report */
} outcome;

/* *signal: what ended the child, or 0. */
static outcome run(const nb_quantize_options *o, size_t at, int how, int *signal)
{
    int     ends[2], code;
    outcome result = {.status = NB_OK};
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        nb_pool           *pool;
        nb_ops             ops;
        nb_quantize_report r;
        nb_error           err = {0};
        interruption       i = {.at = at, .how = how};
        if (nb_pool_new(&pool, 2, &err)) _exit(1);
        nb_ops_init(&ops, nb_isa_detect(NB_ISA_AVX512), pool);
        result.status = nb_quantize(&ops, o, interrupt, &i, &r, &err);
        snprintf(result.text, sizeof result.text, "%s", err.text);
        result.steps = i.steps;
        for (size_t m = 0; m < r.count && r.matrices; m++) {
            result.loss += r.matrices[m].loss + r.matrices[m].rtn_loss + r.matrices[m].ratio + (r.matrices[m].name[0] == 'm');
        }
        result.loss += r.max_input;
        _exit(write(ends[1], &result, sizeof result) != sizeof result);
    }
    close(ends[1]);
    ssize_t n = read(ends[0], &result, sizeof result);
    close(ends[0]);
    assert_int_equal(waitpid(child, &code, 0), child);
    *signal = WIFSIGNALED(code) ? WTERMSIG(code) : 0;
    assert_true(*signal || n == (ssize_t)sizeof result);
    return result;
}

static outcome finish(const nb_quantize_options *o)
{
    int     signal;
    outcome r = run(o, SIZE_MAX, STOP, &signal);
    if (r.status) fail_msg("%s", r.text);
    assert_false(nb_file_exists(in_folder("out.job")));
    assert_false(nb_file_exists(in_folder("out.partial")));
    return r;
}

static uint64_t hash_out(void)
{
    uint64_t sum = 0; /* over files, in any order */
    DIR     *dir = opendir(in_folder("out"));
    assert_non_null(dir);
    for (const struct dirent *e; (e = readdir(dir));) {
        char     path[1400];
        nb_buf   text = {0};
        nb_error err;
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", in_folder("out"), e->d_name);
        OK(nb_file_read(&text, path, 1 << 30, &err), &err);
        uint64_t h = 14695981039346656037u;
        for (const char *p = e->d_name; *p; p++) h = (h ^ (uint8_t)*p) * 1099511628211u;
        for (size_t i = 0; i < text.size; i++) h = (h ^ (uint8_t)text.data[i]) * 1099511628211u;
        sum += h;
        nb_buf_free(&text);
    }
    closedir(dir);
    OK(nb_remove_folder(in_folder("out"), &(nb_error){0}), &(nb_error){0});
    return sum;
}

enum { STEPS = 6 * 4 + 2 }; /* one, four a layer, one */

static void killed_anywhere(void **state)
{
    (void)state;
    for (int variant = 0; variant < 5; variant++) {
        nb_quantize_options o = request(variant < 2 ? NB_METHOD_GPTQ : variant < 4 ? NB_METHOD_AWQ : NB_METHOD_RTN);
        o.propagate_quantized = variant % 2 == 0;
        o.asym = variant == 2;
        o.asym_damp = 0.01;
        o.order = variant == 0 ? NB_ORDER_FULL : NB_ORDER_NONE;
        outcome  whole = finish(&o);
        uint64_t want = hash_out();
        assert_int_equal(whole.steps, STEPS);
        for (size_t at = variant; at < STEPS; at += 7) {
            int signal;
            run(&o, at, KILL, &signal);
            assert_int_equal(signal, SIGKILL);
            assert_false(nb_file_exists(in_folder("out")));
            outcome r = finish(&o);
            size_t  layers = at ? (at - 1) / 4 : 0; /* finished before step `at` */
            assert_int_equal(r.steps, STEPS - 4 * layers);
            NEAR(r.loss, whole.loss, 0);
            assert_true(hash_out() == want);
        }
        /* Again and again, one layer further each time, on disk or in memory. */
        char spool[600];
        int  signal = SIGKILL;
        snprintf(spool, sizeof spool, "%s", in_folder("out.job"));
        for (size_t at = 6; signal; at += 4) {
            o.data.spool = at % 8 == 2 ? spool : NULL;
            outcome r = run(&o, at, KILL, &signal);
            if (!signal && r.status) fail_msg("step %zu: %s", at, r.text);
        }
        assert_true(hash_out() == want);
        assert_false(nb_file_exists(in_folder("out.job")));
    }
}

static void stopped_at_the_end_of_a_layer(void **state)
{
    (void)state;
    nb_quantize_options o = request(NB_METHOD_GPTQ);
    int                 signal;
    finish(&o);
    uint64_t want = hash_out();
    outcome  r = run(&o, 0, STOP, &signal);
    assert_int_equal(r.status, NB_ERR_STOPPED);
    assert_non_null(strstr(r.text, "nothing was left"));
    assert_false(nb_file_exists(in_folder("out.job")) || nb_file_exists(in_folder("out.partial")));
    r = run(&o, 6, STOP, &signal); /* inside the second layer */
    assert_int_equal(r.status, NB_ERR_STOPPED);
    assert_non_null(strstr(r.text, "stopped after layer 2 of 6; the same command goes on"));
    r = run(&o, 1, STOP, &signal); /* while the finished layers are run */
    assert_int_equal(r.status, NB_ERR_STOPPED);
    assert_non_null(strstr(r.text, "the same command goes on"));
    r = finish(&o);
    assert_int_equal(r.steps, STEPS - 8);
    assert_true(hash_out() == want);
}

static void changes_are_refused_by_name(void **state)
{
    (void)state;
    nb_quantize_options o = request(NB_METHOD_GPTQ), p;
    int                 signal;
    nb_error            err;
    char                model[600];
    snprintf(model, sizeof model, "%s", in_folder("model"));
    finish(&o);
    uint64_t want = hash_out();
    run(&o, 10, KILL, &signal);
    p = o;
    p.recipe_json = "{\"a\": 2}";
    outcome r = run(&p, SIZE_MAX, STOP, &signal);
    assert_int_equal(r.status, NB_ERR_ARGUMENT);
    assert_non_null(strstr(r.text, "the command's options changed since this job began, 2 layers ago"));
    p = o;
    p.data.skip = 1;
    r = run(&p, SIZE_MAX, STOP, &signal);
    assert_int_equal(r.status, NB_ERR_ARGUMENT);
    assert_non_null(strstr(r.text, "the calibration data changed"));
    p = o;
    p.model_dir = model;
    assert_int_equal(mkdir(p.model_dir, 0777), 0); /* the same bytes, written later */
    DIR *dir = opendir(source);
    for (const struct dirent *e; (e = readdir(dir));) {
        char from[1400], to[1400];
        if (e->d_name[0] == '.') continue;
        snprintf(from, sizeof from, "%s/%s", source, e->d_name);
        snprintf(to, sizeof to, "%s/%s", p.model_dir, e->d_name);
        OK(nb_file_copy(from, to, &err), &err);
    }
    closedir(dir);
    r = run(&p, SIZE_MAX, STOP, &signal);
    assert_int_equal(r.status, NB_ERR_ARGUMENT);
    assert_non_null(strstr(r.text, "the model changed"));
    OK(nb_remove_folder(p.model_dir, &err), &err);

    nb_journal *j; /* held by somebody else */
    OK(nb_journal_open(&j, o.out_dir, true, &err), &err);
    assert_int_equal(nb_journal_layers(j), 2);
    r = run(&o, SIZE_MAX, STOP, &signal);
    assert_int_equal(r.status, NB_ERR_ARGUMENT);
    assert_non_null(strstr(r.text, "another run is at this job"));
    nb_journal_close(j, false);

    r = finish(&o); /* none of these did harm */
    assert_int_equal(r.steps, STEPS - 8);
    assert_true(hash_out() == want);
    run(&o, 10, KILL, &signal);
    p = o;
    p.anew = true;
    r = finish(&p);
    assert_int_equal(r.steps, STEPS);
    assert_true(hash_out() == want);
}

static void flip(const char *path, long from_end)
{
    int     fd = open(path, O_RDWR);
    uint8_t byte;
    off_t   at = lseek(fd, -from_end, SEEK_END);
    assert_true(fd >= 0 && at >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void damage_costs_what_it_hit(void **state)
{
    (void)state;
    nb_quantize_options o = request(NB_METHOD_GPTQ);
    int                 signal;
    nb_error            err;
    finish(&o);
    uint64_t want = hash_out();
    o.shard_size = 1 << 30; /* one file: other bytes than above */
    finish(&o);
    uint64_t want_one = hash_out();
    assert_true(want != want_one);

    run(&o, 14, KILL, &signal); /* three layers */
    flip(in_folder("out.job/journal.jsonl"), 40); /* the last line */
    outcome r = finish(&o);
    assert_int_equal(r.steps, STEPS - 8);
    assert_true(hash_out() == want_one);

    run(&o, 14, KILL, &signal);
    assert_int_equal(truncate(in_folder("out.job/journal.jsonl"), 700), 0); /* torn */
    r = finish(&o);
    assert_true(r.steps > STEPS - 12);
    assert_true(hash_out() == want_one);

    run(&o, 14, KILL, &signal); /* a byte of the first layer's tensors */
    nb_safetensors *st;
    OK(nb_safetensors_open(&st, in_folder("out.partial/model.safetensors"), &err), &err);
    const nb_tensor *t = nb_safetensors_find(st, "model.layers.1.mlp.down_proj.qweight");
    struct stat      info;
    assert_int_equal(stat(in_folder("out.partial/model.safetensors"), &info), 0);
    flip(in_folder("out.partial/model.safetensors"), (long)info.st_size - (long)t->offset - 5);
    nb_safetensors_close(st);
    r = finish(&o);
    assert_int_equal(r.steps, STEPS - 4);
    assert_true(hash_out() == want_one);

    run(&o, 14, KILL, &signal); /* the folder is gone */
    OK(nb_remove_folder(in_folder("out.partial"), &err), &err);
    r = finish(&o);
    assert_int_equal(r.steps, STEPS);
    assert_true(hash_out() == want_one);

    run(&o, 14, KILL, &signal); /* another layout there: side files and shards of it go */
    assert_int_equal(truncate(in_folder("out.partial/model.safetensors"), 5000), 0);
    OK(nb_file_write_atomic(in_folder("out.partial/config.json"), "{}", 2, &err), &err);
    r = finish(&o);
    assert_int_equal(r.steps, STEPS);
    assert_true(hash_out() == want_one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_anywhere), cmocka_unit_test(stopped_at_the_end_of_a_layer),
        cmocka_unit_test(changes_are_refused_by_name), cmocka_unit_test(damage_costs_what_it_hit),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
