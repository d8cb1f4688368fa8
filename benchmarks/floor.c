/*
 * The floor: what wiring one container costs when nothing but the kernel is in the way.
 *
 * Per container: a new network namespace, bind-mounted to a file; one batch of netlink messages on the host
 * (a veth pair, its host end on the bridge and up, its other end born in the namespace as eth0 with ifindex 2)
 * and one batch inside (lo up, eth0 addressed and up, default route). One queue per device, no IPv6
 * autoconfiguration. Everything happens in a private network and mount namespace, so it all goes with the process.
 *
 * Commands, one per line on stdin; the answer ends with a line "wall <us>":
 *   wire N     wires N more containers: a line "total namespace host inside" for each, in microseconds
 *   unwire N   unmounts and unlinks the N oldest namespaces: a line with the microseconds of each
 *
 * Every error of the kernel ends the program with a message and status 1.
 *
 * Build: cc -O2 -Wall -Wextra -o floor floor.c      Run as root.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DIRECTORY "/run/floor" /* on a tmpfs of our own */
#define BRIDGE "bridge"
#define MTU 1500
#define GROUP 0x66c0
#define PREFIX 16
#define SUBNET 0x0a580000u /* 10.88.0.0 */
#define GATEWAY (SUBNET + 1)
#define LO_INDEX 1
#define PEER_INDEX 2 /* the first device in an empty namespace after lo */
#define PATH_LENGTH 64

static void die(const char *format, ...)
{
    va_list arguments;
    int error = errno;
    va_start(arguments, format);
    fputs("floor: ", stderr);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, ": %s\n", strerror(error));
    exit(1);
}

static double now_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

/* ---- a batch of netlink messages ---- */

static struct {
    char bytes[8192];
    size_t length;
    struct nlmsghdr *message; /* the one being filled */
    unsigned sequence;
} batch;

static void *reserve(size_t size)
{
    void *place = batch.bytes + batch.length;
    size_t aligned = NLMSG_ALIGN(size);
    if (batch.length + aligned > sizeof batch.bytes) {
        errno = EMSGSIZE;
        die("netlink batch");
    }
    memset(place, 0, aligned);
    batch.length += aligned;
    if (batch.message)
        batch.message->nlmsg_len += aligned;
    return place;
}

static void begin(int type, int flags)
{
    batch.message = NULL;
    struct nlmsghdr *header = reserve(sizeof *header);
    header->nlmsg_len = sizeof *header;
    header->nlmsg_type = type;
    header->nlmsg_flags = NLM_F_REQUEST | flags;
    header->nlmsg_seq = ++batch.sequence;
    batch.message = header;
}

static struct rtattr *put(int type, const void *value, size_t size)
{
    struct rtattr *attribute = reserve(RTA_LENGTH(size));
    attribute->rta_type = type;
    attribute->rta_len = RTA_LENGTH(size);
    if (size)
        memcpy(RTA_DATA(attribute), value, size);
    return attribute;
}

static void put_u32(int type, unsigned value) { put(type, &value, sizeof value); }
static void put_text(int type, const char *text) { put(type, text, strlen(text) + 1); }
static struct rtattr *nest(int type) { return put(type, NULL, 0); }
static void nest_end(struct rtattr *outer) { outer->rta_len = batch.bytes + batch.length - (char *)outer; }

static struct ifinfomsg *begin_link(int type, int flags, int index, unsigned state)
{
    begin(type, flags);
    struct ifinfomsg *link = reserve(sizeof *link);
    link->ifi_index = index;
    link->ifi_flags = link->ifi_change = state;
    return link;
}

