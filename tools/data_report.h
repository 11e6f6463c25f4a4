/* data_report.h - what `nibble data check` found out, and printing it as a page or as one line of JSON. */
#ifndef NB_DATA_REPORT_H
#define NB_DATA_REPORT_H

#include "tools/data.h"
#include "tools/data_histogram.h"
#include "tools/data_script.h"

enum { NB_DATA_ROLES = 12 };

typedef struct {
    char   **lines;
    size_t   count, capacity;
    uint64_t total; /* found; only the first are listed */
} nb_data_list;

typedef struct {
    nb_data_form form;
    const char  *packing; /* gzip, zstd, NULL */
    uint64_t     bytes;
    size_t       rows, bad, skipped;
    uint64_t     tokens;  /* of good rows; 0 without a tokenizer */
    bool         lost;    /* the rows behind the last bad one could not be read */
} nb_data_file;

typedef struct {
    nb_data_file *files; /* [job->count] */
    struct {
        char     name[40];
        uint64_t count;
    } roles[NB_DATA_ROLES];
    int          role_count;
    uint64_t     other_roles;
    nb_histogram turns;      /* answers a row */
    nb_histogram tokens;     /* of a row, all modalities */
    nb_histogram pixels;     /* of a picture, its sides rounded to whole tokens */
    nb_histogram room;       /* pixels that each picture of a row may have so that the row fits */
    uint64_t     octave[64][3], octave_rows[64]; /* tokens by modality, and rows, of rows with 2^i .. 2^(i+1)-1 tokens */
    nb_histogram modality[3]; /* tokens of one modality in a row that has any */
    uint64_t     by_modality[3], answer_tokens;
    uint64_t     text_bytes, pictures, videos, not_looked_at, shrunk;
    uint64_t     with_pictures, with_videos, with_tools, with_system, without_answer;
    uint64_t     marks_as_text; /* rows that say <image> or <video> where no list of pictures gives it a meaning */
    uint64_t     scripts[NB_SCRIPTS];         /* characters of each */
    uint64_t     script_rows[NB_SCRIPTS + 1]; /* rows by their main script; the last: of none */
    uint64_t     same;       /* of alike, those word for word */
    uint64_t     bad_pictures; /* of bad, those with a picture or video that cannot be had or read */
    nb_data_list bad, too_long, alike;
    nb_buf      *prompts;      /* [job->rows] the first good rows as the model reads them */
    int64_t      prompt_count;
} nb_data_report;

void nb_data_report_print(nb_buf *out, const nb_data_report *r, const nb_data_job *job);

/* The limit that shrinks no picture, or what calibration uses if that is less; lowered so that 99 % of the rows fit seq_len.
 * 0: no picture was measured. */
int64_t nb_data_suggest_pixels(const nb_data_report *r, const nb_data_job *job);

#endif
