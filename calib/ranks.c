/* ranks.c - ranks.h over MPI, and its filling for a build without: the only file that knows MPI. */
#include "calib/ranks.h"

#include <stdlib.h>
#include <string.h>

/* Set by the launchers of Open MPI, MPICH and Slurm for each process that they start. */
static bool launched(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"};
    for (size_t i = 0; i < NB_COUNT(names); i++)
        if (getenv(names[i])) return true;
    return false;
}

static int count = 1, mine = 0;

int nb_ranks_count(void)
{
    return count;
}

int nb_ranks_mine(void)
{
    return mine;
}

#ifdef NIBBLE_MPI

#include <mpi.h>

enum { STEP = 1 << 26 /* elements of one message: MPI counts in ints */ };

nb_status nb_ranks_start(nb_error *err)
{
    int given;
    if (!launched()) return NB_OK;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &given) != MPI_SUCCESS || given < MPI_THREAD_FUNNELED)
        return nb_fail(err, NB_ERR_IO, "MPI cannot be started with threads");
    MPI_Comm_size(MPI_COMM_WORLD, &count);
    MPI_Comm_rank(MPI_COMM_WORLD, &mine);
    return NB_OK;
}

static bool running(void)
{
    int begun, ended;
    return MPI_Initialized(&begun) == MPI_SUCCESS && begun && MPI_Finalized(&ended) == MPI_SUCCESS && !ended;
}

void nb_ranks_stop(void)
{
    if (running()) MPI_Finalize();
}

void nb_ranks_abort(int exit_code)
{
    if (running() && count > 1) MPI_Abort(MPI_COMM_WORLD, exit_code);
    nb_ranks_stop();
}

static nb_status check(int result, const char *doing, nb_error *err)
{
    return result == MPI_SUCCESS ? NB_OK : nb_fail(err, NB_ERR_IO, "MPI failed while %s", doing);
}

nb_status nb_ranks_sum(uint64_t *words, size_t n, nb_error *err)
{
    for (size_t at = 0; count > 1 && at < n; at += STEP) {
        int some = (int)(n - at < STEP ? n - at : STEP);
        NB_TRY(check(MPI_Reduce(mine ? words + at : MPI_IN_PLACE, words + at, some, MPI_UINT64_T, MPI_SUM, 0, MPI_COMM_WORLD),
                     "adding statistics", err));
    }
    return NB_OK;
}

nb_status nb_ranks_sum_for_all(uint64_t *words, size_t n, nb_error *err)
{
    for (size_t at = 0; count > 1 && at < n; at += STEP) {
        int some = (int)(n - at < STEP ? n - at : STEP);
        NB_TRY(check(MPI_Allreduce(MPI_IN_PLACE, words + at, some, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD), "adding counts", err));
    }
    return NB_OK;
}

nb_status nb_ranks_share(void *data, size_t bytes, nb_error *err)
{
    for (size_t at = 0; count > 1 && at < bytes; at += STEP) {
        int some = (int)(bytes - at < STEP ? bytes - at : STEP);
        NB_TRY(check(MPI_Bcast((char *)data + at, some, MPI_BYTE, 0, MPI_COMM_WORLD), "sending results", err));
    }
    return NB_OK;
}

/* Maxima with their marks: MPI's own maximum may lose a NaN, so the order is made one of integers. */
static nb_status merge_max(float *max, size_t n, nb_error *err)
{
    int32_t *bits = NULL; /* of a float that is not negative: ordered as the values are, infinity and NaN above all */
    NB_TRY(nb_alloc(&bits, n, sizeof *bits, "maxima", err));
    memcpy(bits, max, n * sizeof *bits);
    for (size_t i = 0; i < n; i++) bits[i] &= 0x7fffffff;
    nb_status status = check(MPI_Reduce(mine ? bits : MPI_IN_PLACE, bits, (int)n, MPI_INT32_T, MPI_MAX, 0, MPI_COMM_WORLD), "comparing maxima", err);
    memcpy(max, bits, n * sizeof *bits);
    free(bits);
    return status;
}

nb_status nb_ranks_merge(nb_stats *s, nb_pool *pool, nb_error *err)
{
    size_t k = (size_t)s->k;
    if (count == 1) return NB_OK;
    nb_stats_carry(s, pool);
    NB_TRY(nb_ranks_sum((uint64_t *)s->sums.h, k * k, err));
    NB_TRY(nb_ranks_sum((uint64_t *)s->sums.diagonal, k, err));
    NB_TRY(nb_ranks_sum((uint64_t *)s->sums.sum_abs, 2 * k, err));
    NB_TRY(nb_ranks_sum(s->tokens, NB_TOKEN_KINDS, err));
    NB_TRY(merge_max(s->max_abs, k, err));
    nb_stats_carry(s, pool);
    return NB_OK;
}

#else

nb_status nb_ranks_start(nb_error *err)
{
    if (launched() && !(getenv("OMPI_COMM_WORLD_SIZE") && !strcmp(getenv("OMPI_COMM_WORLD_SIZE"), "1")))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "this nibble was built without MPI, and each process that mpirun starts would do all the "
                       "work; build it with -DNIBBLE_MPI=ON");
    return NB_OK;
}

void nb_ranks_stop(void)
{
}

void nb_ranks_abort(int exit_code)
{
    (void)exit_code;
}

nb_status nb_ranks_sum(uint64_t *words, size_t n, nb_error *err)
{
    (void)words, (void)n, (void)err;
    return NB_OK;
}

nb_status nb_ranks_sum_for_all(uint64_t *words, size_t n, nb_error *err)
{
    (void)words, (void)n, (void)err;
    return NB_OK;
}

nb_status nb_ranks_share(void *data, size_t bytes, nb_error *err)
{
    (void)data, (void)bytes, (void)err;
    return NB_OK;
}

nb_status nb_ranks_merge(nb_stats *s, nb_pool *pool, nb_error *err)
{
    (void)s, (void)pool, (void)err;
    return NB_OK;
}

#endif
