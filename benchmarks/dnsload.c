/* A client that keeps a number of DNS questions open, from one or several network namespaces.
 *
 *     dnsload SECONDS OPEN SERVER NAME... -- [NAMESPACE...]
 *
 * Asks for A records of the names in turn, over a UDP socket in each namespace in turn (none: where it is),
 * with OPEN questions under way in all. Prints: answers, seconds, median, 99th percentile and maximum in
 * microseconds, lost, wrong (an rcode, or no answer in it). A question is lost after a second.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { NAMES = 4096, SOCKETS = 4096, IDS = 65536, SLOTS = 1 << 20 };

static unsigned char queries[NAMES][300];
static int lengths[NAMES], names, sockets[SOCKETS], count;
static int64_t started[IDS];          /* nanoseconds; 0: not under way */
static unsigned histogram[SLOTS + 1]; /* of microseconds */
static long answers, lost, wrong;
static unsigned next_id, next_name, next_socket;

static void fail(const char *what) {
    fprintf(stderr, "dnsload: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void add_name(const char *name) {
    unsigned char *q = queries[names], *at = q + 12;
    memset(q, 0, 12);
    q[2] = 1; /* recursion desired */
    q[5] = 1; /* one question */
    while (*name) {
        size_t n = strcspn(name, ".");
        *at++ = (unsigned char)n;
        memcpy(at, name, n);
        at += n;
        name += n + (name[n] == '.');
    }
    memcpy(at, "\0\0\1\0\1", 5);
    lengths[names++] = (int)(at + 5 - q);
}

static void add_socket(const char *netns, const char *server) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(53)};
    if (netns) {
        int ns = open(netns, O_RDONLY | O_CLOEXEC);
        if (ns < 0 || setns(ns, CLONE_NEWNET)) fail(netns);
        close(ns);
    }
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int bytes = 1 << 20;
    inet_pton(AF_INET, server, &to.sin_addr);
    setsockopt(s, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    if (s < 0 || connect(s, (struct sockaddr *)&to, sizeof to)) fail(server);
    sockets[count++] = s;
}

static void ask(void) {
    do next_id = (next_id + 1) % IDS; while (started[next_id]);
    unsigned char *q = queries[next_name];
    q[0] = (unsigned char)(next_id >> 8);
    q[1] = (unsigned char)next_id;
    started[next_id] = now();
    if (send(sockets[next_socket], q, (size_t)lengths[next_name], 0) < 0 && errno != ECONNREFUSED && errno != EAGAIN)
        fail("send");
    next_name = (next_name + 1) % (unsigned)names;
    next_socket = (next_socket + 1) % (unsigned)count;
}

static void take(const unsigned char *reply, ssize_t n) {
    unsigned id = (unsigned)(reply[0] << 8 | reply[1]);
    if (n < 12 || !started[id]) return; /* came too late */
    int64_t us = (now() - started[id]) / 1000;
    started[id] = 0;
    histogram[us < SLOTS ? us : SLOTS]++;
    answers++;
    wrong += (reply[3] & 15) != 0 || (reply[6] | reply[7]) == 0;
    ask();
}

static unsigned percentile(double part) {
    long seen = 0, wanted = (long)(part * (double)answers + 0.5);
    for (unsigned us = 0; us <= SLOTS; us++)
        if ((seen += histogram[us]) >= wanted) return us;
    return SLOTS;
}

int main(int argc, char **argv) {
    if (argc < 6) return fprintf(stderr, "usage: dnsload SECONDS OPEN SERVER NAME... -- [NAMESPACE...]\n"), 2;
    int at = 4, open_ = atoi(argv[2]);
    while (at < argc && strcmp(argv[at], "--") && names < NAMES) add_name(argv[at++]);
    if (++at >= argc) add_socket(NULL, argv[3]);
    while (at < argc && count < SOCKETS) add_socket(argv[at++], argv[3]);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < count; i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.fd = sockets[i]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, sockets[i], &e);
    }
    int64_t begin = now(), end = begin + (int64_t)(atof(argv[1]) * 1e9), swept = begin;
    for (int i = 0; i < open_; i++) ask();
    while (now() < end) {
        struct epoll_event events[256];
        int n = epoll_wait(epoll, events, 256, 100);
        for (int i = 0; i < n; i++) {
            unsigned char reply[65536];
            ssize_t size;
            while ((size = recv(events[i].data.fd, reply, sizeof reply, 0)) > 0) take(reply, size);
        }
        if (now() - swept < 100000000) continue;
        swept = now();
        for (int id = 0; id < IDS; id++)
            if (started[id] && swept - started[id] > 1000000000) started[id] = 0, lost++, ask();
    }
    double seconds = (double)(now() - begin) / 1e9;
    printf("%ld %.4f %u %u %u %ld %ld\n", answers, seconds, percentile(0.5), percentile(0.99), percentile(1.0), lost, wrong);
    return 0;
}
