/* A video file in a chat: the part's settings reach the rule, its frames become patches and its place in the text pads. */
#include "golden.h"

#include "runtime/vision/video.h"
#include "temp_files.h"

#ifndef NIBBLE_VIDEO_PROGRAM
#define NIBBLE_VIDEO_PROGRAM ""
#endif

static const char *golden_video(const char *name)
{
    nb_error  err;
    cJSON    *rows;
    nb_buf    bytes = {0};
    const char *path = write_file(name, "");
    OK(nb_json_file(&rows, unit_path("tests/golden/vision_video.json"), 64 << 20, &err), &err);
    for (const cJSON *row = rows->child; row; row = row->next)
        if (!strcmp(cJSON_GetObjectItemCaseSensitive(row, "name")->valuestring, name)) {
            const char *text = cJSON_GetObjectItemCaseSensitive(row, "base64")->valuestring;
            OK(nb_base64_decode(&bytes, text, strlen(text), name, &err), &err);
        }
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes.data, 1, bytes.size, f), bytes.size);
    fclose(f);
    nb_buf_free(&bytes);
    cJSON_Delete(rows);
    return path;
}

static nb_status build_prompt(nb_prompt *out, const nb_model *model, const char *members, const nb_prompt_options *options, nb_error *err)
{
    char  text[600];
    cJSON *messages;
    nb_chat chat;
    snprintf(text, sizeof text, "[{\"role\":\"user\",\"content\":[{\"type\":\"video\",\"video\":\"h264.mp4\"%s},{\"text\":\"Q\"}]}]", members);
    OK(nb_json_parse(&messages, text, strlen(text), "test", err), err);
    OK(nb_chat_from_json(&chat, messages, NULL, NULL, err), err);
    cJSON_Delete(messages);
    nb_prompt_source source = nb_model_source(model);
    nb_status        status = nb_prompt_build(out, &chat, &source, options, err);
    nb_chat_free(&chat);
    return status;
}

static void video_in_a_chat(void **state)
{
    (void)state;
    if (!*NIBBLE_VIDEO_PROGRAM) {
        fprintf(stderr, "SKIP nibble-video was not built: FFmpeg's libraries are not here\n");
        skip();
    }
    assert_int_equal(setenv("NIBBLE_VIDEO_HELPER", NIBBLE_VIDEO_PROGRAM, 1), 0);
    nb_error  err;
    nb_ops    ops;
    nb_model *model;
    nb_pool  *pool;
    OK(nb_pool_new(&pool, 1, &err), &err);
    nb_ops_init(&ops, NB_ISA_REF, pool);
    OK(nb_model_open(&model, GOLDEN_MODEL, &ops, 0, &err), &err);
    golden_video("h264.mp4"); /* 22 frames of 168 x 112, 11 a second */
    nb_prompt_options options = {.media = {.root = folder}};
    static const struct {
        const char *members;
        int         t, h, w; /* patches */
    } cases[] = {
        {"", 2, 20, 28},                                             /* 2 s, 4 frames; at least 100352 pixels: 280 x 392 */
        {",\"fps\":4", 4, 20, 28},
        {",\"nframes\":6", 3, 20, 28},
        {",\"max_frames\":2,\"min_frames\":2", 1, 20, 28},
        {",\"min_pixels\":784,\"max_pixels\":18816", 2, 8, 12},      /* as it is: 112 x 168 */
        {",\"min_pixels\":784,\"max_pixels\":9408", 2, 4, 8},        /* 56 x 112 */
        {",\"resized_height\":56,\"resized_width\":84", 2, 4, 6},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_prompt p;
        size_t    pads = 0;
        OK(build_prompt(&p, model, cases[i].members, &options, &err), &err);
        assert_int_equal(p.media_count, 1);
        assert_int_equal(p.media_kind[0], NB_TOKEN_VIDEO);
        if (p.media[0].t != cases[i].t || p.media[0].h != cases[i].h || p.media[0].w != cases[i].w)
            fail_msg("case %zu: %d x %d x %d", i, p.media[0].t, p.media[0].h, p.media[0].w);
        for (size_t k = 0; k < p.count; k++) pads += p.modality[k] == NB_TOKEN_VIDEO;
        assert_int_equal(pads, cases[i].t * cases[i].h * cases[i].w / 4);
        nb_prompt_free(&p);
    }
    nb_prompt p;
    FAILS(build_prompt(&p, model, ",\"nframes\":30", &options, &err), NB_ERR_INPUT, "messages[0].content[0]: h264.mp4: the video holds 22", &err);
    /* the caller's limits hold where the part gives none */
    options.limits = (nb_pixel_limits){.min_pixels = 784, .max_pixels = 18816};
    OK(build_prompt(&p, model, "", &options, &err), &err);
    assert_int_equal(p.media[0].h * p.media[0].w, 96);
    nb_prompt_free(&p);
    setenv("NIBBLE_VIDEO_HELPER", "/nonexistent", 1);
    FAILS(build_prompt(&p, model, "", &options, &err), NB_ERR_UNSUPPORTED, "NIBBLE_VIDEO_HELPER", &err);
    nb_model_close(model);
    nb_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(video_in_a_chat)};
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
