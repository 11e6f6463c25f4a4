/* What quantize says about its result: the gate, a position's scores by hand, held-out rows, the three files, and that the judge's
 * figures are those of `nibble eval`, which runs the same models through the engine. */
#include "unit.h"

#include <sys/stat.h>

#include "program.h"
#include "temp_files.h"
#include "tools/eval/gate.h"
#include "tools/quantize_proof.h"

/* ---- the gate -------------------------------------------------------------------------------------------------------- */

static nb_token_score hand_tokens[] = {
    { .kl = 0.1f, .nll = 1, .ref_nll = 0.5f, .same_top = true, .in_top5 = true, .answer = true },
    { .kl = 0.3f, .nll = 2, .ref_nll = 2.5f, .in_top5 = true, .answer = true, .visual = true },
    { .kl = 0.2f, .nll = 3, .ref_nll = 2.4f },
    { .kl = 2.0f, .nll = 1, .ref_nll = 1, .same_top = true, .in_top5 = true, .visual = true, .pad = true },
};
static const nb_divergence hand = { .tokens = hand_tokens, .count = 4, .samples = 2 };

static void gate_reads_what_people_write(void **state)
{
    (void)state;
    const struct {
        const char *text, *name;
        double      limit, value;
        bool        met;
    } cases[] = {
        { "kl=0.02", "kl", 0.02, 0.65, false },
        { " kl.mean <= 0.7 ", "kl.mean", 0.7, 0.65, true },
        { "kl<0.65", "kl", 0.65, 0.65, true },
        { "kl.median=1", "kl.median", 1, 0.25, true },
        { "kl.max<1.5", "kl.max", 1.5, 2, false },
        { "text.kl=1", "text.kl", 1, 0.15, true },
        { "image.kl.max=1", "image.kl.max", 1, 0.3, true }, /* the picture's own place does not count */
        { "answer.kl.p90=1", "answer.kl.p90", 1, 0.28, true },
        { "answer_image.top5>1", "answer_image.top5", 1, 1, true },
        { "top1>=0.5", "top1", 0.5, 0.5, true },
        { "all.top1=0.51", "all.top1", 0.51, 0.5, false },
        { "ppl=1.1", "ppl", 1.1, exp(0.6 / 4), false },
        { "text.ppl=2", "text.ppl", 2, exp((0.5 + 0.6) / 2), true },
    };
    nb_error err;
    nb_gate  g;
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        OK(nb_gate_parse(&g, cases[i].text, &err), &err);
        assert_int_equal(g.count, 1);
        assert_string_equal(g.rules[0].name, cases[i].name);
        NEAR(g.rules[0].limit, cases[i].limit, 0);
        assert_false(nb_gate_met(&g)); /* not before it was checked */
        OK(nb_gate_check(&g, &hand, &err), &err);
        NEAR(g.rules[0].value, cases[i].value, 1e-6);
        if (nb_gate_met(&g) != cases[i].met && fabs(cases[i].limit - cases[i].value) > 1e-9) fail_msg("'%s' was %s", cases[i].text, cases[i].met ? "not met" : "met");
        nb_gate_free(&g);
    }
    OK(nb_gate_parse(&g, "off", &err), &err);
    assert_int_equal(g.count, 0);
    assert_true(nb_gate_met(&g));
    OK(nb_gate_parse(&g, "default", &err), &err);
    assert_int_equal(g.count, 3);
    nb_gate_free(&g);
    OK(nb_gate_parse(&g, write_file("gate.txt", "# limits\nkl=1, top1>0.4 # both\n\n  answer.kl.p99.9 < 0.5\n#kl=0\n"), &err), &err);
    assert_int_equal(g.count, 3);
    OK(nb_gate_check(&g, &hand, &err), &err);
    assert_true(nb_gate_met(&g));
    nb_gate_free(&g);

    /* Two conditions fail, and both are told. */
    nb_buf why = { 0 };
    OK(nb_gate_parse(&g, "kl=0.5,top5=0.1,top1=0.9", &err), &err);
    OK(nb_gate_check(&g, &hand, &err), &err);
    assert_false(nb_gate_met(&g));
    nb_gate_failures(&g, &why);
    assert_string_equal(why.data, "kl is 0.65, at most 0.5 was asked for; top1 is 0.5, at least 0.9 was asked for");
    nb_buf_free(&why);
    nb_gate_free(&g);
}

