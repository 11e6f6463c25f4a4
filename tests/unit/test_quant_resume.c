/* Runs killed at every step, stopped, and started again: the files are those of a run that nobody disturbed; what changed meanwhile
 * is refused by name; damage costs what it hit and nothing else.
 *
 * Each run is a child process, so that SIGKILL is what it is for a user. */
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "quant/journal_text.h"
#include "quant_folder.h"

enum { KILL, STOP };
typedef struct {
    size_t calls, at; /* SIZE_MAX: never */
    int    how;
    size_t steps;     /* of this run, not counting finished ones */
    char   told[200];
} interruption;

static void tell(void *context, const char *line)
{
    interruption *i = context;
    snprintf(i->told, sizeof i->told, "%s", line);
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
        .job = true, .tell = tell,
    };
}

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
    size_t    steps, replayed;
    double    loss; /* sum over the report */
    char      notes[600], told[200];
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
        nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
        result.status = nb_quantize(&ops, o, interrupt, &i, &r, &err);
        snprintf(result.text, sizeof result.text, "%s", err.text);
        result.steps = i.steps;
        result.replayed = r.replayed_layers;
        snprintf(result.notes, sizeof result.notes, "%s%s", r.notes.data ? r.notes.data : "", r.run_notes.data ? r.run_notes.data : "");
        snprintf(result.told, sizeof result.told, "%s", i.told);
        for (size_t m = 0; m < r.count && r.matrices; m++) {
            result.loss += r.matrices[m].loss + r.matrices[m].rtn_loss + r.matrices[m].ratio + (r.matrices[m].name[0] == 'm');
        }
        for (size_t m = 0; m < r.count / 7 * 4 && r.site_max; m++) result.loss += r.site_max[m] * (double)(m + 1);
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
    static const nb_method methods[] = {NB_METHOD_GPTQ, NB_METHOD_GPTQ, NB_METHOD_AWQ, NB_METHOD_AWQ, NB_METHOD_RTN, NB_METHOD_GPTQ,
                                        NB_METHOD_GPTQ, NB_METHOD_AWQ_GPTQ};
    for (int variant = 0; variant < (int)NB_COUNT(methods); variant++) {
        nb_quantize_options o = request(methods[variant]);
        o.true_sequential = variant != 5;
        o.propagate_quantized = variant % 2 == 0;
        o.asym = variant == 2 || variant == 6;
        bool by_sites = variant < 3 || variant > 5;
        o.asym_damp = 0.01;
        o.order = variant == 0 ? NB_ORDER_FULL : NB_ORDER_NONE;
        o.save_states = variant < 6 ? variant : variant - 5; /* never, every layer, ... */
        outcome  whole = finish(&o);
        uint64_t want = hash_out();
        assert_int_equal(whole.steps, STEPS);
        for (size_t at = variant; at < STEPS; at += variant < 2 ? 7 : 13) {
            int signal;
            run(&o, at, KILL, &signal);
            assert_int_equal(signal, SIGKILL);
            assert_false(nb_file_exists(in_folder("out")));
            outcome r = finish(&o);
            size_t  finished = at ? at - 1 : 0; /* before step `at`; not all methods can go on inside a layer */
            assert_int_equal(r.steps, STEPS - (by_sites ? finished : finished / 4 * 4));
            if (o.save_states && o.method != NB_METHOD_RTN) assert_true(r.replayed < (size_t)o.save_states);
            else if (o.method != NB_METHOD_RTN) assert_int_equal(r.replayed, finished / 4 == 6 ? 0 : finished / 4);
            NEAR(r.loss, whole.loss, 0);
            assert_true(hash_out() == want);
        }
        if (variant % 3) continue;
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

/* Between two sites where that can be gone on from, otherwise at the end of the layer. */
static void stopped_at_the_end_of_a_step(void **state)
{
    (void)state;
    for (int sequential = 0; sequential < 2; sequential++) {
        nb_quantize_options o = request(NB_METHOD_GPTQ);
        int                 signal;
        o.true_sequential = sequential;
        finish(&o);
        uint64_t want = hash_out();
        outcome  r = run(&o, 0, STOP, &signal);
        assert_int_equal(r.status, NB_ERR_STOPPED);
        assert_non_null(strstr(r.text, "nothing was left"));
        assert_false(nb_file_exists(in_folder("out.job")) || nb_file_exists(in_folder("out.partial")));
        r = run(&o, 6, STOP, &signal); /* inside the second layer */
        assert_int_equal(r.status, NB_ERR_STOPPED);
        assert_non_null(strstr(r.text, sequential ? "stopped before layer 2 of 6: self_attn.o_proj; the same command goes on"
                                                  : "stopped after layer 2 of 6; the same command goes on"));
        r = run(&o, 1, STOP, &signal); /* while the finished layers are run */
        assert_int_equal(r.status, NB_ERR_STOPPED);
        assert_non_null(strstr(r.text, "the same command goes on"));
        r = finish(&o);
        assert_int_equal(r.steps, STEPS - (sequential ? 5 : 8));
        assert_string_equal(r.told, sequential ? "goes on at layer 2 of 6, of which 1 of 4 steps are finished; 1 finished layer is run again"
                                               : "goes on at layer 3 of 6; 2 finished layers are run again");
        assert_true(hash_out() == want);
    }
}

static void changes_are_refused_by_name(void **state)
{
    (void)state;
    nb_quantize_options o = request(NB_METHOD_GPTQ), p;
    int                 signal;
    nb_error            err;
    finish(&o);
    uint64_t want = hash_out();
    run(&o, 10, KILL, &signal); /* two layers and one site */
    p = o;
    p.recipe_json = "{\"a\": 2}";
    outcome r = run(&p, SIZE_MAX, STOP, &signal);
    assert_int_equal(r.status, NB_ERR_ARGUMENT);
    assert_non_null(strstr(r.text, "--a is 2, and was 1 when the job in"));
    assert_non_null(strstr(r.text, "began, 2 layers ago"));
    p.recipe_json = "{\"a\": 1, \"b_c\": \"x\"}";
    r = run(&p, SIZE_MAX, STOP, &signal);
    assert_int_equal(r.status, NB_ERR_ARGUMENT);
    assert_non_null(strstr(r.text, "--b-c is \"x\", and was not given when the job in"));
    p.recipe_json = "{}";
    r = run(&p, SIZE_MAX, STOP, &signal);
    assert_int_equal(r.status, NB_ERR_ARGUMENT);
    assert_non_null(strstr(r.text, "--a was 1 when the job in"));
    p = o;
    p.data.skip = 1;
    r = run(&p, SIZE_MAX, STOP, &signal);
    assert_int_equal(r.status, NB_ERR_ARGUMENT);
    assert_non_null(strstr(r.text, "chat.jsonl (a conversation that is used, or a picture in one): changed since the job in"));
    nb_journal *j; /* held by somebody else */
    OK(nb_journal_open(&j, in_folder("out.job"), o.out_dir, true, &err), &err);
    assert_int_equal(nb_journal_layers(j), 2);
    assert_int_equal(nb_journal_sites(j), 1);
    r = run(&o, SIZE_MAX, STOP, &signal);
    assert_int_equal(r.status, NB_ERR_ARGUMENT);
    char whose[100];
    snprintf(whose, sizeof whose, "out.job: another run is at this job (pid %ld on ", (long)getpid());
    assert_non_null(strstr(r.text, whose));
    assert_non_null(strstr(r.text, ", since 20"));
    nb_journal_info info;
    OK(nb_journal_look(&info, in_folder("out.job"), &err), &err);
    assert_true(!strncmp(info.owner, "pid ", 4) && info.layers == 2 && info.sites == 1 && strlen(info.begun) == 20);
    nb_journal_close(j, false);
    OK(nb_journal_look(&info, in_folder("out.job"), &err), &err);
    assert_string_equal(info.owner, "");
    FILE *torn = fopen(in_folder("out.job/.nibble-0123456789abcdef.tmp"), "w"); /* as a run that is killed while it writes leaves it */
    assert_non_null(torn);
    fclose(torn);

    r = finish(&o); /* none of these did harm */
    assert_int_equal(r.steps, STEPS - 9);
    assert_true(hash_out() == want);
    assert_int_not_equal(access(in_folder("out.job"), F_OK), 0);
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

/* The model that a job began with is the same when it was touched, copied or moved back, and another when a byte of it is. */
static void inputs_by_content(void **state)
{
    (void)state;
    nb_quantize_options o = request(NB_METHOD_GPTQ);
    int                 signal;
    nb_error            err;
    char                model[600], shard[700], config[700], tokens[700];
    snprintf(model, sizeof model, "%s", in_folder("model"));
    snprintf(shard, sizeof shard, "%s/model.safetensors", model);
    snprintf(config, sizeof config, "%s/config.json", model);
    snprintf(tokens, sizeof tokens, "%s/generation_config.json", model);
    assert_int_equal(mkdir(model, 0777), 0);
    DIR *dir = opendir(source);
    for (const struct dirent *e; (e = readdir(dir));) {
        char from[1400], to[1400];
        if (e->d_name[0] == '.') continue;
        snprintf(from, sizeof from, "%s/%s", source, e->d_name);
        snprintf(to, sizeof to, "%s/%s", model, e->d_name);
        OK(nb_file_copy(from, to, &err), &err);
    }
    closedir(dir);
    o.model_dir = model;
    finish(&o);
    uint64_t want = hash_out();
    run(&o, 11, KILL, &signal); /* two layers and two sites */
    const struct timespec long_ago[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(utimensat(AT_FDCWD, shard, long_ago, 0), 0);
    assert_int_equal(utimensat(AT_FDCWD, config, long_ago, 0), 0);

    nb_safetensors *st;
    OK(nb_safetensors_open(&st, shard, &err), &err);
    struct stat info;
    assert_int_equal(stat(shard, &info), 0);
    const struct { const char *tensor, *says; } cases[] = {
        {"model.norm.weight", "model.safetensors (norms, biases, embedding, vision tower): changed since the job in"},
        {"visual.blocks.0.attn.qkv.weight", "model.safetensors (norms, biases, embedding, vision tower): changed since the job in"},
        {"model.layers.0.mlp.up_proj.weight", "tensor 'model.layers.0.mlp.up_proj.weight' changed since the job in"},
        {"model.layers.2.self_attn.o_proj.weight", "tensor 'model.layers.2.self_attn.o_proj.weight' changed since the job in"},
        {"model.layers.2.mlp.down_proj.weight", "tensor 'model.layers.2.mlp.down_proj.weight' changed since the job in"},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        const nb_tensor *t = nb_safetensors_find(st, cases[i].tensor);
        long             at = (long)info.st_size - (long)t->offset - 2; /* a low byte of its first values: finite */
        flip(shard, at);
        outcome r = run(&o, SIZE_MAX, STOP, &signal);
        if (r.status != NB_ERR_ARGUMENT || !(strstr(r.text, cases[i].says) || strstr(r.text, "model.safetensors: changed since")))
            fail_msg("%s: status %d, '%s'", cases[i].tensor, r.status, r.text);
        flip(shard, at);
    }
    nb_safetensors_close(st);
    for (int i = 0; i < 2; i++) {
        flip(i ? config : tokens, 1); /* the last line's end becomes a vertical tab, or the like */
        outcome r = run(&o, SIZE_MAX, STOP, &signal);
        assert_true(r.status == NB_ERR_ARGUMENT || r.status == NB_ERR_INPUT);
        assert_non_null(strstr(r.text, i ? "config.json" : "generation_config.json"));
        flip(i ? config : tokens, 1);
    }
    assert_int_equal(rename(tokens, in_folder("moved")), 0);
    outcome r = run(&o, SIZE_MAX, STOP, &signal);
    assert_non_null(strstr(r.text, "generation_config.json: changed since the job in"));
    assert_int_equal(rename(in_folder("moved"), tokens), 0);
    r = finish(&o);
    assert_int_equal(r.steps, STEPS - 10);
    assert_true(hash_out() == want);
    OK(nb_remove_folder(model, &err), &err);
}

/* Hidden states on disk spare the finished layers; damaged, cut or missing they cost them, and the bytes are the same. */
static void states_are_found_or_made_again(void **state)
{
    (void)state;
    nb_error err;
    for (int variant = 0; variant < 4; variant++) {
        nb_quantize_options o = request(NB_METHOD_GPTQ);
        char                spool[600], places[700], file[800];
        int                 signal, spooled = variant % 2;
        snprintf(spool, sizeof spool, "%s", in_folder("out.job"));
        o.asym = variant > 1; /* two streams of states; the second is damaged */
        o.asym_damp = 0.01;
        snprintf(places, sizeof places, "%s%s", spool, o.asym ? "/original" : "");
        finish(&o);
        uint64_t want = hash_out(); /* in memory; chunks of a spool change nothing */
        if (spooled) o.data.spool = spool;
        o.data.spool_chunk = 1000;
        o.save_states = 2;
        run(&o, STEPS - 1, KILL, &signal); /* all layers: their states are not needed, and do not stay */
        outcome rest = finish(&o);
        assert_string_equal(rest.told, "goes on after the last of 6 layers");
        assert_int_equal(rest.steps, 2);
        assert_true(hash_out() == want);
        for (int damage = 0; damage < (o.asym ? 2 : 5); damage++) {
            run(&o, 21, KILL, &signal); /* five layers */
            nb_journal_info info;
            OK(nb_journal_look(&info, spool, &err), &err);
            assert_int_equal(info.layers, 5);
            assert_int_equal(info.states, spooled ? 5 : 4);
            file[0] = 0;
            DIR *dir = opendir(places);
            assert_non_null(dir);
            for (const struct dirent *e; (e = readdir(dir));)
                if (!strncmp(e->d_name, "hidden-", 7)) {
                    assert_string_equal(file, ""); /* one only */
                    snprintf(file, sizeof file, "%s/%.80s", places, e->d_name);
                }
            closedir(dir);
            assert_string_not_equal(file, "");
            struct stat st;
            assert_int_equal(stat(file, &st), 0);
            const char *why = "";
            if (damage == 1) flip(file, st.st_size / 2), why = "a checksum does not match";
            if (damage == 2) assert_int_equal(truncate(file, st.st_size - 1), 0), why = "its size is another";
            if (damage == 3) assert_int_equal(unlink(file), 0), why = "it is not there";
            if (damage == 4) { /* chunk 0 says format 2^56 + 2 */
                flip(file, st.st_size - 15);
                why = "it was written by a newer nibble";
            }
            outcome r = finish(&o);
            assert_int_equal(r.replayed, damage ? 5 : spooled ? 0 : 1);
            if (damage) {
                assert_non_null(strstr(r.notes, "hidden states of an earlier run are not used, but computed again: "));
                if (!strstr(r.notes, why)) fail_msg("%s: %s", why, r.notes);
            } else {
                assert_null(strstr(r.notes, "hidden states"));
                assert_string_equal(r.told, spooled ? "goes on at layer 6 of 6; its inputs are on disk"
                                                    : "goes on at layer 6 of 6; 1 finished layer is run again");
            }
            assert_true(hash_out() == want);
        }
    }
}

static void formats_and_places(void **state)
{
    (void)state;
    nb_quantize_options o = request(NB_METHOD_GPTQ);
    int                 signal;
    nb_error            err;
    nb_buf              text = {0};
    char                elsewhere[600];
    snprintf(elsewhere, sizeof elsewhere, "%s", in_folder("elsewhere"));
    finish(&o);
    uint64_t want = hash_out();
    o.job_dir = elsewhere;
    o.command_json = "{\"x\": 1}";
    run(&o, 10, KILL, &signal);
    assert_false(nb_file_exists(in_folder("out.job")));
    OK(nb_file_read(&text, in_folder("elsewhere/command.json"), 100, &err), &err);
    assert_string_equal(text.data, o.command_json);
    nb_buf_free(&text);

    OK(nb_file_read(&text, in_folder("elsewhere/journal.jsonl"), 1 << 20, &err), &err); /* of a later nibble */
    assert_true(!strncmp(text.data, "{\"journal\":2,", 13));
    text.data[11] = '3';
    OK(nb_file_write_atomic(in_folder("elsewhere/journal.jsonl"), text.data, text.size, &err), &err);
    outcome r = run(&o, SIZE_MAX, STOP, &signal);
    assert_int_equal(r.status, NB_ERR_UNSUPPORTED);
    assert_non_null(strstr(r.text, "elsewhere/journal.jsonl: is a journal of format 3, and this nibble knows 2"));
    text.data[11] = '2';
    OK(nb_file_write_atomic(in_folder("elsewhere/journal.jsonl"), text.data, text.size, &err), &err);
    nb_buf_free(&text);
    r = finish(&o);
    assert_int_equal(r.steps, STEPS - 9);
    assert_false(nb_file_exists(elsewhere));
    assert_true(hash_out() == want);

    /* Killed between the renaming and the end: the job is known to be done. */
    nb_journal     *j;
    nb_journal_info info;
    run(&o, 10, KILL, &signal);
    OK(nb_journal_open(&j, elsewhere, o.out_dir, true, &err), &err);
    OK(nb_journal_committing(j, in_folder("out.partial"), &err), &err);
    nb_journal_close(j, false);
    OK(nb_journal_look(&info, elsewhere, &err), &err);
    assert_true(info.committing && !nb_journal_is_result(&info, o.out_dir));
    assert_int_equal(rename(in_folder("out.partial"), o.out_dir), 0);
    OK(nb_journal_look(&info, elsewhere, &err), &err);
    assert_true(nb_journal_is_result(&info, o.out_dir));
    o.force = true;
    r = finish(&o); /* replaces it: nothing of the old job is taken for a part of the new one */
    assert_int_equal(r.steps, STEPS);
    assert_true(hash_out() == want);
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
    flip(in_folder("out.job/journal.jsonl"), 40); /* the last line: a site of the fourth */
    outcome r = finish(&o);
    assert_int_equal(r.steps, STEPS - 12);
    assert_true(hash_out() == want_one);

    run(&o, 14, KILL, &signal);
    assert_int_equal(truncate(in_folder("out.job/journal.jsonl"), 3500), 0); /* torn */
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

/* A judge that reads the whole checkpoint, adds two files, and dies between them when it is told to. */
static nb_status judge(void *context, const nb_quantized *q, nb_error *err)
{
    const char *how = context;
    nb_model   *model;
    nb_checkpoint *c;
    NB_TRY(nb_checkpoint_open_unfinished(&c, nb_writer_partial(q->writer), err));
    NB_TRY(nb_model_open_checkpoint(&model, c, &q->original->ops, 0, err)); /* all of it is there */
    char text[200];
    snprintf(text, sizeof text, "%d layers, %g", model->config.layers, q->report->matrices[41].loss);
    nb_model_close(model);
    NB_TRY(nb_writer_file(q->writer, "report.json", text, strlen(text), err));
    if (*how == 'k') raise(SIGKILL);
    if (*how == 's') return nb_fail(err, NB_ERR_STOPPED, "stopped while judging");
    return nb_writer_file(q->writer, "README.md", text, strlen(text), err);
}

static void judged_again_after_an_interruption(void **state)
{
    (void)state;
    nb_quantize_options o = request(NB_METHOD_GPTQ);
    int                 signal;
    o.finish = judge;
    o.finish_context = "";
    finish(&o);
    uint64_t want = hash_out();
    o.finish_context = "k";
    run(&o, SIZE_MAX, STOP, &signal);
    assert_int_equal(signal, SIGKILL);
    assert_false(nb_file_exists(in_folder("out")));
    assert_true(nb_file_exists(in_folder("out.partial/report.json")));
    o.finish_context = "s";
    outcome r = run(&o, SIZE_MAX, STOP, &signal);
    assert_int_equal(r.status, NB_ERR_STOPPED);
    assert_int_equal(r.steps, STEPS - 24); /* every layer was taken over */
    o.finish_context = "";
    r = finish(&o);
    assert_int_equal(r.steps, STEPS - 24);
    assert_true(hash_out() == want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_anywhere), cmocka_unit_test(stopped_at_the_end_of_a_step),
        cmocka_unit_test(judged_again_after_an_interruption), cmocka_unit_test(changes_are_refused_by_name),
        cmocka_unit_test(damage_costs_what_it_hit), cmocka_unit_test(inputs_by_content),
        cmocka_unit_test(states_are_found_or_made_again), cmocka_unit_test(formats_and_places),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
