/* temp_files.h - small files in a folder of their own under /tmp, for tests of programs; clean_up is the group's teardown. */
#ifndef NB_TEMP_FILES_H
#define NB_TEMP_FILES_H

#include "unit.h"

#include "runtime/io/file.h"

static char folder[64]; /* of temporary files */

static int clean_up(void **state)
{
    (void)state;
    return folder[0] && nb_remove_folder(folder, NULL) != NB_OK;
}

static const char *write_file(const char *name, const char *text)
{
    static char path[8][160]; /* a path lasts eight calls */
    static int  i;
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "/tmp/nibble-cli-XXXXXX");
        assert_non_null(mkdtemp(folder));
    }
    i = (i + 1) % 8;
    snprintf(path[i], sizeof path[i], "%s/%s", folder, name);
    FILE *f = fopen(path[i], "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return path[i];
}

#endif