static void gate_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        { "kl", "neither default, off, a condition" }, { "kl=", "must be a number" },       { "kl=x", "must be a number" },
        { "kl=-1", "must be a number" },               { "kl=nan", "must be a number" },    { "top1=1.5", "from 0 to 1" },
        { "kl>0.1", "better when it is lower" },       { "top1<0.9", "better when it is higher" }, { "kld=1", "'kld' is not kl" },
        { "video.kl=1", "'video.kl' is not kl" },      { "kl.p98=1", "is not kl" },         { "=1", "is not a condition" },
        { "kl=1;top1=1", "must be a number" },         { "/nowhere/gate.txt", "/nowhere/gate.txt" },
        { "kl=1,kl 0.5=1", "is not a condition" },     { "answer.=1", "is not kl" },
    };
    nb_error err;
    nb_gate  g;
    for (size_t i = 0; i < NB_COUNT(cases); i++) FAILS(nb_gate_parse(&g, cases[i].text, &err), NB_ERR_ARGUMENT, cases[i].part, &err);
    FAILS(nb_gate_parse(&g, write_file("empty.txt", "# nothing\n"), &err), NB_ERR_INPUT, "holds no condition", &err);

    /* Nothing to measure is not met, and neither is a figure that is not a number. */
    nb_token_score      text_only = { .kl = 0.1f }, broken = { .kl = NAN };
    const nb_divergence one = { .tokens = &text_only, .count = 1, .samples = 1 }, bad = { .tokens = &broken, .count = 1, .samples = 1 }, none = { 0 };
    const nb_divergence *const sets[] = { &one, &bad, &none };
    static const char *const   rules[] = { "image.kl=1e9", "kl=1e9", "ppl=1e9" };
    for (size_t i = 0; i < 3; i++) {
        nb_buf why = { 0 };
        OK(nb_gate_parse(&g, rules[i], &err), &err);
        OK(nb_gate_check(&g, sets[i], &err), &err);
        assert_false(nb_gate_met(&g));
        nb_gate_failures(&g, &why);
        assert_non_null(strstr(why.data, "could not be measured"));
        nb_buf_free(&why);
        nb_gate_free(&g);
    }
}

/* ---- a position ------------------------------------------------------------------------------------------------------ */

enum { WORDS = 8 };

