/* quantize_proof.h - how a quantized checkpoint is shown to be good, and the three files that say so in it.
 *
 *     report.json   every figure, for machines; no times, so that the same command gives the same bytes
 *     report.html   the same for people: one page without script or anything from elsewhere
 *     README.md     the model card
 *
 * All of it happens before the checkpoint has its name (nb_quantize's last step), so a checkpoint that stands has its report, and a
 * run that was interrupted while judging goes on like any other.  A gate that is not met does not undo anything: the checkpoint
 * stays, marked in all three, and the command exits with 3.
 */
#ifndef NB_QUANTIZE_PROOF_H
#define NB_QUANTIZE_PROOF_H

#include "quant/float_layer.h"
#include "tools/eval/answers.h"
#include "tools/eval/gate.h"
#include "tools/eval/judge.h"
#include "tools/quantize_flags.h"

/* A kind of tensors, before and after. */
typedef struct {
    const char *name;
    uint64_t    values, bytes_in, bytes_out; /* values: of the original */
} nb_size_part;
enum { NB_PART_MATRICES, NB_PART_VISION, NB_PART_EMBEDDING, NB_PART_HEAD, NB_PART_OTHER, NB_SIZE_PARTS };

/* What the source's own card says; empty: nothing. */
typedef struct {
    char base_model[256], license[128], license_name[128], license_link[512];
} nb_source_card;

typedef enum { NB_NOT_JUDGED, NB_JUDGED /* no gate */, NB_PASSED, NB_FAILED } nb_verdict;

typedef struct nb_proof {
    const nb_quantize_flags  *opt;
    const nb_args            *args;
    const char               *recipe;  /* JSON */
    nb_samples_options        data;    /* the held-out conversations */
    size_t                    held;    /* how many; 0: all of data */
    bool                      judges;  /* there are any */
    char                      name[300]; /* of the data, for people */
    size_t                    answers_wanted;
    nb_gate                   gate;
    nb_verdict                verdict;
    nb_judgement              judgement;
    nb_answers                answers;
    char                      why[512];  /* not judged, or failed */
    nb_size_part              parts[NB_SIZE_PARTS];
    nb_source_card            card;
    const nb_quantize_report *report;    /* of the run, while files are written */
    double                    seconds;   /* of judging, for the terminal */
} nb_proof;

/* Choose the held-out conversations (opt->sources then say so, and calibration leaves them alone), read the gate, and become the last
 * step of *q. */
nb_status nb_proof_plan(nb_proof *p, nb_quantize_options *q, const nb_quantize_flags *opt, const nb_args *args, nb_error *err);
/* An nb_quantize_finish whose context is the nb_proof: judge, and write the three files. */
nb_status nb_proof_finish(void *proof, const nb_quantized *q, nb_error *err);
void      nb_proof_free(nb_proof *p);

const char *nb_verdict_name(nb_verdict v); /* "passed", ... */
/* Bits of the file for each value; NaN when there are none. */
double      nb_bits_of(uint64_t bytes, uint64_t values);
/* Largest |x| that calibration or the judge saw anywhere. */
double      nb_proof_largest(const nb_proof *p);
/* The command that gives the judge's figures again; false when none does (rows drawn by --shuffle). */
bool        nb_proof_command(const nb_proof *p, nb_buf *out);
/* verdict, gate and judge into an open object. */
nb_status   nb_proof_emit(nb_emit *e, const nb_proof *p, nb_error *err);

nb_status nb_proof_json(nb_buf *out, const nb_proof *p, nb_error *err);
nb_status nb_proof_html(nb_buf *out, const nb_proof *p, nb_error *err);
nb_status nb_proof_card(nb_buf *out, const nb_proof *p, nb_error *err);

/* The front matter of MODEL/README.md and _name_or_path of its config.json; base_model, when given, wins. */
nb_status nb_source_card_read(nb_source_card *out, const char *model, const char *base_model, nb_error *err);

#endif
