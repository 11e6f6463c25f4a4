/* stop.c - one flag, set by the signal handler and read by everyone. */
#include <signal.h>
#include <string.h>

#include "tools/cli/stop.h"

static volatile sig_atomic_t stop_signal;

static void on_signal(int number)
{
    if (stop_signal) { /* the second one, of either kind */
        signal(number, SIG_DFL);
        raise(number); /* delivered when this handler returns */
    }
    stop_signal = number;
}

static void install(int number)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = 0; /* no SA_RESTART: a read at the prompt gives up */
    sigaction(number, &action, NULL);
}

void nb_stop_install(void)
{
    install(SIGINT);
    install(SIGTERM);
}

bool nb_stop_requested(void)
{
    return stop_signal != 0;
}

int nb_stop_signal(void)
{
    return stop_signal;
}

nb_status nb_stop_status(nb_error *err)
{
    if (!stop_signal) return NB_OK;
    return nb_fail(err, NB_ERR_STOPPED, "stopped by %s", stop_signal == SIGINT ? "Ctrl-C (SIGINT)" : "SIGTERM");
}

void nb_stop_reset(void)
{
    stop_signal = 0;
    nb_stop_install();
}