static void scores_by_hand(void **state)
{
    (void)state;
    nb_error       err;
    int32_t        ids[] = { 0, 1, 2, 7, 3, 4 };
    uint8_t        modality[] = { 0, 0, NB_TOKEN_IMAGE, NB_TOKEN_IMAGE, 0, 0 }, answer[] = { 0, 1, 0, 0, 0, 1 };
    nb_prompt      prompt = { .ids = ids, .modality = modality, .answer = answer, .count = 6 };
    const float    ref[WORDS] = { 0.5f, 2, -1, 0, 3, 1, 0.25f, -4 }, got[WORDS] = { 1, 2.5f, -2, 4, 1.5f, 3.5f, 2, 2.25f };
    nb_token_score t[6] = { 0 };
    nb_divergence  d = { 0 };
    double         p[WORDS], q[WORDS], a = 0, b = 0, kl = 0;
    for (int i = 0; i < WORDS; i++) a += exp((double)ref[i]), b += exp((double)got[i]);
    for (int i = 0; i < WORDS; i++) p[i] = exp((double)ref[i]) / a, q[i] = exp((double)got[i]) / b, kl += p[i] * log(p[i] / q[i]);
    size_t visual = nb_divergence_first_visual(&prompt);
    assert_int_equal(visual, 2);
    for (size_t row = 0; row < 6; row++) {
        nb_divergence_score(&t[row], ref, got, WORDS, &prompt, row, visual);
        OK(nb_divergence_take(&d, &t[row], true, &prompt, row, &err), &err);
        if (row == 5) break;
        NEAR(t[row].kl, kl, 1e-6);
        NEAR(t[row].nll, -log(q[ids[row + 1]]), 1e-6);
        NEAR(t[row].ref_nll, -log(p[ids[row + 1]]), 1e-6);
        assert_false(t[row].same_top);  /* 4 and 3 */
        assert_false(t[row].in_top5);   /* 4 has 1.5: five others are likelier */
        assert_int_equal(t[row].answer, answer[row + 1]);
        assert_int_equal(t[row].visual, row >= 2);
        assert_int_equal(t[row].pad, row == 1 || row == 2);
    }
    assert_int_equal(d.count, 5); /* the last position predicts nothing */
    nb_divergence_summary all, text, image;
    OK(nb_divergence_summarize(&all, &d, NB_SCOPE_ALL, NB_OVER_BOTH, &err), &err);
    OK(nb_divergence_summarize(&text, &d, NB_SCOPE_ALL, NB_OVER_TEXT, &err), &err);
    OK(nb_divergence_summarize(&image, &d, NB_SCOPE_ALL, NB_OVER_VISUAL, &err), &err);
    assert_int_equal(all.tokens, 5);
    assert_int_equal(text.tokens, 1);
    assert_int_equal(image.tokens, 2); /* row 3 predicts the first word behind the picture */
    nb_divergence_free(&d);

    /* The same distribution has a KL of 0, however the logits are shifted. */
    float shifted[WORDS];
    for (int i = 0; i < WORDS; i++) shifted[i] = ref[i] + 20;
    nb_divergence_score(&t[0], ref, shifted, WORDS, &prompt, 0, visual);
    NEAR(t[0].kl, 0, 1e-6);
    assert_true(t[0].same_top && t[0].in_top5);

    /* What is not finite is refused and says whose it is; a model that rules out a word that the original does not is infinitely far. */
    float        bad[WORDS];
    const double values[] = { NAN, INFINITY, -INFINITY };
    for (size_t i = 0; i < 3; i++) {
        memcpy(bad, got, sizeof bad);
        bad[5] = (float)values[i];
        nb_divergence_score(&t[0], ref, bad, WORDS, &prompt, 0, visual);
        FAILS(nb_divergence_take(&d, &t[0], true, &prompt, 0, &err), NB_ERR_INPUT, "the model's scores at token 0", &err);
        if (i == 2) continue; /* alone, a word that cannot come is no fault */
        nb_divergence_score(&t[0], NULL, bad, WORDS, &prompt, 0, visual);
        FAILS(nb_divergence_take(&d, &t[0], false, &prompt, 0, &err), NB_ERR_INPUT, "the model's scores at token 0", &err);
        nb_divergence_score(&t[0], bad, got, WORDS, &prompt, 0, visual);
        FAILS(nb_divergence_take(&d, &t[0], true, &prompt, 0, &err), NB_ERR_INPUT, "the reference's scores at token 0", &err);
    }
    assert_int_equal(d.count, 0);

    /* A word that the original rules out adds nothing. */
    float  without[WORDS];
    double rest = a - exp((double)ref[5]), left = 0;
    memcpy(without, ref, sizeof without);
    without[5] = -INFINITY;
    for (int i = 0; i < WORDS; i++)
        if (i != 5) left += exp((double)ref[i]) / rest * log(exp((double)ref[i]) / rest / q[i]);
    nb_divergence_score(&t[0], without, got, WORDS, &prompt, 0, visual);
    OK(nb_divergence_take(&d, &t[0], true, &prompt, 0, &err), &err);
    NEAR(d.tokens[0].kl, left, 1e-6);
    nb_divergence_free(&d);
}

/* ---- the source's card ----------------------------------------------------------------------------------------------- */

