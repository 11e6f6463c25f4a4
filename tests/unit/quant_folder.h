/* quant_folder.h - a folder of its own for what a test of quant/ writes, the demo that it starts from, and what came out, opened. */
#ifndef NB_TEST_QUANT_FOLDER_H
#define NB_TEST_QUANT_FOLDER_H

#include "unit.h"

#include "quant/pipeline.h"
#include "runtime/io/file.h"

static char folder[512], source[1024], chats[1024]; /* the demo model and its calibration chats */

static inline int make_folder(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/nb-quant-XXXXXX", base ? base : P_tmpdir);
    snprintf(source, sizeof source, "%s", unit_path("tools/demo/model"));
    snprintf(chats, sizeof chats, "%s", unit_path("tools/demo/calib/chat.jsonl"));
    return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state)
{
    (void)state;
    return nb_remove_folder(folder, NULL) == NB_OK && !nb_file_exists(folder) ? 0 : -1; /* nothing was left inside */
}

static inline const char *in_folder(const char *name)
{
    static char path[256][700]; /* a path lasts 256 calls: requests keep theirs */
    static int  i;
    i = (i + 1) % 256;
    snprintf(path[i], sizeof path[i], "%.500s/%.190s", folder, name);
    return path[i];
}

static inline void drop(const char *name)
{
    nb_error err;
    OK(nb_remove_folder(in_folder(name), &err), &err);
    assert_false(nb_file_exists(in_folder(name)));
}

/* No OUT, and no OUT.partial. */
static inline void assert_nothing_left(const char *name)
{
    char partial[64];
    snprintf(partial, sizeof partial, "%s.partial", name);
    assert_false(nb_file_exists(in_folder(name)));
    assert_false(nb_file_exists(in_folder(partial)));
}

typedef struct {
    nb_checkpoint *checkpoint;
    nb_config      config;
} opened;

static inline opened open_dir(const char *path)
{
    nb_error err;
    opened   o;
    nb_buf   notes = {0};
    OK(nb_checkpoint_open(&o.checkpoint, path, &err), &err);
    OK(nb_config_open(&o.config, path, &notes, &err), &err);
    nb_buf_free(&notes);
    return o;
}

#endif
