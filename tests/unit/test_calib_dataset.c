/* Rows of chat data in every spelling, good and bad: what a row means is written out by hand beside it. */
#include "unit.h"

#include <sys/stat.h>

#include "calib/dataset.h"
#include "runtime/io/file.h"

static char folder[512];

static int make_folder(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/nb-dataset-XXXXXX", base ? base : P_tmpdir);
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    return nb_remove_folder(folder, NULL) == NB_OK ? 0 : -1;
}

static const char *in_folder(const char *name)
{
    static char path[4][1024];
    static int  i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", folder, name);
    return path[i];
}

static void put(const char *name, const char *text)
{
    FILE *f = fopen(in_folder(name), "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* A chat as one line: user[image a.png|text Who?] assistant[text He.] {tools} */
static void describe(const nb_chat *c, nb_buf *out)
{
    nb_buf_clear(out);
    nb_buf_str(out, "");
    for (int i = 0; i < c->count; i++) {
        nb_buf_printf(out, "%s%s[", i ? " " : "", c->messages[i].role);
        for (int j = 0; j < c->messages[i].count; j++) {
            const nb_part *p = &c->messages[i].parts[j];
            nb_buf_str(out, j ? "|" : "");
            if (p->kind == NB_PART_TEXT) nb_buf_printf(out, "text %s", p->text);
            if (p->kind == NB_PART_IMAGE) nb_buf_printf(out, "image %s", p->text);
            if (p->kind == NB_PART_VIDEO) nb_buf_str(out, p->is_file ? "video" : "frames");
            for (int f = 0; p->kind == NB_PART_VIDEO && f < p->frame_count; f++) nb_buf_printf(out, " %s", p->frames[f]);
        }
        nb_buf_char(out, ']');
    }
    if (c->tools) nb_buf_printf(out, " {%s}", c->tools);
}

static const char DEFAULT_TAGS[] = "{\"d\": {\"file_name\": \"data\", \"formatting\": \"sharegpt\"}}";
static const char MAPPED[] =
    "{\"other\": {\"file_name\": \"elsewhere.json\"},"
    " \"d\": {\"file_name\": \"./data\", \"formatting\": \"sharegpt\","
    "  \"columns\": {\"messages\": \"talk\", \"system\": \"sys\", \"tools\": \"fns\", \"images\": \"pics\", \"videos\": \"clips\","
    "   \"audios\": \"sounds\"},"
    "  \"tags\": {\"role_tag\": \"who\", \"content_tag\": \"says\", \"user_tag\": \"U\", \"assistant_tag\": \"A\","
    "   \"observation_tag\": \"O\", \"function_tag\": \"F\", \"system_tag\": \"S\"}}}";

typedef struct {
    const char  *name;
    const char  *text; /* of the data file */
    const char  *info; /* of dataset_info.json beside it, or NULL */
    nb_data_form form;
    nb_status    status;
    const char  *want; /* NB_OK: the first chat; otherwise a part of the error */
} row_case;

static const row_case cases[] = {
    /* ---- OpenAI-style, good ---- */
    {"plain", "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Yes\"}]}\n", NULL,
     NB_DATA_AUTO, NB_OK, "user[text Hi] assistant[text Yes]"},
    {"parts", "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"image\":\"a.png\"},{\"type\":\"text\","
     "\"text\":\"Hi\"}]},{\"role\":\"assistant\",\"content\":\"Yes\"}]}", NULL, NB_DATA_AUTO, NB_OK,
     "user[image a.png|text Hi] assistant[text Yes]"},
    {"array of rows", "\n [{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Yes\"}]}]",
     NULL, NB_DATA_AUTO, NB_OK, "user[text Hi] assistant[text Yes]"},
    {"swift list", "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>A<image>\"},{\"role\":\"assistant\",\"content\":\"B\"}],"
     "\"images\":[\"x.png\",{\"path\":\"y.png\",\"bytes\":null}]}", NULL, NB_DATA_AUTO, NB_OK,
     "user[image x.png|text A|image y.png] assistant[text B]"},
    {"a mark without lists is text", "{\"messages\":[{\"role\":\"user\",\"content\":\"What does <image> mean in HTML?\"},"
     "{\"role\":\"assistant\",\"content\":\"Nothing\"}]}", NULL, NB_DATA_AUTO, NB_OK,
     "user[text What does <image> mean in HTML?] assistant[text Nothing]"},
    {"a numbered mark is text", "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>See <image 1>\"},{\"role\":\"assistant\","
     "\"content\":\"B\"}],\"images\":[\"x.png\"]}", NULL, NB_DATA_AUTO, NB_OK, "user[image x.png|text See <image 1>] assistant[text B]"},
    {"system and unused lists", "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"Hi\"},"
     "{\"role\":\"assistant\",\"content\":\"Yes\"}],\"images\":[],\"videos\":null}", NULL, NB_DATA_AUTO, NB_OK,
     "system[text S] user[text Hi] assistant[text Yes]"},
    {"video file and frames", "{\"messages\":[{\"role\":\"user\",\"content\":\"<video>1<video>2<image>\"},{\"role\":\"assistant\","
     "\"content\":\"B\"}],\"videos\":[\"v.mp4\",[\"f0.png\",\"f1.png\"]],\"images\":[\"x.png\"]}", NULL, NB_DATA_AUTO, NB_OK,
     "user[video v.mp4|text 1|frames f0.png f1.png|text 2|image x.png] assistant[text B]"},
    {"lists beside parts", "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"image\":\"in.png\"}]},"
     "{\"role\":\"user\",\"content\":\"<image>\"},{\"role\":\"assistant\",\"content\":\"B\"}],\"images\":[\"x.png\"]}", NULL,
     NB_DATA_AUTO, NB_OK, "user[image in.png] user[image x.png] assistant[text B]"},
    {"tools as a list", "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Yes\"}],"
     "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}", NULL, NB_DATA_AUTO, NB_OK,
     "user[text Hi] assistant[text Yes] {[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]}"},
    {"tools as text", "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Yes\"}],"
     "\"tools\":\"[{\\\"type\\\":\\\"function\\\",\\\"function\\\":{\\\"name\\\":\\\"f\\\"}}]\"}", NULL, NB_DATA_AUTO, NB_OK,
     "user[text Hi] assistant[text Yes] {[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]}"},
    {"no tools in three ways", "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Yes\"}],"
     "\"tools\":\"[]\"}", NULL, NB_DATA_AUTO, NB_OK, "user[text Hi] assistant[text Yes]"},
    /* ---- sharegpt, good ---- */
    {"sharegpt", "[{\"conversations\":[{\"from\":\"human\",\"value\":\"Hi\"},{\"from\":\"gpt\",\"value\":\"Yes\"}]}]", NULL,
     NB_DATA_AUTO, NB_OK, "user[text Hi] assistant[text Yes]"},
    {"sharegpt by dataset_info", "[{\"conversations\":[{\"from\":\"human\",\"value\":\"Hi\"},{\"from\":\"gpt\",\"value\":\"Yes\"}]}]",
     DEFAULT_TAGS, NB_DATA_AUTO, NB_OK, "user[text Hi] assistant[text Yes]"},
    {"from and value under messages", "{\"messages\":[{\"from\":\"user\",\"value\":\"Hi\"},{\"from\":\"assistant\",\"value\":\"Yes\"}]}",
     NULL, NB_DATA_AUTO, NB_OK, "user[text Hi] assistant[text Yes]"},
    {"system column", "{\"system\":\"S\",\"conversations\":[{\"from\":\"human\",\"value\":\"Hi\"},{\"from\":\"gpt\",\"value\":\"Y\"}]}",
     NULL, NB_DATA_AUTO, NB_OK, "system[text S] user[text Hi] assistant[text Y]"},
    {"a system message beats the column", "{\"system\":\"S\",\"conversations\":[{\"from\":\"system\",\"value\":\"T\"},{\"from\":\"human\","
     "\"value\":\"Hi\"},{\"from\":\"gpt\",\"value\":\"Y\"}]}", NULL, NB_DATA_AUTO, NB_OK,
     "system[text T] user[text Hi] assistant[text Y]"},
    {"LLaVA", "[{\"id\":\"1\",\"image\":\"a.jpg\",\"conversations\":[{\"from\":\"human\",\"value\":\"<image>\\nWho?\"},{\"from\":\"gpt\","
     "\"value\":\"He\"}]}]", NULL, NB_DATA_AUTO, NB_OK, "user[image a.jpg|text \nWho?] assistant[text He]"},
    {"bare functions get their cover", "{\"tools\":\"[{\\\"name\\\":\\\"f\\\",\\\"parameters\\\":{}}]\",\"conversations\":[{\"from\":"
     "\"human\",\"value\":\"Hi\"},{\"from\":\"gpt\",\"value\":\"Y\"}]}", NULL, NB_DATA_AUTO, NB_OK,
     "user[text Hi] assistant[text Y] {[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {}}}]}"},
    {"every column and tag renamed", "{\"talk\":[{\"who\":\"S\",\"says\":\"sys\"},{\"who\":\"U\",\"says\":\"<image>Hi<video>\"},"
     "{\"who\":\"A\",\"says\":\"Yes\"}],\"pics\":[\"p.png\"],\"clips\":[\"v.mp4\"],\"fns\":\"\",\"images\":[\"not.png\"],\"sounds\":[]}",
     MAPPED, NB_DATA_AUTO, NB_OK, "system[text sys] user[image p.png|text Hi|video v.mp4] assistant[text Yes]"},
    {"renamed system column", "{\"sys\":\"S\",\"talk\":[{\"who\":\"U\",\"says\":\"Hi\"},{\"who\":\"A\",\"says\":\"Yes\"}]}", MAPPED,
     NB_DATA_SHAREGPT, NB_OK, "system[text S] user[text Hi] assistant[text Yes]"},
    {"role and content as sharegpt", "{\"messages\":[{\"role\":\"human\",\"content\":\"Hi<image>\"},{\"role\":\"gpt\",\"content\":\"Y\"}],"
     "\"images\":[\"a.png\"]}", NULL, NB_DATA_AUTO, NB_OK, "user[text Hi|image a.png] assistant[text Y]"},
    {"openai formatting", "{\"talk\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Yes\"}]}",
     "{\"d\":{\"file_name\":\"data\",\"formatting\":\"openai\",\"columns\":{\"messages\":\"talk\"}}}", NB_DATA_AUTO, NB_OK,
     "user[text Hi] assistant[text Yes]"},
    {"unlisted: dataset_info is not asked", "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":"
     "\"Yes\"}]}", "{\"x\":{\"file_name\":\"other.json\"}}", NB_DATA_AUTO, NB_OK, "user[text Hi] assistant[text Yes]"},
    {"asked as openai: dataset_info is not asked", "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\","
     "\"content\":\"Yes\"}]}", "{\"d\":{\"file_name\":\"data\"}}", NB_DATA_OPENAI, NB_OK, "user[text Hi] assistant[text Yes]"},
    /* ---- bad ---- */
    {"empty file", "", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "holds no rows"},
    {"empty array", "[]", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "holds no rows"},
    {"not an object", "[1]", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "row 1 (line 1): expected an object"},
    {"no messages", "{\"id\":\"x\"}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "line 1: has no 'messages'"},
    {"null messages", "{\"messages\":null}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "has no 'messages'"},
    {"messages of text", "{\"messages\":\"Hi\"}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "messages: expected a list"},
    {"no message", "{\"messages\":[]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "messages: is empty"},
    {"both lists", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"conversations\":[]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT,
     "both 'messages' and 'conversations'"},
    {"unknown formatting", "{}", "{\"d\":{\"file_name\":\"data\",\"formatting\":\"csv\"}}", NB_DATA_AUTO, NB_ERR_INPUT,
     "d.formatting: 'csv'"},
    {"ranking", "{}", "{\"d\":{\"file_name\":\"data\",\"formatting\":\"sharegpt\",\"ranking\":true}}", NB_DATA_AUTO, NB_ERR_UNSUPPORTED,
     "preference data"},
    {"kto", "{}", "{\"d\":{\"file_name\":\"data\",\"formatting\":\"sharegpt\",\"columns\":{\"kto_tag\":\"k\"}}}", NB_DATA_AUTO,
     NB_ERR_UNSUPPORTED, "preference data"},
    {"listed twice", "{}", "{\"a\":{\"file_name\":\"data\"},\"b\":{\"file_name\":\"./data\"}}", NB_DATA_AUTO, NB_ERR_INPUT,
     "both 'a' and 'b'"},
    {"columns of text", "{}", "{\"d\":{\"file_name\":\"data\",\"columns\":\"x\"}}", NB_DATA_AUTO, NB_ERR_INPUT, "d.columns"},
    {"a column that is a number", "{}", "{\"d\":{\"file_name\":\"data\",\"formatting\":\"sharegpt\",\"columns\":{\"images\":3}}}",
     NB_DATA_AUTO, NB_ERR_INPUT, "images"},
    {"dataset_info is a list", "{}", "[]", NB_DATA_AUTO, NB_ERR_INPUT, "expected an object of data set descriptions"},
    {"dataset_info is broken", "{}", "{\"d\":", NB_DATA_AUTO, NB_ERR_INPUT, "dataset_info.json"},
    {"message of text", "{\"messages\":[\"Hi\"]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "messages[0]: expected an object"},
    {"no role", "{\"messages\":[{\"content\":\"Hi\"}]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "messages[0].role"},
    {"role of number", "{\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":1,\"value\":\"b\"}]}", NULL, NB_DATA_AUTO,
     NB_ERR_INPUT, "conversations[1].from"},
    {"unknown role", "{\"conversations\":[{\"from\":\"alice\",\"value\":\"a\"}]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT,
     "conversations[0].from: 'alice'"},
    {"unknown role in openai", "{\"messages\":[{\"role\":\"alice\",\"content\":\"a\"}]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "messages[0]"},
    {"a role that the tags do not name", "{\"talk\":[{\"who\":\"human\",\"says\":\"a\"}]}", MAPPED, NB_DATA_AUTO, NB_ERR_INPUT,
     "talk[0].who: 'human' is not one of U, A, O, F, S"},
    {"the mapped column is missing", "{\"messages\":[{\"who\":\"U\",\"says\":\"a\"}]}", MAPPED, NB_DATA_AUTO, NB_ERR_INPUT, "has no 'talk'"},
    {"value of number", "{\"conversations\":[{\"from\":\"human\",\"value\":3}]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT,
     "conversations[0].value: expected text"},
    {"value missing", "{\"conversations\":[{\"from\":\"human\"}]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "conversations[0]"},
    {"fewer marks than images", "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>\"},{\"role\":\"assistant\",\"content\":\"B\"}],"
     "\"images\":[\"x.png\",\"y.png\"]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "messages holds 1 <image> marks, but images holds 2 entries"},
    {"more marks than images", "{\"conversations\":[{\"from\":\"human\",\"value\":\"<image><image>\"},{\"from\":\"gpt\",\"value\":\"B\"}],"
     "\"images\":[\"x.png\"]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "holds 2 <image> marks, but images holds 1"},
    {"a mark without a list in sharegpt", "{\"conversations\":[{\"from\":\"human\",\"value\":\"<image>\"},{\"from\":\"gpt\",\"value\":"
     "\"B\"}]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "holds 1 <image> marks, but images holds 0"},
    {"a mark for an image column that the entry lacks", "{\"conversations\":[{\"from\":\"human\",\"value\":\"<image>\"},{\"from\":\"gpt\","
     "\"value\":\"B\"}],\"images\":[\"a.png\"]}", DEFAULT_TAGS, NB_DATA_AUTO, NB_ERR_INPUT, "holds 1 <image> marks"},
    {"videos do not count as images", "{\"conversations\":[{\"from\":\"human\",\"value\":\"<video>\"},{\"from\":\"gpt\",\"value\":\"B\"}],"
     "\"images\":[\"x.png\"]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "holds 0 <image> marks"},
    {"mixed keys cannot hide a mark", "{\"messages\":[{\"from\":\"human\",\"value\":\"a\"},{\"role\":\"gpt\",\"content\":\"<image>\"}]}", NULL,
     NB_DATA_AUTO, NB_ERR_INPUT, "holds 1 <image> marks"},
    {"image of number", "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>\"},{\"role\":\"assistant\",\"content\":\"B\"}],"
     "\"images\":[7]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "images[0]: expected the path"},
    {"image of frames", "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>\"},{\"role\":\"assistant\",\"content\":\"B\"}],"
     "\"images\":[[\"a.png\"]]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "images[0]: expected the path"},
    {"empty path", "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>\"},{\"role\":\"assistant\",\"content\":\"B\"}],"
     "\"images\":[\"\"]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "images[0]"},
    {"video without frames", "{\"messages\":[{\"role\":\"user\",\"content\":\"<video>\"},{\"role\":\"assistant\",\"content\":\"B\"}],"
     "\"videos\":[[]]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "videos[0]: expected the path of a file or a list of frames"},
    {"images of object", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"images\":{}}", NULL, NB_DATA_AUTO, NB_ERR_INPUT,
     "images: expected a list"},
    {"sound", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"B\"}],\"audios\":[\"a.wav\"]}", NULL,
     NB_DATA_AUTO, NB_ERR_UNSUPPORTED, "audios: Qwen2-VL does not hear"},
    {"function_call of prose", "{\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"function_call\",\"value\":\"call me\"}]}",
     NULL, NB_DATA_AUTO, NB_ERR_INPUT, "conversations[1]"},
    {"function_call without arguments", "{\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"function_call\",\"value\":"
     "\"{\\\"name\\\":\\\"f\\\"}\"}]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "conversations[1]: expected {\"name\""},
    {"function_call of nothing", "{\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"function_call\",\"value\":\"[]\"}]}",
     NULL, NB_DATA_AUTO, NB_ERR_INPUT, "conversations[1]: expected {\"name\""},
    {"tools of prose", "{\"tools\":\"none\",\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"gpt\",\"value\":\"b\"}]}", NULL,
     NB_DATA_AUTO, NB_ERR_INPUT, "tools"},
    {"tools of object", "{\"tools\":{},\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"gpt\",\"value\":\"b\"}]}", NULL,
     NB_DATA_AUTO, NB_ERR_INPUT, "tools: expected a list"},
    {"system of number", "{\"system\":3,\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"gpt\",\"value\":\"b\"}]}", NULL,
     NB_DATA_AUTO, NB_ERR_INPUT, "system: expected text"},
    {"no answer", "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT,
     "messages[0]: the last message is by 'user'"},
    {"no last answer", "{\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"gpt\",\"value\":\"b\"},{\"from\":\"human\","
     "\"value\":\"c\"}]}", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "messages[2]: the last message is by 'user'"},
    {"forms disagree", "{}", DEFAULT_TAGS, NB_DATA_AUTO + 1, NB_ERR_INPUT, "has no 'messages'"},
    {"broken JSON", "{\"messages\":", NULL, NB_DATA_AUTO, NB_ERR_INPUT, "data"},
};

static nb_status read_first(const row_case *c, nb_buf *text, nb_error *err)
{
    nb_dataset_options options = {.form = c->form, .need_answer = true};
    nb_dataset        *d;
    nb_chat            chat;
    char               where[256];
    bool               end;
    NB_TRY(nb_dataset_open(&d, in_folder("data"), &options, err));
    nb_status status = nb_dataset_next(d, &chat, where, &end, err);
    if (!status) describe(&chat, text);
    nb_chat_free(&chat);
    nb_dataset_close(d);
    return status;
}

static void rows_mean_what_they_say(void **state)
{
    (void)state;
    nb_buf text = {0};
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        const row_case *c = &cases[i];
        nb_error        err = {0};
        put("data", c->text);
        unlink(in_folder("dataset_info.json"));
        if (c->info) put("dataset_info.json", c->info);
        nb_status status = read_first(c, &text, &err);
        if (status != c->status) fail_msg("%s: status %d (%s), expected %d", c->name, status, err.text, c->status);
        if (status ? !strstr(err.text, c->want) : strcmp(text.data, c->want) != 0)
            fail_msg("%s: '%s', expected '%s'", c->name, status ? err.text : text.data, c->want);
    }
    unlink(in_folder("dataset_info.json"));
    nb_buf_free(&text);
}

/* The rows that the demo holds in both forms are the same conversations (the sharegpt file lacks those with video). */
static void demo_is_the_same_in_both_forms(void **state)
{
    (void)state;
    nb_error           err;
    nb_dataset        *a, *b;
    nb_dataset_options options = {.need_answer = true};
    nb_buf             x = {0}, y = {0};
    OK(nb_dataset_open(&a, unit_path("tools/demo/calib/chat.jsonl"), &options, &err), &err);
    OK(nb_dataset_open(&b, unit_path("tools/demo/calib/sharegpt.json"), &options, &err), &err);
    assert_int_equal(nb_dataset_form(a), NB_DATA_OPENAI);
    assert_int_equal(nb_dataset_form(b), NB_DATA_SHAREGPT); /* told by dataset_info.json */
    assert_string_equal(nb_dataset_root(a), nb_dataset_root(b));
    int  rows = 0, same = 0;
    bool end_a, end_b;
    for (;; rows++) {
        nb_chat p, q;
        char    where[256];
        OK(nb_dataset_next(a, &p, where, &end_a, &err), &err);
        if (end_a) break;
        describe(&p, &x);
        nb_chat_free(&p);
        if (strstr(x.data, "[frames ")) continue;
        OK(nb_dataset_next(b, &q, where, &end_b, &err), &err);
        assert_false(end_b);
        describe(&q, &y);
        nb_chat_free(&q);
        assert_string_equal(x.data, y.data);
        same++;
    }
    nb_chat q;
    char    where[256];
    OK(nb_dataset_next(b, &q, where, &end_b, &err), &err);
    assert_true(end_b);
    assert_int_equal(rows, 256);
    assert_int_equal(same, 241);
    nb_buf_free(&x);
    nb_buf_free(&y);
    nb_dataset_close(a);
    nb_dataset_close(b);
}

/* Tool calls and their results are rendered as Qwen's template does, from LLaMA-Factory's roles. */
static void tools_render(void **state)
{
    (void)state;
    put("data", "[{\"conversations\":[{\"from\":\"human\",\"value\":\"Rain?\"},"
                "{\"from\":\"function_call\",\"value\":\"{\\\"name\\\": \\\"w\\\", \\\"arguments\\\": {\\\"city\\\": \\\"Lima\\\"}}\"},"
                "{\"from\":\"observation\",\"value\":\"{\\\"rain\\\": 0}\"},{\"from\":\"gpt\",\"value\":\"No\"}],"
                "\"tools\":\"[{\\\"name\\\": \\\"w\\\"}]\"}]");
    nb_error            err;
    nb_dataset         *d;
    nb_dataset_options  options = {.need_answer = true};
    nb_template_options template_options = {0};
    nb_chat             chat;
    nb_rendered         r;
    nb_buf              text = {0};
    char                where[256];
    bool                end;
    OK(nb_dataset_open(&d, in_folder("data"), &options, &err), &err);
    OK(nb_dataset_next(d, &chat, where, &end, &err), &err);
    assert_false(end);
    OK(nb_chat_render(&r, &chat, &template_options, &err), &err);
    nb_rendered_string(&r, &text);
    assert_non_null(strstr(text.data, "<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"w\"}}\n</tools>"));
    assert_non_null(strstr(text.data, "<|im_start|>assistant\n<tool_call>\n{\"name\": \"w\", \"arguments\": {\"city\": \"Lima\"}}\n"
                                      "</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n{\"rain\": 0}\n</tool_response>"));
    nb_buf_free(&text);
    nb_rendered_free(&r);
    nb_chat_free(&chat);
    nb_dataset_close(d);
}

static void names_of_rows(void **state)
{
    (void)state;
    nb_error           err;
    nb_dataset        *d;
    nb_dataset_options options = {.need_answer = true};
    nb_chat            chat;
    char               where[256];
    bool               end;
    put("data", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}\n\n"
                "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n");
    OK(nb_dataset_open(&d, in_folder("data"), &options, &err), &err);
    OK(nb_dataset_next(d, &chat, where, &end, &err), &err);
    assert_non_null(strstr(where, "data line 1"));
    nb_chat_free(&chat);
    FAILS(nb_dataset_next(d, &chat, where, &end, &err), NB_ERR_INPUT, "data line 3: messages[0]", &err);
    OK(nb_dataset_next(d, &chat, where, &end, &err), &err); /* a bad row does not end the file */
    assert_true(end);
    nb_dataset_close(d);

    options.need_answer = false;
    put("data", "[{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]},\n {\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}]");
    OK(nb_dataset_open(&d, in_folder("data"), &options, &err), &err);
    for (int i = 1; i <= 2; i++) {
        OK(nb_dataset_next(d, &chat, where, &end, &err), &err);
        nb_chat_free(&chat);
    }
    assert_non_null(strstr(where, "data row 2 (line 2)"));
    nb_dataset_close(d);
}

static void options_are_checked(void **state)
{
    (void)state;
    nb_error           err;
    nb_dataset        *d;
    nb_dataset_options options = {0};
    nb_data_form       form;
    OK(nb_data_form_parse(&form, "sharegpt", &err), &err);
    assert_int_equal(form, NB_DATA_SHAREGPT);
    FAILS(nb_data_form_parse(&form, "csv", &err), NB_ERR_ARGUMENT, "'csv'", &err);
    FAILS(nb_dataset_open(&d, in_folder("missing"), &options, &err), NB_ERR_INPUT, "missing", &err);
    assert_null(d);

    put("data", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}");
    put("info", "{\"x\":{\"file_name\":\"other\"}}");
    options.dataset_info = in_folder("info");
    FAILS(nb_dataset_open(&d, in_folder("data"), &options, &err), NB_ERR_INPUT, "no entry has", &err);
    put("info", DEFAULT_TAGS);
    options.form = NB_DATA_OPENAI;
    FAILS(nb_dataset_open(&d, in_folder("data"), &options, &err), NB_ERR_ARGUMENT, "form is sharegpt, not openai", &err);
    options = (nb_dataset_options){.image_root = "pictures"};
    OK(nb_dataset_open(&d, in_folder("data"), &options, &err), &err);
    assert_string_equal(nb_dataset_root(d), "pictures");
    nb_dataset_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_mean_what_they_say), cmocka_unit_test(demo_is_the_same_in_both_forms),
        cmocka_unit_test(tools_render),            cmocka_unit_test(names_of_rows),
        cmocka_unit_test(options_are_checked),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