static void card_of_the_source(void **state)
{
    (void)state;
    nb_error       err;
    nb_source_card c;
    char           model[300], path[700], cached[600];
    snprintf(model, sizeof model, "%s.source", write_file("x", ""));
    mkdir(model, 0777);
    snprintf(path, sizeof path, "%s/README.md", model);
    static const struct {
        const char *text, *license, *name, *link;
    } cases[] = {
        { "---\nlicense: apache-2.0\n---\n# x\nlicense: mit\n", "apache-2.0", "", "" },
        { "---\r\nlicense: mit\n---\n", "", "", "" }, /* not the front matter's first line */
        { "---\nlanguage:\n- en\nlicense: other\nlicense_name: \"tongyi: qianwen\"\nlicense_link: 'https://example.org/L'\ntags:\n- a\n---\n", "other",
          "tongyi: qianwen", "https://example.org/L" },
        { "---\nlicense:\n- mit\nlicense_name: [a, b]\nlicense_link: &x y\n---\n", "", "", "" }, /* no plain words */
        { "license: mit\n", "", "", "" },
        { "---\nlicense: mit\n", "", "", "" }, /* never ends */
        { "", "", "", "" },
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        OK(nb_file_write_atomic(path, cases[i].text, strlen(cases[i].text), &err), &err);
        OK(nb_source_card_read(&c, model, NULL, &err), &err);
        assert_string_equal(c.license, cases[i].license);
        assert_string_equal(c.license_name, cases[i].name);
        assert_string_equal(c.license_link, cases[i].link);
        assert_string_equal(c.base_model, strrchr(model, '/') + 1);
    }
    char huge[2000] = "---\nlicense: ";
    memset(huge + strlen(huge), 'x', 1500);
    strcat(huge, "\n---\n");
    OK(nb_file_write_atomic(path, huge, strlen(huge), &err), &err);
    OK(nb_source_card_read(&c, model, "Org/Name", &err), &err);
    assert_string_equal(c.license, ""); /* too long to be one */
    assert_string_equal(c.base_model, "Org/Name");
    OK(nb_remove_folder(model, &err), &err);
    snprintf(cached, sizeof cached, "%s/models--Qwen--Qwen2-VL-2B-Instruct/snapshots/0123", model);
    OK(nb_source_card_read(&c, cached, NULL, &err), &err);
    assert_string_equal(c.base_model, "Qwen/Qwen2-VL-2B-Instruct");
}

/* ---- the command ----------------------------------------------------------------------------------------------------- */

static void load(nb_buf *out, const char *directory, const char *name)
{
    nb_error err;
    char     path[700];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    memset(out, 0, sizeof *out);
    OK(nb_file_read(out, path, 1 << 24, &err), &err);
}

static cJSON *load_json(const char *directory, const char *name)
{
    nb_error err;
    nb_buf   text;
    cJSON   *tree;
    load(&text, directory, name);
    OK(nb_json_parse(&tree, text.data, text.size, name, &err), &err);
    nb_buf_free(&text);
    return tree;
}

static const cJSON *at(const cJSON *tree, const char *a, const char *b)
{
    const cJSON *item = nb_json_find(tree, a);
    return b ? nb_json_find(item, b) : item;
}

/* Every number, name and order the same. */
static void same_tree(const cJSON *a, const cJSON *b)
{
    char *x = cJSON_PrintUnformatted(a), *y = cJSON_PrintUnformatted(b);
    assert_string_equal(x, y);
    free(x);
    free(y);
}

static const char *demo(const char *name)
{
    static char path[4][1100];
    static int  i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s", unit_path(name));
    return path[i];
}

static const char *place(const char *name)
{
    static char path[4][300];
    static int  i;
    i = (i + 1) % 4;
    if (!folder[0]) write_file("x", "");
    snprintf(path[i], sizeof path[i], "%s/%s", folder, name);
    return path[i];
}

static void drop(const char *directory)
{
    nb_error err;
    OK(nb_remove_folder(directory, &err), &err);
}

