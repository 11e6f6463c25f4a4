/* vocabulary.h - what an open tokenizer is made of; for the files of this part only. */
#ifndef NB_VOCABULARY_H
#define NB_VOCABULARY_H

#include "runtime/io/json.h"
#include "runtime/text/bpe.h"

enum { NB_ID_LIMIT = 4 << 20, NB_ADDED_LIMIT = 1024 }; /* ids are below; longest added token in bytes */

typedef enum { NB_ENTRY_HOLE, NB_ENTRY_PLAIN, NB_ENTRY_ADDED, NB_ENTRY_SPECIAL } nb_entry_kind;

/* What a token decodes to: nb_tokenizer.bytes[begin .. begin + length). */
typedef struct {
    uint32_t begin, length;
    uint8_t  kind; /* nb_entry_kind; SPECIAL is an added token that decode can skip */
} nb_entry;

/* A text that is cut out of the input before anything else is done to it. */
typedef struct {
    uint32_t begin, length; /* in nb_tokenizer.bytes: what the input must hold */
    int32_t  id;
    bool     special;
    bool     normalized; /* looked for after NFC, not before */
} nb_added;

struct nb_tokenizer {
    nb_entry *tokens; /* [size] */
    int       size;
    nb_buf    bytes;
    nb_merges merges;
    nb_added *added; /* [added_count], ordered by their bytes */
    size_t    added_count;
    bool      any[2][2];   /* [normalized][special]: is there an added token of this kind */
    bool      starts[256]; /* bytes that an added token begins with */
};

/* ---- building one (tokenizer.c reads the files, vocabulary.c checks and stores) */

/* Names of the ordinary tokens, in the byte-mapped alphabet, by hash; the strings belong to the JSON tree. */
typedef struct {
    const char *text;
    uint32_t    length;
    int32_t     id;
} nb_name;

typedef struct {
    nb_tokenizer *tokenizer;
    const char   *file; /* for messages */
    nb_name      *names; /* open addressing, at most half full */
    unsigned      bits;
    size_t        added_capacity, merge_count;
} nb_builder;

/* Room for the ids of `vocabulary` (an object: token -> id) and up to largest_added; stores the ordinary tokens,
 * of which every byte must have one. */
nb_status nb_builder_vocabulary(nb_builder *b, const cJSON *vocabulary, int64_t largest_added, nb_error *err);
nb_status nb_builder_add(nb_builder *b, const char *text, int64_t id, bool special, bool normalized, nb_error *err);
/* The pair left + right is the next merge in rank. */
nb_status nb_builder_merge(nb_builder *b, const char *left, size_t left_length, const char *right, size_t right_length,
                           nb_error *err);
/* Orders the added tokens; the last step. */
nb_status nb_builder_finish(nb_builder *b, nb_error *err);
void      nb_builder_free(nb_builder *b); /* not the tokenizer */

#endif