/* Send the batch in one call. Only its last message asks for an acknowledgement; errors are reported in any case. */
static void send_batch(int socket, const char *what)
{
    char answer[8192];
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    struct iovec parts = {batch.bytes, batch.length};
    struct msghdr message = {.msg_name = &kernel, .msg_namelen = sizeof kernel, .msg_iov = &parts, .msg_iovlen = 1};
    unsigned last = batch.message->nlmsg_seq;

    batch.message->nlmsg_flags |= NLM_F_ACK;
    if (sendmsg(socket, &message, 0) != (ssize_t)batch.length)
        die("%s: sendmsg", what);
    batch.length = 0;
    batch.message = NULL;
    for (;;) {
        ssize_t received = recv(socket, answer, sizeof answer, 0);
        if (received < 0)
            die("%s: recv", what);
        int left = received;
        for (struct nlmsghdr *head = (void *)answer; NLMSG_OK(head, left); head = NLMSG_NEXT(head, left)) {
            struct nlmsgerr *result = NLMSG_DATA(head);
            if (head->nlmsg_type != NLMSG_ERROR)
                continue;
            if (result->error) {
                errno = -result->error;
                die("%s: message %u from the end of its batch", what, last - head->nlmsg_seq);
            }
            if (head->nlmsg_seq == last)
                return;
        }
    }
}

static int netlink_open(void)
{
    int socket_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (socket_fd < 0)
        die("netlink socket");
    return socket_fd;
}

/* ---- messages ---- */

static void no_ipv6_autoconfiguration(const char *name, int index)
{
    unsigned char mode = IN6_ADDR_GEN_MODE_NONE;
    begin_link(RTM_SETLINK, 0, index, 0);
    if (name)
        put_text(IFLA_IFNAME, name);
    struct rtattr *families = nest(IFLA_AF_SPEC);
    struct rtattr *inet6 = nest(AF_INET6);
    put(IFLA_INET6_ADDR_GEN_MODE, &mode, sizeof mode);
    nest_end(inet6);
    nest_end(families);
}

static void add_address(int index, unsigned address)
{
    unsigned wire = htonl(address);
    begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
    struct ifaddrmsg *header = reserve(sizeof *header);
    header->ifa_family = AF_INET;
    header->ifa_prefixlen = PREFIX;
    header->ifa_index = index;
    put(IFA_LOCAL, &wire, sizeof wire);
    put(IFA_ADDRESS, &wire, sizeof wire);
}

static void add_default_route(int index)
{
    unsigned gateway = htonl(GATEWAY);
    begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
    struct rtmsg *header = reserve(sizeof *header);
    header->rtm_family = AF_INET;
    header->rtm_table = RT_TABLE_MAIN;
    header->rtm_protocol = RTPROT_STATIC;
    header->rtm_scope = RT_SCOPE_UNIVERSE;
    header->rtm_type = RTN_UNICAST;
    put(RTA_GATEWAY, &gateway, sizeof gateway);
    put_u32(RTA_OIF, index);
}

static void put_link_shape(void)
{
    put_u32(IFLA_MTU, MTU);
    put_u32(IFLA_NUM_TX_QUEUES, 1);
    put_u32(IFLA_NUM_RX_QUEUES, 1);
}

static void add_veth(unsigned number, int bridge, int namespace, unsigned address)
{
    char name[IFNAMSIZ];
    unsigned char mac[6] = {0x02, 0x42};
    unsigned wire = htonl(address);
    memcpy(mac + 2, &wire, sizeof wire);
    snprintf(name, sizeof name, "floor%u", number);

    begin_link(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0, IFF_UP);
    put_text(IFLA_IFNAME, name);
    put_u32(IFLA_MASTER, bridge);
    put_u32(IFLA_GROUP, GROUP);
    put_link_shape();
    struct rtattr *info = nest(IFLA_LINKINFO);
    put(IFLA_INFO_KIND, "veth", 4);
    struct rtattr *data = nest(IFLA_INFO_DATA);
    struct rtattr *peer = nest(VETH_INFO_PEER);
    struct ifinfomsg *link = reserve(sizeof *link);
    link->ifi_index = PEER_INDEX;
    put_text(IFLA_IFNAME, "eth0");
    put(IFLA_ADDRESS, mac, sizeof mac);
    put_u32(IFLA_NET_NS_FD, namespace);
    put_link_shape();
    nest_end(peer);
    nest_end(data);
    nest_end(info);
    no_ipv6_autoconfiguration(name, 0);
}