/* A gate that fails: exit code 3, the checkpoint stays and says so; its figures are eval's on the rows it names. */
static void failed_gate_leaves_a_marked_checkpoint(void **state)
{
    (void)state;
    const char *model = demo("tools/demo/model"), *chats = demo("tools/demo/calib/chat.jsonl"), *out = place("<img src=x onerror=alert(1)>");
    nb_error    err;
    cJSON      *report, *eval, *told;
    nb_buf      text;
    assert_int_equal(PROGRAM(NULL, "quantize", model, "--method", "rtn", "-g", "32", "--data", chats, "--holdout", "20", "--answers", "3", "--out", out,
                             "--gate", "kl=0.000001,top1=0.5,answer.ppl<1.5", "--json", "--base-model", "<b>\"Org\"/x", "-q"), 3);
    holds(printed[1], "the quality gate failed: kl is ");
    holds(printed[1], "the checkpoint stays");
    char *end = strstr(printed[0], "\n{\"error\"");
    assert_non_null(end);
    OK(nb_json_parse(&told, printed[0], (size_t)(end - printed[0]), "stdout", &err), &err);
    report = load_json(out, "report.json");
    assert_string_equal(at(report, "verdict", NULL)->valuestring, "failed");
    assert_string_equal(at(told, "verdict", NULL)->valuestring, "failed");
    same_tree(at(told, "judge", NULL), at(report, "judge", NULL));
    assert_true(cJSON_IsFalse(at(cJSON_GetArrayItem(at(report, "gate", NULL), 0), "met", NULL)));
    assert_true(cJSON_IsTrue(at(cJSON_GetArrayItem(at(report, "gate", NULL), 1), "met", NULL)));
    assert_true(at(at(report, "judge", "figures"), "answer", "tokens")->valueint > 100);
    assert_int_equal(cJSON_GetArraySize(at(report, "answers", NULL)), 3);
    assert_int_equal(cJSON_GetArraySize(at(report, "largest", "residual")), 6);
    assert_true(at(report, "largest", "all")->valuedouble > 1 && cJSON_IsFalse(at(report, "largest", "float16_overflows")));
    NEAR(at(cJSON_GetArrayItem(at(report, "sizes", NULL), NB_PART_MATRICES), "bits_out", NULL)->valuedouble, 4 + 20.0 / 32, 0.2);
    NEAR(at(cJSON_GetArrayItem(at(report, "sizes", NULL), NB_PART_VISION), "bits_out", NULL)->valuedouble, 16, 0);
    double bytes = 0;
    for (int i = 0; i < NB_SIZE_PARTS; i++) bytes += at(cJSON_GetArrayItem(at(report, "sizes", NULL), i), "bytes_out", NULL)->valuedouble;
    NEAR(bytes, at(report, "bytes_out", NULL)->valuedouble, 0);
    assert_null(at(report, "seconds", NULL));

    assert_int_equal(PROGRAM(NULL, "eval", out, "--ref", model, "--data", chats, "--skip", "236", "--limit", "20", "--json", "-q"), 0);
    OK(nb_json_parse(&eval, printed[0], strlen(printed[0]), "eval", &err), &err);
    same_tree(at(cJSON_GetArrayItem(at(eval, "models", NULL), 0), "chats", NULL), at(report, "judge", "figures"));
    holds(at(report, "judge", "again")->valuestring, "<img src=x onerror=alert(1)>' --ref /");
    holds(at(report, "judge", "again")->valuestring, "--skip 236 --limit 20 --seq-len 4096 --max-pixels 1003520");
    assert_int_equal(PROGRAM(NULL, "inspect", out), 0);
    cJSON_Delete(eval);
    cJSON_Delete(told);
    cJSON_Delete(report);

    load(&text, out, "report.html");
    assert_null(strstr(text.data, "<img src=x"));
    assert_null(strstr(text.data, "<b>\"Org"));
    holds(text.data, "gate failed");
    holds(text.data, "src=\"data:image/jpeg;base64,");
    holds(text.data, "&lt;img src=x onerror=alert(1)&gt;");
    nb_buf_free(&text);
    load(&text, out, "README.md");
    holds(text.data, "base_model: \"<b>\\\"Org\\\"/x\"\nbase_model_relation: quantized\n");
    holds(text.data, "failed its quality gate**: kl is ");
    holds(text.data, "# &lt;img src=x");
    assert_null(strstr(text.data, "\n# <img"));
    nb_buf_free(&text);
    drop(out);
}

