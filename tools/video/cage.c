/* cage.c - resource limits and a filter of system calls.
 *
 * The filter names what is allowed; everything else fails with EPERM instead of killing, so that a library that asks the
 * system something idle goes on without the answer.  It is left out on processors whose calls it does not know, and limits of
 * addresses and calls under sanitizers, which need more.
 */
#include "tools/video/cage.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

static bool limit(int resource, rlim_t most)
{
    struct rlimit r;
    if (getrlimit(resource, &r) != 0) return false;
    if (r.rlim_max == RLIM_INFINITY || r.rlim_max > most) r.rlim_max = most;
    r.rlim_cur = r.rlim_max;
    return setrlimit(resource, &r) == 0;
}

#if defined(ARCHITECTURE) && !defined(NB_SANITIZED)
/* False only when a filter is possible and refused; a kernel without filters is not a reason to read no videos. */
static bool filter_calls(void)
{
    static const int allowed[] = {
        SYS_read, SYS_pread64, SYS_write, SYS_writev, SYS_lseek, SYS_fstat, SYS_newfstatat, SYS_close, SYS_brk, SYS_mmap,
        SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_futex, SYS_getrandom, SYS_clock_gettime, SYS_gettimeofday,
        SYS_sched_getaffinity, SYS_sched_yield, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_restart_syscall,
        SYS_getpid, SYS_gettid, SYS_tgkill, SYS_exit, SYS_exit_group,
    };
    enum { COUNT = sizeof allowed / sizeof allowed[0] };
    struct sock_filter code[2 * COUNT + 5], *at = code;
    *at++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
    *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    *at++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < COUNT; i++) {
        *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], 0, 1);
        *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    struct sock_fprog program = {.len = (unsigned short)(at - code), .filter = code};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0 || errno == EINVAL || errno == ENOSYS;
}
#else
static bool filter_calls(void) { return true; }
#endif

bool nb_enter_cage(int64_t seconds, void (*out_of_time)(int signal))
{
    signal(SIGALRM, out_of_time);
    signal(SIGPIPE, SIG_DFL);
    alarm((unsigned)seconds);
    bool good = limit(RLIMIT_CPU, (rlim_t)seconds + 1);
#ifndef NB_SANITIZED
    good = good && limit(RLIMIT_AS, (rlim_t)2 << 30);
#endif
    good = good && limit(RLIMIT_CORE, 0) && limit(RLIMIT_FSIZE, 0) && limit(RLIMIT_NOFILE, 3) && limit(RLIMIT_NPROC, 0);
    good = good && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    return good && filter_calls();
}
