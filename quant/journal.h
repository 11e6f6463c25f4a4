/* journal.h - what a long job was asked for and what it has finished, in a folder of its own (OUT.job):
 *
 *     journal.jsonl   one line for each thing that must not change, and one for each piece of work that is on disk
 *     command.json    the command, so that `nibble resume` can repeat it
 *     lock            who works on it now
 *     hidden-N.spool  hidden states (spool.h), when they are kept there
 *     original/       those of the original model's stream, with asymmetric calibration
 *     judge-...       those of the two models that are being compared
 */
#ifndef NB_JOURNAL_H
#define NB_JOURNAL_H

#include "quant/float_layer.h"
#include "quant/pipeline.h"

enum { NB_JOURNAL_FORMAT = 2 /* 1 had no line that says so */ };

typedef struct nb_journal nb_journal;

/* Matrices that are whole on disk: all of a layer, or those of one of its sites while the layer is worked on. */
typedef struct {
    uint64_t         bytes, hash;        /* of their tensors as written (nb_writer_hash) */
    uint64_t         source[NB_LINEARS]; /* nb_float_layer.source_hash of the whole layer */
    float            site_max[NB_SITES]; /* largest |x| at each site; of a site, only its own is set */
    nb_matrix_report matrices[NB_LINEARS]; /* without names; of a site, only its own are set */
} nb_layer_record;

/* Hidden states that are on disk. */
typedef struct {
    size_t        layer; /* whose inputs they are */
    nb_spool_mark mark;
    bool          twin;  /* the original stream is on disk too; without, layer is 0, where both are the same */
    nb_spool_mark original;
} nb_states_record;

/* Makes the folder when it is missing and locks it; somebody else's lock is an error that says whose.  Lines after the first damaged
 * one are dropped, without resume all are, as are those of a job that finished nothing or whose result stands at out_dir already.
 * A journal of another format is refused (NB_ERR_UNSUPPORTED). */
nb_status nb_journal_open(nb_journal **out, const char *folder, const char *out_dir, bool resume, nb_error *err);
const char *nb_journal_folder(const nb_journal *j);
/* Write command.json. */
nb_status nb_journal_command(nb_journal *j, const char *text, nb_error *err);
/* Something that the result depends on: remembered the first time, and refused by name when it is another now.  what: an option
 * ("--bits", then value is shown) or a file or other thing (then value is a hash, or says what there is). */
nb_status nb_journal_fact(nb_journal *j, const char *what, const char *value, nb_error *err);
/* All options were given as facts: one that was there the first time and is not now is refused. */
nb_status nb_journal_options_done(nb_journal *j, nb_error *err);

bool   nb_journal_holds(const nb_journal *j);  /* there is something to go on from */
size_t nb_journal_layers(const nb_journal *j); /* finished, from the first on */
const nb_layer_record *nb_journal_layer(const nb_journal *j, size_t layer);
int    nb_journal_sites(const nb_journal *j);  /* finished sites of the layer after those */
const nb_layer_record *nb_journal_site(const nb_journal *j, int site);
const nb_states_record *nb_journal_states(const nb_journal *j); /* the last ones; NULL: none */

/* The next layer, or the next site of it, is finished; its tensors must be on disk already. */
nb_status nb_journal_add_layer(nb_journal *j, const nb_layer_record *record, nb_error *err);
nb_status nb_journal_add_site(nb_journal *j, const nb_layer_record *record, nb_error *err);
nb_status nb_journal_add_states(nb_journal *j, const nb_states_record *record, nb_error *err);
/* Layers from this one on are not finished after all, but for its first sites. */
nb_status nb_journal_forget(nb_journal *j, size_t layer, int sites, nb_error *err);
/* The folder that will be renamed to out_dir is complete. */
nb_status nb_journal_committing(nb_journal *j, const char *partial, nb_error *err);
/* Removes it when the job is done or has nothing to go on from. */
void      nb_journal_close(nb_journal *j, bool done);
/* Removes the folder of a job with all that any run left in it. */
nb_status nb_journal_remove(const char *folder, nb_error *err);

/* What a job folder says, without touching it. */
typedef struct {
    char   begun[32];      /* date and time, UTC */
    char   owner[200];     /* "pid 12 on host, since ..." while a run holds it; empty otherwise */
    size_t layers, states; /* finished layers; the layer whose inputs are kept */
    int    sites;
    bool   has_states, committing;
    uint64_t partial[2];   /* committing: device and inode of the folder that becomes the result */
} nb_journal_info;
nb_status nb_journal_look(nb_journal_info *out, const char *folder, nb_error *err);
/* Whether path is the folder that a job was committing: its result, in place. */
bool      nb_journal_is_result(const nb_journal_info *info, const char *path);

#endif