/* A model beside itself: with int8 keys and values it differs, because the reference keeps its own; with bf16 it does not. */
static void eval_shows_the_cost_of_int8_kv(void **state)
{
    (void)state;
    const char *model = demo("tools/demo/model"), *chats = demo("tools/demo/eval/chat_holdout.jsonl");
    for (int int8 = 0; int8 < 2; int8++) {
        nb_error err;
        cJSON   *eval;
        assert_int_equal(PROGRAM(NULL, "eval", model, "--ref", model, "--data", chats, "--limit", "2", "--kv-cache-dtype",
                                 int8 ? "int8" : "bf16", "--json", "-q"), 0);
        OK(nb_json_parse(&eval, printed[0], strlen(printed[0]), "eval", &err), &err);
        const cJSON *chat = cJSON_GetObjectItem(cJSON_GetArrayItem(at(eval, "models", NULL), 0), "chats");
        double       kl = at(at(chat, "all", NULL), "kl_mean", NULL)->valuedouble;
        if (int8)
            assert_true(kl > 1e-7 && kl < 1e-3);
        else
            NEAR(kl, 0, 0);
        cJSON_Delete(eval);
    }
}

/* Rows that cannot be read are left out of the judging, not of the work; when none is left the gate is not met. */
static void bad_rows_do_not_cost_the_work(void **state)
{
    (void)state;
    const char *model = demo("tools/demo/model"), *out = place("rows");
    char        mixed[300], bad[300];
    snprintf(mixed, sizeof mixed, "%s", write_file("mixed.jsonl",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"What is 1 plus 2?\"}, {\"role\": \"assistant\", \"content\": \"3\"}]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"image\": \"gone.png\"}]}, {\"role\": \"assistant\", \"content\": \"x\"}]}\n"
        "{\"messages\": 7}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"What is 4 plus 2?\"}, {\"role\": \"assistant\", \"content\": \"<b>6</b>\"}]}\n"));
    snprintf(bad, sizeof bad, "%s", write_file("bad.jsonl",
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"image\": \"gone.png\"}]}, {\"role\": \"assistant\", \"content\": \"x\"}]}\n"));
    assert_int_equal(PROGRAM(NULL, "quantize", model, "--method", "rtn", "--holdout-data", mixed, "--out", out, "-q"), 0);
    cJSON *report = load_json(out, "report.json");
    assert_int_equal(at(at(report, "judge", "figures"), "samples", NULL)->valueint, 2);
    assert_int_equal(at(report, "judge", "unreadable")->valueint, 2);
    holds(at(report, "judge", "first_unreadable")->valuestring, "gone.png");
    assert_string_equal(at(report, "verdict", NULL)->valuestring, "passed");
    assert_int_equal(cJSON_GetArraySize(at(report, "answers", NULL)), 2);
    cJSON_Delete(report);
    nb_buf text;
    load(&text, out, "report.html");
    holds(text.data, "&lt;b&gt;6&lt;/b&gt;");
    nb_buf_free(&text);
    drop(out);

    assert_int_equal(PROGRAM(NULL, "quantize", model, "--method", "rtn", "--holdout-data", bad, "--out", out, "-q"), 3);
    holds(printed[1], "it could not be judged: ");
    report = load_json(out, "report.json");
    assert_string_equal(at(report, "verdict", NULL)->valuestring, "failed");
    assert_true(cJSON_IsNull(at(report, "judge", NULL)) || !at(report, "judge", NULL));
    cJSON_Delete(report);
    drop(out);
    assert_int_equal(PROGRAM(NULL, "quantize", model, "--method", "rtn", "--holdout-data", bad, "--out", out, "-q", "--gate", "off"), 0);
    drop(out);
    assert_int_equal(PROGRAM(NULL, "quantize", model, "--method", "rtn", "--out", out), 0);
    holds(printed[1], "will not be judged: there is no data to judge on");
    holds(printed[0], "judged  no");
    load(&text, out, "README.md");
    holds(text.data, "was not compared with the original");
    nb_buf_free(&text);
    drop(out);
}

