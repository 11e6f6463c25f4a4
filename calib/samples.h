/* samples.h - the calibration set as the model reads it: every conversation embedded once, hidden states kept between
 * layers, in memory or in a spool on disk, never padded, never joined. */
#ifndef NB_SAMPLES_H
#define NB_SAMPLES_H

#include "calib/mix.h"
#include "calib/spool.h"
#include "calib/stats.h"
#include "runtime/model/visual.h"

/* A row and its prompt, media included; root is the folder of its relative pictures. */
typedef nb_status nb_sample_seen(void *context, const nb_chat *chat, const nb_prompt *prompt, const char *root, const char *where,
                                 nb_error *err);

typedef struct {
    const char *path;       /* the one data file; NULL: sources has them */
    const nb_data_source *sources; /* [source_count] with their shares of `samples`, as in mix.h */
    size_t      source_count;
    nb_dataset_options dataset;
    int         samples;    /* at most this many; 0: all */
    int         skip;       /* rows of each source passed over first */
    size_t      seq_len;    /* longer conversations are left out and counted; 0: no limit */
    nb_prompt_options prompt; /* media.root NULL: the data set's own folder */
    bool        shuffle;    /* choose rows by seed instead of the first ones */
    uint64_t    seed;
    size_t      hold, total; /* of path, as in nb_data_source */
    bool        held;       /* take the rows that are held back, not the others */
    bool        skip_bad;   /* rows that cannot be used are left out and counted, not an error */
    nb_sample_seen *seen;   /* hears of every row that is taken, in order; NULL: nobody */
    void       *seen_context;
    nb_dtype    kv_type;    /* of the keys and values that a layer sees: NB_F32, or as an engine has them */
    bool        answers_only; /* only tokens of the assistant's answers, <|im_end|> included, count in the statistics; all are run */
    size_t      share, shares; /* keep only samples share, share + shares ..; hash, count and tokens are of these.  0, 0: all */
    bool        embed;      /* every row as it comes, so that the pictures of one are in memory at a time */
    bool        known;      /* hidden states come from nb_samples_adopt: pictures are only identified */
    bool      (*go_on)(void *context); /* asked before every row; false: NB_ERR_STOPPED.  NULL: never */
    void       *context;
    const char *spool;      /* folder for hidden states, with embed implied; NULL: in memory */
    int         spool_level; /* of zstd; 0: the default */
    size_t      spool_chunk; /* floats compressed together; 0: the default */
} nb_samples_options;

/* What one source gave. */
typedef struct {
    size_t   samples, tokens, too_long;
    uint64_t by_modality[3];
} nb_source_count;

/* Is there any data? */
static inline bool nb_samples_wanted(const nb_samples_options *o)
{
    return o->path || o->source_count;
}

typedef struct {
    nb_prompt *prompts;     /* [count]; media freed once embedded */
    float    **hidden;      /* [count] host [tokens, hidden] state before the current layer; NULL until nb_samples_embed, and
                             * with a spool */
    nb_spool  *spool;       /* holds them instead; NULL: none */
    size_t     count;
    size_t     tokens;      /* over all samples */
    uint64_t   by_modality[3];
    uint64_t   counted[3];  /* of them, those that count in the statistics: all, or those of answers */
    bool       answers_only;
    size_t     too_long;    /* left out by seq_len */
    size_t     bad;         /* ... by skip_bad */
    char       first_bad[256]; /* what was wrong with the first of them */
    nb_source_count *by_source; /* [source_count], 1 for a path */
    size_t     source_count;
    uint64_t   hash;        /* of ids, positions and pixels: the identity of the set; the sum of its samples' */
    nb_visual_cache *pictures_seen; /* rows of pictures, while the set is being embedded */
    uint64_t   pictures, pictures_new; /* all, and those that the vision tower saw */
    double     waited_s;    /* spent waiting for the spool in passes */
    nb_dtype   kv_type;
    size_t     capacity, hidden_capacity;
    bool       twin;        /* prompts are another set's */
} nb_samples;

enum { NB_SAMPLES_PICTURES = 64 << 20 /* bytes of rows of pictures that are kept for when they come again */ };
enum { NB_SAMPLES_ROWS = 1024 }; /* tokens of a batch; a longer sample is one of its own */

/* Rows are those of nb_mix, in its order; one that is too long is not used. */
nb_status nb_samples_load(nb_samples *out, const nb_model *model, const nb_samples_options *options, nb_error *err);
/* What was not embedded while loading. */
nb_status nb_samples_embed(nb_samples *s, const nb_model *model, nb_error *err);
/* The same conversations with hidden states of their own, copies of those of s as they are now; it must go before s does.
 * to: an empty spool for the states, which becomes the set's own even when this fails; NULL: in memory. */
nb_status nb_samples_twin(nb_samples *out, const nb_samples *s, const nb_model *model, nb_spool *to, nb_error *err);
/* ... or with those that a spool holds, as nb_samples_adopt takes them. */
nb_status nb_samples_twin_adopt(nb_samples *out, const nb_samples *s, const nb_model *model, nb_spool *from, bool keep, nb_error *err);
void      nb_samples_free(nb_samples *s); /* zeroes it */
/* Write the hidden states as the next generation of another spool, complete. */
nb_status nb_samples_save(const nb_samples *s, const nb_model *model, nb_spool *to, nb_error *err);
/* Take the hidden states of a set that was loaded as known: to memory, or, with keep, from this spool from here on (it becomes the
 * set's own).  NB_ERR_DIFFERENT when the spool holds another set. */
nb_status nb_samples_adopt(nb_samples *s, const nb_model *model, nb_spool *from, bool keep, nb_error *err);
/* The state of one sample now, into out [tokens, hidden]. */
nb_status nb_samples_state(const nb_samples *s, size_t sample, size_t hidden, float *out, nb_error *err);

/* Sees the inputs of a site for the tokens of several whole samples at once, in a fixed order; every token of the set exactly once
 * a pass.  x [rows, k] with stride ld in backend memory; a token that does not count is NB_TOKEN_UNCOUNTED (stats.h). */
typedef struct {
    void   (*site)(void *context, nb_site site, const float *x, size_t ld, int k, const nb_sample_rows *rows);
    void    *context;
    int      sites;         /* a pass that keeps nothing may end after so many sites; 0: all four */
} nb_sample_tap;
/* Run one layer over all samples.  keep: hidden is replaced by the outputs; otherwise it is left as it is (statistics
 * passes).  tap may be NULL. */
nb_status nb_samples_layer(nb_samples *s, const nb_model *model, const nb_layer *layer, const nb_sample_tap *tap, bool keep,
                           nb_error *err);

/* Sees the inputs of a site for the same tokens in two runs of a layer: first stream 0, then stream 1.  state: backend memory
 * [rows, hidden], what the outputs of o and down are added to. */
typedef struct {
    void   (*site)(void *context, int stream, nb_site site, const float *x, size_t ld, int k, const float *state,
                   const nb_sample_rows *rows);
    void    *context;
    nb_site  site_wanted;
} nb_pair_tap;
/* A set and its twin through a layer each, batch by batch side by side; hidden states stay as they are. */
nb_status nb_samples_pair(const nb_samples *set[2], const nb_layer *layer[2], const nb_model *model, const nb_pair_tap *tap,
                          nb_error *err);

#endif
