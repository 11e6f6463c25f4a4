/* lane.c - a ring of jobs, a mutex and two conditions: a lane is used some times a second, not a million. */
#include "kernels/lane.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    nb_lane_job *run;
    void        *context;
    size_t       item;
} lane_job;

struct nb_lane {
    pthread_t       thread;
    pthread_mutex_t lock;
    pthread_cond_t  given_more, done_more;
    lane_job        jobs[NB_LANE_JOBS]; /* job t at t % NB_LANE_JOBS */
    size_t          given, done;        /* tickets */
    bool            quit;
    nb_status       status; /* the first failure */
    nb_error        error;
};

static void *lane_main(void *argument)
{
    nb_lane *l = argument;
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (l->done == l->given && !l->quit) pthread_cond_wait(&l->given_more, &l->lock);
        if (l->done == l->given) break;
        lane_job  job = l->jobs[l->done % NB_LANE_JOBS];
        bool      failed = l->status != NB_OK;
        nb_error  err = {0};
        pthread_mutex_unlock(&l->lock);
        nb_status status = failed ? NB_OK : job.run(job.context, job.item, &err);
        pthread_mutex_lock(&l->lock);
        if (status) {
            l->status = status;
            l->error = err;
        }
        l->done++;
        pthread_cond_broadcast(&l->done_more);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

nb_status nb_lane_new(nb_lane **out, nb_error *err)
{
    nb_lane *l;
    sigset_t all, before;
    *out = NULL;
    NB_TRY(nb_alloc(&l, 1, sizeof *l, "a thread", err));
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->given_more, NULL);
    pthread_cond_init(&l->done_more, NULL);
    sigfillset(&all); /* signals are the business of the thread that the program waits in */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(&l->thread, NULL, lane_main, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure) {
        free(l);
        return nb_fail(err, NB_ERR_IO, "cannot start a thread for reading and writing: %s", strerror(failure));
    }
    *out = l;
    return NB_OK;
}

size_t nb_lane_give(nb_lane *l, nb_lane_job *job, void *context, size_t item)
{
    pthread_mutex_lock(&l->lock);
    while (l->given - l->done == NB_LANE_JOBS) pthread_cond_wait(&l->done_more, &l->lock);
    l->jobs[l->given % NB_LANE_JOBS] = (lane_job){ job, context, item };
    size_t ticket = ++l->given;
    pthread_cond_signal(&l->given_more);
    pthread_mutex_unlock(&l->lock);
    return ticket;
}

nb_status nb_lane_wait(nb_lane *l, size_t ticket, nb_error *err)
{
    pthread_mutex_lock(&l->lock);
    while (l->done < ticket) pthread_cond_wait(&l->done_more, &l->lock);
    nb_status status = l->status;
    if (status && err) *err = l->error;
    pthread_mutex_unlock(&l->lock);
    return status;
}

void nb_lane_free(nb_lane *l)
{
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->quit = true;
    pthread_cond_signal(&l->given_more);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    pthread_cond_destroy(&l->given_more);
    pthread_cond_destroy(&l->done_more);
    pthread_mutex_destroy(&l->lock);
    free(l);
}