static void flags_are_checked_before_anything_runs(void **state)
{
    (void)state;
    const char *model = demo("tools/demo/model"), *chats = demo("tools/demo/calib/chat.jsonl"), *out = place("never");
#define QUANTIZE(...) PROGRAM(NULL, "quantize", model, "--method", "rtn", "--out", out, __VA_ARGS__)
    assert_int_equal(QUANTIZE("--data", chats, "--holdout", "256"), 2);
    holds(printed[1], "none would be left to calibrate on");
    assert_int_equal(QUANTIZE("--data", chats, "--holdout", "some"), 2);
    assert_int_equal(QUANTIZE("--data", chats, "--holdout", "100%"), 2);
    assert_int_equal(QUANTIZE("--data", chats, "--holdout", "-1"), 2);
    assert_int_equal(QUANTIZE("--holdout-data", chats, "--holdout", "5%"), 2);
    assert_int_equal(QUANTIZE("--holdout-data", "/nowhere/x.jsonl"), 5);
    assert_int_equal(QUANTIZE("--data", chats, "--gate", "kl>1"), 2);
    assert_int_equal(QUANTIZE("--gate", "kl=1"), 2);
    holds(printed[1], "nothing can be measured");
    assert_int_equal(QUANTIZE("--data", chats, "--no-judge", "--gate", "kl=1"), 2);
    assert_int_equal(QUANTIZE("--data", chats, "--holdout", "0", "--gate", "kl=1"), 2);
    assert_int_equal(QUANTIZE("--data", chats, "--answers", "65"), 2);
    assert_false(nb_is_directory(out));
#undef QUANTIZE
}

/* A file with fewer conversations than are wanted gives an eighth of them, and says so. */
static void short_data_is_shared(void **state)
{
    (void)state;
    const char *model = demo("tools/demo/model"), *out = place("short");
    char        rows[8192] = "";
    for (int i = 0; i < 24; i++)
        snprintf(rows + strlen(rows), sizeof rows - strlen(rows), "{\"messages\": [{\"role\": \"user\", \"content\": \"What is %d plus 2?\"}, "
                 "{\"role\": \"assistant\", \"content\": \"%d\"}]}\n", i, i + 2);
    char data[300];
    snprintf(data, sizeof data, "%s", write_file("short.jsonl", rows));
    assert_int_equal(PROGRAM(NULL, "quantize", model, "--method", "awq", "--grid", "1", "--no-clip", "--data", data, "--out", out, "--answers", "0"), 0);
    holds(printed[1], "3 of 24 conversations are held out to judge the result, so calibration has 21");
    holds(printed[0], "data    21 conversations");
    holds(printed[0], "judged  on 3 held-out conversations");
    cJSON *report = load_json(out, "report.json");
    assert_int_equal(cJSON_GetArraySize(at(report, "largest", "down")), 6);

    /* The recipe does all of it again: the same rows held out, the same weights, the same figures. */
    char  recipe[400];
    nb_buf weights, others;
    snprintf(recipe, sizeof recipe, "%s/recipe.json", out);
    const char *again = place("again");
    assert_int_equal(PROGRAM(NULL, "quantize", "--config", recipe, "--out", again, "-q"), 0);
    cJSON *repeated = load_json(again, "report.json");
    same_tree(at(report, "judge", "figures"), at(repeated, "judge", "figures"));
    same_tree(at(report, "largest", NULL), at(repeated, "largest", NULL));
    same_tree(at(report, "matrices", NULL), at(repeated, "matrices", NULL));
    load(&weights, out, "model.safetensors");
    load(&others, again, "model.safetensors");
    assert_int_equal(weights.size, others.size);
    assert_memory_equal(weights.data, others.data, weights.size);
    nb_buf_free(&weights);
    nb_buf_free(&others);
    cJSON_Delete(repeated);
    cJSON_Delete(report);
    drop(again);
    drop(out);
}

/* Codes in the tower, the head and the embedding, alone and together: what the judge says of them before the checkpoint stands is what
 * eval reads out of it afterwards, to the last digit; the verifier passes it, and it answers about a picture. */
