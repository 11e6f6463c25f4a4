/* guard.c - a list of sockets, one thread, one poll() per round over those that are waited for. */
#include "tools/serve/guard.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

enum { ROUND_MS = 200, TICK_ROUNDS = 5 };

struct nb_peer {
    int      fd;
    double   deadline; /* nb_seconds; 0: none */
    bool     shut, told;
    void    *subject;
    nb_peer *next, *before;
};

struct nb_guard {
    pthread_mutex_t lock;
    pthread_cond_t  wake;
    pthread_t       thread;
    nb_peer        *first;
    int             count;
    bool            stopping;
    void          (*gone)(void *subject);
    void          (*tick)(void *subject);
};

static bool hung_up(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

static void look(nb_guard *g, nb_peer *p, bool tick, double now)
{
    if (p->deadline > 0 && now > p->deadline && !p->shut) {
        shutdown(p->fd, SHUT_RDWR);
        p->shut = true;
    }
    if (!p->subject) return;
    if (!p->told && hung_up(p->fd)) {
        p->told = true;
        g->gone(p->subject);
    } else if (tick) {
        g->tick(p->subject);
    }
}

static void *guard_main(void *argument)
{
    nb_guard *g = argument;
    pthread_mutex_lock(&g->lock);
    for (unsigned round = 0; !g->stopping; round++) {
        double          now = nb_seconds();
        struct timespec until;
        for (nb_peer *p = g->first; p; p = p->next) look(g, p, round % TICK_ROUNDS == 0, now);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += ROUND_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&g->wake, &g->lock, &until);
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

nb_status nb_guard_new(nb_guard **out, void (*gone)(void *subject), void (*tick)(void *subject), nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "the guard of connections", err));
    nb_guard *g = *out;
    g->gone = gone;
    g->tick = tick;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->wake, NULL);
    if (pthread_create(&g->thread, NULL, guard_main, g) == 0) return NB_OK;
    pthread_cond_destroy(&g->wake);
    pthread_mutex_destroy(&g->lock);
    free(g);
    *out = NULL;
    return nb_fail(err, NB_ERR_IO, "the system gives no more threads");
}

void nb_guard_free(nb_guard *g)
{
    if (!g) return;
    pthread_mutex_lock(&g->lock);
    g->stopping = true;
    pthread_cond_signal(&g->wake);
    pthread_mutex_unlock(&g->lock);
    pthread_join(g->thread, NULL);
    for (nb_peer *p = g->first, *next; p; p = next) {
        next = p->next;
        free(p);
    }
    pthread_cond_destroy(&g->wake);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

nb_peer *nb_guard_add(nb_guard *g, int fd, double seconds)
{
    nb_peer *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->fd = fd;
    p->deadline = seconds > 0 ? nb_seconds() + seconds : 0;
    pthread_mutex_lock(&g->lock);
    p->next = g->first;
    if (g->first) g->first->before = p;
    g->first = p;
    g->count++;
    pthread_mutex_unlock(&g->lock);
    return p;
}

void nb_guard_remove(nb_guard *g, nb_peer *p)
{
    if (!p) return;
    pthread_mutex_lock(&g->lock);
    *(p->before ? &p->before->next : &g->first) = p->next;
    if (p->next) p->next->before = p->before;
    g->count--;
    pthread_mutex_unlock(&g->lock);
    free(p);
}

void nb_guard_deadline(nb_guard *g, nb_peer *p, double seconds)
{
    if (!p) return;
    pthread_mutex_lock(&g->lock);
    p->deadline = seconds > 0 ? nb_seconds() + seconds : 0;
    pthread_mutex_unlock(&g->lock);
}

void nb_guard_watch(nb_guard *g, nb_peer *p, void *subject)
{
    if (!p) return;
    pthread_mutex_lock(&g->lock);
    p->subject = subject;
    p->told = false;
    pthread_mutex_unlock(&g->lock);
}
