/* fingerprint.h - short texts that stand for what a job reads: its options, its small files, its shards. */
#ifndef NB_FINGERPRINT_H
#define NB_FINGERPRINT_H

#include "quant/journal.h"

/* Every option of a recipe ({"quantize": {...}}, or the options alone) as a fact "--name". */
nb_status nb_fingerprint_options(nb_journal *j, const char *recipe_json, nb_error *err);
/* A file by its content; one that is not there is a fact too. */
nb_status nb_fingerprint_file(nb_journal *j, const char *folder, const char *name, nb_error *err);
/* A shard by its size, its header, and blocks spread over all of it: a few megabytes are read. */
nb_status nb_fingerprint_shard(nb_journal *j, const char *path, nb_error *err);
/* A fact that is a hash. */
nb_status nb_fingerprint_hash(nb_journal *j, const char *what, uint64_t hash, nb_error *err);

#endif