static void codes_around_the_layers_are_judged(void **state)
{
    (void)state;
    static const struct {
        const char *words[6];
        bool        vocabulary, embedding; /* what verify warns of: old vLLMs read neither, transformers 5 no embedding with codes */
    } cases[] = {
        {{"--vision", "int8"}, false, false},
        {{"--vision", "int4"}, false, false},
        {{"--lm-head", "int8"}, true, false},
        {{"--embeddings", "int8"}, true, true},
        {{"--vision", "int8", "--lm-head", "int8", "--embeddings", "int8"}, true, true},
        {{"--vision", "int4", "--lm-head", "int8", "--embeddings", "int8"}, true, true},
    };
    const char *model = demo("tools/demo/model"), *chats = demo("tools/demo/calib/chat.jsonl"), *held = demo("tools/demo/eval/chat_holdout.jsonl");
    const char *picture = demo("tools/demo/calib/images/chat-0000-0.png"), *out = place("around");
    nb_error    err;
    double      kl[NB_COUNT(cases)];
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        const char *words[28] = {"quantize", model, "--method", "gptq", "--effort", "0", "--samples", "8", "--data", chats, "--holdout-data", held,
                                 "--holdout", "6", "--answers", "0", "--out", out, "-q"};
        int         n = 19;
        for (int j = 0; j < 6 && cases[i].words[j]; j++) words[n++] = cases[i].words[j];
        if (run_program(NULL, n, words) != 0) fail_msg("case %zu: %s", i, printed[1]);
        cJSON *report = load_json(out, "report.json"), *eval;
        assert_string_equal(at(report, "verdict", NULL)->valuestring, "passed");
        ENDS(0, "eval", out, "--ref", model, "--data", held, "--limit", "6", "--json", "-q");
        OK(nb_json_parse(&eval, printed[0], strlen(printed[0]), "eval", &err), &err);
        same_tree(at(cJSON_GetArrayItem(at(eval, "models", NULL), 0), "chats", NULL), at(report, "judge", "figures"));
        kl[i] = at(at(report, "judge", "figures"), "all", "kl_mean")->valuedouble;
        assert_int_equal(at(at(report, "judge", "figures"), "samples", NULL)->valueint, 6);
        for (size_t j = 0; j < i; j++) assert_true(kl[j] != kl[i]); /* each part's codes count */
        ENDS(0, "verify", out, "--target", "vllm,transformers,nibble", "--deep");
        (cases[i].vocabulary ? holds : lacks)(printed[0], "vocabulary-quantized");
        (cases[i].embedding ? holds : lacks)(printed[0], "transformers 5 cannot make such an embedding");
        ENDS(0, "run", out, "--image", picture, "-p", "Read the receipt.", "--temp", "0", "-n", "6", "-q");
        assert_true(strlen(printed[0]) > 4);
        cJSON_Delete(report);
        cJSON_Delete(eval);
        drop(out);
    }
}

/* Of two files each gives its share of the held-out ones, and only --data with weights in it is told as no single command. */
static void two_files_are_held_out_of(void **state)
{
    (void)state;
    const char *model = demo("tools/demo/model"), *out = place("two");
    char        words[2][1300];
    snprintf(words[0], sizeof words[0], "%s:3", demo("tools/demo/calib/chat.jsonl"));
    snprintf(words[1], sizeof words[1], "%s", demo("tools/demo/eval/chat_holdout.jsonl"));
    assert_int_equal(PROGRAM(NULL, "quantize", model, "--method", "rtn", "--data", words[0], "--data", words[1], "--holdout", "12", "--answers", "0",
                             "--out", out, "-q"), 0);
    cJSON *report = load_json(out, "report.json");
    assert_int_equal(at(at(report, "judge", "figures"), "samples", NULL)->valueint, 12);
    assert_string_equal(at(report, "judge", "data")->valuestring, "chat.jsonl and other files");
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(at(report, "judge", NULL), "again")));
    cJSON_Delete(report);
    drop(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gate_reads_what_people_write), cmocka_unit_test(gate_refuses), cmocka_unit_test(scores_by_hand),
        cmocka_unit_test(card_of_the_source), cmocka_unit_test(failed_gate_leaves_a_marked_checkpoint),
        cmocka_unit_test(eval_shows_the_cost_of_int8_kv), cmocka_unit_test(bad_rows_do_not_cost_the_work),
        cmocka_unit_test(flags_are_checked_before_anything_runs),
        cmocka_unit_test(short_data_is_shared), cmocka_unit_test(codes_around_the_layers_are_judged),
        cmocka_unit_test(two_files_are_held_out_of),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
