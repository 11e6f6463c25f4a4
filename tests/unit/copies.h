/* copies.h - checkpoints that are the demo model but for one thing, in folders of their own. */
#ifndef NB_COPIES_H
#define NB_COPIES_H

#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "runtime/io/file.h"
#include "runtime/io/safetensors.h"

static char copies_root[] = "/tmp/nibble-copies-XXXXXX";

static const char *copy_path(const char *copy, const char *name)
{
    static char path[6][300];
    static int  i;
    i = (i + 1) % 6;
    snprintf(path[i], sizeof path[i], "%s/%s%s%s", copies_root, copy, name ? "/" : "", name ? name : "");
    return path[i];
}

static int copies_start(void **state)
{
    (void)state;
    return mkdtemp(copies_root) ? 0 : -1;
}

static int copies_end(void **state)
{
    (void)state;
    DIR *dir = opendir(copies_root);
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        if (nb_is_directory(copy_path(e->d_name, NULL))) nb_remove_folder(copy_path(e->d_name, NULL), NULL);
        else unlink(copy_path(e->d_name, NULL));
    }
    if (dir) closedir(dir);
    return rmdir(copies_root);
}

/* The demo model by links; with `weights` its weights as a file of its own. */
static const char *make_copy(const char *copy, bool weights)
{
    nb_error    err;
    const char *demo = unit_path("tools/demo/model");
    char        from[1200];
    mkdir(copy_path(copy, NULL), 0700);
    DIR *dir = opendir(demo);
    assert_non_null(dir);
    for (const struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        snprintf(from, sizeof from, "%s/%s", demo, e->d_name);
        if (weights && !strcmp(e->d_name, "model.safetensors")) OK(nb_file_copy(from, copy_path(copy, e->d_name), &err), &err);
        else assert_int_equal(symlink(from, copy_path(copy, e->d_name)), 0);
    }
    closedir(dir);
    return copy_path(copy, NULL);
}

static inline void replace_file(const char *copy, const char *name, const char *text)
{
    const char *path = copy_path(copy, name);
    unlink(path); /* a link into the source tree */
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* Element i of a BF16 tensor of a copy becomes v. */
static inline void poke(const char *copy, const char *tensor, size_t i, uint16_t v)
{
    nb_error        err;
    nb_safetensors *f;
    OK(nb_safetensors_open(&f, copy_path(copy, "model.safetensors"), &err), &err);
    const nb_tensor *t = nb_safetensors_find(f, tensor);
    assert_non_null(t);
    assert_int_equal(t->dtype, NB_BF16);
    int fd = open(copy_path(copy, "model.safetensors"), O_WRONLY);
    assert_int_equal(pwrite(fd, &v, 2, (off_t)(t->offset + 2 * i)), 2);
    close(fd);
    nb_safetensors_close(f);
}

#endif
