/* linkemu: joins two network namespaces by a link with a chosen one-way delay and rate.
 *
 *   linkemu NAMESPACE DEVICE ADDRESS  NAMESPACE DEVICE ADDRESS
 *
 * Each line on stdin is a new one-way delay in milliseconds and, if the link is to be a narrow one,
 * its rate each way in Mbit/s; the first line is waited for. At the end of stdin the link goes away. For kernels without sch_netem: packets pass through two TUN devices
 * and wait here, so any program and protocol works unchanged. Needs root.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define QUEUE 16384u /* packets under way in one direction; more are lost, as on a real link */
#define PACKET 1600
#define BURST 64
#define BUFFER 250000000u /* ns that a packet waits for a narrow link; more are lost */

typedef struct {
    uint64_t due;
    ssize_t length;
    unsigned char bytes[PACKET];
} packet;

typedef struct {
    packet *packets;
    unsigned head, tail;
    uint64_t last_due;
    uint64_t free_at; /* when all that was taken has been put on a narrow link */
} queue;

typedef struct {
    uint64_t delay;    /* ns */
    double byte_time;  /* ns, 0 if bytes take no time */
} shape;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* A TUN device in a namespace, with `own` address and a route to `peer`. */
static int make_end(const char *space, const char *device, const char *own, const char *peer) {
    char path[256], command[512];
    struct ifreq request = {0};
    int here = open("/proc/self/ns/net", O_RDONLY), there, tun;

    snprintf(path, sizeof path, "/var/run/netns/%s", space);
    there = open(path, O_RDONLY);
    if (here < 0 || there < 0 || setns(there, CLONE_NEWNET)) fail(path);
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    strncpy(request.ifr_name, device, IFNAMSIZ - 1);
    tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (tun < 0 || ioctl(tun, TUNSETIFF, &request)) fail("/dev/net/tun");
    snprintf(command, sizeof command,
             "ip link set lo up && ip addr add %s peer %s dev %s && "
             "ip link set %s mtu 1500 txqueuelen 4096 up",
             own, peer, device, device);
    if (system(command)) exit(1);
    if (setns(here, CLONE_NEWNET)) fail("setns");
    close(there);
    close(here);
    return tun;
}

/* Reads a delay and a rate, the last ones if several came; exits at the end of stdin. */
static shape read_shape(void) {
    char lines[256], *last;
    double delay = 0, rate = 0;
    ssize_t length = read(STDIN_FILENO, lines, sizeof lines);

    if (length <= 0) exit(0);
    lines[length - 1] = 0;
    last = strrchr(lines, '\n');
    sscanf(last ? last + 1 : lines, "%lf %lf", &delay, &rate);
    return (shape){(uint64_t)(delay * 1e6), rate > 0 ? 8e3 / rate : 0};
}

/* Writes what is due to the other end; when the next one is (0: nothing waits). */
static uint64_t deliver(queue *way, int to) {
    uint64_t time = now();

    for (; way->head != way->tail; way->head++) {
        packet *first = &way->packets[way->head % QUEUE];
        if (first->due > time) return first->due;
        if (write(to, first->bytes, (size_t)first->length) < 0) continue; /* lost */
    }
    return 0;
}

static void take(queue *way, int from, shape link) {
    for (int count = 0; count < BURST; count++) {
        unsigned char bytes[PACKET];
        ssize_t length = read(from, bytes, sizeof bytes);
        packet *last;
        uint64_t time = now(), begins = way->free_at > time ? way->free_at : time;

        if (length <= 0) return;
        if (begins - time > BUFFER) continue;
        way->free_at = begins + (uint64_t)((double)length * link.byte_time);
        if (way->tail - way->head >= QUEUE) continue;
        last = &way->packets[way->tail++ % QUEUE];
        memcpy(last->bytes, bytes, (size_t)length);
        last->length = length;
        last->due = way->free_at + link.delay;
        if (last->due < way->last_due) last->due = way->last_due; /* order is kept */
        way->last_due = last->due;
    }
}

int main(int count, char **words) {
    int ends[2];
    queue ways[2] = {{0}};
    shape link;

    if (count != 7) {
        fprintf(stderr, "usage: linkemu NAMESPACE DEVICE ADDRESS NAMESPACE DEVICE ADDRESS\n");
        return 2;
    }
    prctl(PR_SET_TIMERSLACK, 1);
    ends[0] = make_end(words[1], words[2], words[3], words[6]);
    ends[1] = make_end(words[4], words[5], words[6], words[3]);
    for (int way = 0; way < 2; way++) ways[way].packets = malloc(sizeof(packet) * QUEUE);
    printf("up\n");
    fflush(stdout);
    link = read_shape();
    for (;;) {
        struct pollfd waits[3] = {
            {ends[0], POLLIN, 0}, {ends[1], POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
        uint64_t next = 0, time;
        struct timespec left;

        for (int way = 0; way < 2; way++) {
            uint64_t due = deliver(&ways[way], ends[1 - way]);
            if (due && (!next || due < next)) next = due;
        }
        time = now();
        time = next > time ? next - time : 0;
        left = (struct timespec){(time_t)(time / 1000000000u), (long)(time % 1000000000u)};
        if (ppoll(waits, 3, next ? &left : NULL, NULL) < 0 && errno != EINTR) fail("ppoll");
        for (int way = 0; way < 2; way++)
            if (waits[way].revents & POLLIN) take(&ways[way], ends[way], link);
        if (waits[2].revents) link = read_shape();
    }
}
