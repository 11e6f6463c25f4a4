/* journal_text.h - the lines of a journal, as text and as what they say. */
#ifndef NB_JOURNAL_TEXT_H
#define NB_JOURNAL_TEXT_H

#include "quant/journal.h"

typedef struct {
    char *what, *value;
    bool  seen; /* given again in this run */
} nb_journal_said;

typedef struct {
    int              format;  /* 0: no line said so */
    char             begun[32];
    nb_journal_said *said;
    nb_layer_record *layers;
    uint64_t        *start;   /* [layers] byte of the line of each */
    nb_layer_record  sites[NB_SITES];
    uint64_t         site_start[NB_SITES];
    nb_states_record states;
    uint64_t         partial[2];
    size_t           said_count, said_capacity, layer_count, layer_capacity, start_capacity;
    int              site_count;
    bool             has_states, committing;
} nb_journal_text;

void nb_journal_text_free(nb_journal_text *t);
/* A line (without its end) that says what it said when it was written is taken over; *valid is false for any other.  start: its
 * place in the file. */
nb_status nb_journal_take(nb_journal_text *t, const char *line, size_t n, uint64_t start, bool *valid, nb_error *err);
nb_status nb_journal_push_said(nb_journal_text *t, const char *what, const char *value, nb_error *err);
nb_status nb_journal_push_layer(nb_journal_text *t, const nb_layer_record *record, uint64_t start, nb_error *err);
void      nb_journal_push_site(nb_journal_text *t, const nb_layer_record *record, uint64_t start);

/* Append a line. */
void nb_journal_put_head(nb_buf *out, const char *begun);
void nb_journal_put_said(nb_buf *out, const char *what, const char *value);
void nb_journal_put_layer(nb_buf *out, const nb_layer_record *r, size_t layer, int site); /* site -1: the whole layer */
void nb_journal_put_states(nb_buf *out, const nb_states_record *r);
void nb_journal_put_committing(nb_buf *out, const uint64_t partial[2]);

#endif