/* ---- a host, and containers on it ---- */

static struct {
    int namespace, socket, bridge;
    unsigned first, next; /* containers first .. next - 1 exist */
} host;

static void path_of(char *path, unsigned number) { snprintf(path, PATH_LENGTH, DIRECTORY "/%u", number); }

static void host_open(void)
{
    if (unshare(CLONE_NEWNET | CLONE_NEWNS))
        die("unshare");
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("tmpfs", "/run", "tmpfs", 0, NULL))
        die("mount");
    if (mkdir(DIRECTORY, 0700))
        die("mkdir " DIRECTORY);
    host.namespace = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (host.namespace < 0)
        die("own namespace");
    host.socket = netlink_open();
    begin_link(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0, 0);
    put_text(IFLA_IFNAME, BRIDGE);
    put_u32(IFLA_MTU, MTU);
    struct rtattr *info = nest(IFLA_LINKINFO);
    put(IFLA_INFO_KIND, "bridge", 6);
    nest_end(info);
    send_batch(host.socket, "bridge");
    host.bridge = if_nametoindex(BRIDGE);
    no_ipv6_autoconfiguration(NULL, host.bridge);
    add_address(host.bridge, GATEWAY);
    begin_link(RTM_NEWLINK, 0, host.bridge, IFF_UP);
    begin_link(RTM_NEWLINK, 0, LO_INDEX, IFF_UP);
    send_batch(host.socket, "host");
}

static void wire(unsigned number)
{
    char path[PATH_LENGTH];
    unsigned address = SUBNET + 2 + number % 65533;
    path_of(path, number);
    double start = now_us();

    int file = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
    if (file < 0 || close(file))
        die("%s", path);
    if (unshare(CLONE_NEWNET))
        die("unshare");
    if (mount("/proc/thread-self/ns/net", path, NULL, MS_BIND, NULL))
        die("mount %s", path);
    int namespace = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (namespace < 0)
        die("namespace");
    int socket = netlink_open();
    if (setns(host.namespace, CLONE_NEWNET))
        die("setns");
    double namespace_done = now_us();

    add_veth(number, host.bridge, namespace, address);
    send_batch(host.socket, "veth");
    double host_done = now_us();

    begin_link(RTM_NEWLINK, 0, LO_INDEX, IFF_UP);
    no_ipv6_autoconfiguration(NULL, PEER_INDEX);
    add_address(PEER_INDEX, address);
    begin_link(RTM_NEWLINK, 0, PEER_INDEX, IFF_UP);
    add_default_route(PEER_INDEX);
    send_batch(socket, "inside");
    if (close(socket) || close(namespace))
        die("close");
    double end = now_us();
    printf("%.1f %.1f %.1f %.1f\n", end - start, namespace_done - start, host_done - namespace_done, end - host_done);
}

static void unwire(unsigned number)
{
    char path[PATH_LENGTH];
    path_of(path, number);
    double start = now_us();
    if (umount2(path, MNT_DETACH))
        die("umount %s", path);
    if (unlink(path))
        die("unlink %s", path);
    printf("%.1f\n", now_us() - start);
}

int main(void)
{
    char line[128], command[16];
    unsigned count;
    static char output[1 << 18];

    setvbuf(stdout, output, _IOFBF, sizeof output); /* no write between two containers */
    host_open();
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        errno = EINVAL;
        if (sscanf(line, "%15s %u", command, &count) != 2)
            die("command %s", line);
        double start = now_us();
        if (!strcmp(command, "wire"))
            while (count--)
                wire(host.next++);
        else if (!strcmp(command, "unwire"))
            while (count-- && host.first < host.next)
                unwire(host.first++);
        else
            die("command %s", command);
        printf("wall %.1f\n", now_us() - start);
        fflush(stdout);
    }
    while (host.first < host.next)
        unwire(host.first++);
    return 0;
}
