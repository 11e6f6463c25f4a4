/* data.h - inside `nibble data`: what its three verbs share.
 *
 * A row is judged as `quantize` would judge it, but without decoding its pictures (but video files are read): sizes come from headers, visual tokens from
 * the rule that resizes, text tokens from the checkpoint's tokenizer.  No weights are read.
 */
#ifndef NB_DATA_TOOL_H
#define NB_DATA_TOOL_H

#include "calib/dataset.h"
#include "runtime/model/prompt.h"
#include "tools/data_picture.h"

typedef struct {
    const nb_data_source *sources; /* [count] */
    int                count;
    bool               weighted;  /* a weight was written: check says what the shares would be */
    size_t             samples;   /* convert: rows to take, by the weights; 0: all */
    nb_dataset_options dataset;   /* image_root NULL: each file's own folder */
    nb_media_options   media;     /* root is set for each file */
    nb_tokenizer      *tokenizer; /* NULL: text is not tokenised */
    nb_processor       processor;
    nb_pixel_limits    limits;    /* max_pixels is the one that tokens are counted with, never 0 */
    bool               tokens;    /* look at pictures and count tokens */
    bool               deep;
    size_t             seq_len;   /* 0: no limit */
    int64_t            rows;      /* show, check: this many prompts */
    int64_t            skip;      /* show: after these */
    int64_t            listed;    /* check: bad rows and duplicates shown at most */
    const char        *out;       /* convert */
    bool               force, skip_bad;
} nb_data_job;

/* One picture of a row, or the first frame of a video; where it stands in the chat. */
typedef struct {
    int        message, part, frames; /* frames 0: a picture */
    nb_picture size;
    int64_t    natural;               /* pixels when no limit shrinks or enlarges it: both sides rounded to whole tokens */
    size_t     tokens;
} nb_data_media;

typedef struct {
    nb_data_media *media;
    size_t         count, capacity;
    size_t         tokens[3];  /* by nb_modality; text 0 without a tokenizer */
    size_t         answer;     /* tokens of answers among those of text */
    nb_rendered    prompt;     /* filled by nb_data_measure */
    bool           failed;     /* a picture could not be had, the rest is zero */
} nb_data_row;
void nb_data_row_free(nb_data_row *r); /* zeroes it */

/* Everything but the pixels.  A picture that cannot be used is an error as nb_prompt_build's: where, message and part. */
nb_status nb_data_measure(nb_data_row *out, const nb_data_job *job, const nb_chat *chat, const char *root, const char *where,
                          nb_error *err);

/* The prompt of a row as the model reads it, pads abbreviated, and its tokens: a heading and text, or with --json an object.
 * most: longer prompts are cut there; 0: none is. */
void      nb_data_show_row(nb_buf *out, const nb_data_job *job, const nb_chat *chat, const nb_data_row *row, const char *where, size_t most);

/* The rows of all files, one after the other. */
typedef struct {
    const nb_data_job *job;
    int         file;     /* index of the present one */
    nb_dataset *data;     /* NULL before the first and after the last */
    bool        lost;     /* the rest of the present file cannot be read */
} nb_data_walk;
/* *end true after the last row of the last file.  A failure names the row; when its status is NB_ERR_INPUT or
 * NB_ERR_UNSUPPORTED the next call goes on behind it.  closing, if not NULL, sees each file before it is closed. */
typedef void nb_data_closing(void *context, const nb_data_walk *walk);
nb_status nb_data_next(nb_data_walk *w, nb_chat *chat, char where[256], bool *end, nb_data_closing *closing, void *context,
                       nb_error *err);
void      nb_data_walk_close(nb_data_walk *w);
double    nb_data_progress(const nb_data_walk *w); /* bytes of the present file that were read */

/* The verbs. */
nb_status nb_data_check(const nb_data_job *job, nb_error *err);
nb_status nb_data_show(const nb_data_job *job, nb_error *err);
nb_status nb_data_convert(const nb_data_job *job, nb_error *err);

#endif
