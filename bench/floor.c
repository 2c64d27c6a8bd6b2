/*
 * floor: the least a cluster can cost. The benchmark's topology in plain C, timed; no library, no root.
 * Rules: one netlink sendmsg per namespace, every kernel answer checked, nothing left when the process ends.
 * Not here: what netwarren adds on top (names, handles, undo), nor any way to use the cluster.
 *
 *   gcc -O2 -Wall -Wextra -std=c99 -o floor bench/floor.c
 *   ./floor --clusters 100 --nodes 1 --pods 3 --release now|end|batch:R
 *   ./floor --clusters 1 --nodes 50 --spread 1000 --adding 100
 *   ./floor --clusters 1 --steps 100
 *
 *   root   br0 172.18.0.1/16, a port veth{100+n} for each node, route 10.0.n.0/24 via 172.18.0.n
 *   node n eth0 172.18.0.n/16, default via 172.18.0.1, every other node's 10.0.m.0/24 via 172.18.0.m,
 *          unreachable 10.0.n.0/24; for each pod veth{100+p} 10.0.n.1/32 and route 10.0.n.p/32
 *   pod p  eth0 10.0.n.p/24 noprefixroute, 10.0.n.1 on the link, all else via 10.0.n.1
 *
 * Nodes and pods are numbered from 2, as .1 is the bridge's and the node's own address. --spread is the number of pods
 * of all nodes together, --pods that of each. --adding has pods added to the last cluster and removed again, one by
 * one; --steps has the thread step into a pod and back, a thousand times for each figure; --pause waits, as a test
 * would do something, before each cluster but the first.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    LO = 1,        /* the kernel's own index for lo */
    FIRST = 100,   /* ours start well above the tunl0, sit0, ... some kernels put in every new namespace */
    NUMBER = 2,    /* the first node's and the first pod's number */
    MOST = 253,    /* nodes, or pods of a node: numbers 2 to 254 */
    PORT = 8080,
};

#define IP4(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))
#define BRIDGE IP4(172, 18, 0, 1)
#define NODE(n) IP4(172, 18, 0, n)
#define RANGE(n) IP4(10, 0, n, 0)
#define GATEWAY(n) IP4(10, 0, n, 1)
#define POD(n, p) IP4(10, 0, n, p)

struct netns {
    int handle, netlink;   /* the one keeps it alive, the other was opened inside and speaks for it from anywhere */
};

static int node_count = 1, pod_count = 3;   /* of each cluster; the pods of all nodes together */

/* Pods are dealt out to the nodes in turn; node k (from 0) and its pods follow one another in the array. */
static int pods_on(int k) { return pod_count / node_count + (k < pod_count % node_count); }

static int home;   /* where this thread stands when it is not making a namespace */

static void fail(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("floor: ", stderr);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, ": %s\n", strerror(error));
    exit(1);
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        fail(errno, "open %s", path);
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        fail(errno, "write '%s' to %s", text, path);
    close(fd);
}

/* ---- one batch: the messages of one namespace, sent together ---- */

static struct {
    char bytes[192 * 1024] __attribute__((aligned(4)));   /* 253 pods and 253 nodes: 85 KiB; the send buffer: 208 */
    size_t length;
    struct nlmsghdr *message;   /* the one being written */
    uint32_t count;             /* also the sequence number, from 1 */
    const char *steps[4 * MOST + 16];
    unsigned int link_flags;    /* what the last RTM_GETLINK was answered */
} batch;

static void append(const void *data, size_t length)
{
    size_t room = NLMSG_ALIGN(length);
    if (batch.length + room > sizeof batch.bytes)
        fail(EMSGSIZE, "netlink batch");
    memset(batch.bytes + batch.length, 0, room);
    if (data)
        memcpy(batch.bytes + batch.length, data, length);
    batch.length += room;
    batch.message->nlmsg_len = (uint32_t)((batch.bytes + batch.length) - (char *)batch.message);
}

static void message(const char *step, uint16_t type, uint16_t flags, const void *header, size_t length)
{
    struct nlmsghdr h = {.nlmsg_type = type, .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags)};
    batch.message = (struct nlmsghdr *)(void *)(batch.bytes + batch.length);
    batch.steps[batch.count++] = step;
    h.nlmsg_seq = batch.count;
    append(&h, sizeof h);
    append(header, length);
}

static void attribute(uint16_t type, const void *data, size_t length)
{
    struct nlattr a = {.nla_len = (uint16_t)(sizeof(struct nlattr) + length), .nla_type = type};
    append(&a, sizeof a);
    append(data, length);
}

static void attribute_u32(uint16_t type, uint32_t value) { attribute(type, &value, sizeof value); }
static void attribute_ip(uint16_t type, uint32_t address) { attribute_u32(type, htonl(address)); }
static void attribute_text(uint16_t type, const char *text) { attribute(type, text, strlen(text) + 1); }

static struct nlattr *nest(uint16_t type)
{
    struct nlattr *start = (struct nlattr *)(void *)(batch.bytes + batch.length);
    attribute(type, NULL, 0);
    return start;
}

static void end_nest(struct nlattr *start)
{
    start->nla_len = (uint16_t)(batch.bytes + batch.length - (char *)start);
}

/* Only the last message asks for an acknowledgement: the kernel works through a batch in order, answers a failed
 * message unasked, and has done all of it when sendmsg returns. */
static void send_batch(const struct netns *ns, const char *where)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    struct iovec all = {batch.bytes, batch.length};
    struct msghdr m = {.msg_name = &kernel, .msg_namelen = sizeof kernel, .msg_iov = &all, .msg_iovlen = 1};
    char answers[8192] __attribute__((aligned(4)));
    uint32_t last = batch.count, answered = 0;

    batch.message->nlmsg_flags |= NLM_F_ACK;
    if (sendmsg(ns->netlink, &m, 0) != (ssize_t)batch.length)
        fail(errno, "%s: sendmsg", where);
    while (answered != last) {
        ssize_t got = recv(ns->netlink, answers, sizeof answers, 0);
        if (got < 0)
            fail(errno, "%s: recv", where);
        size_t rest = (size_t)got;
        for (struct nlmsghdr *h = (struct nlmsghdr *)(void *)answers; NLMSG_OK(h, rest); h = NLMSG_NEXT(h, rest)) {
            const struct nlmsgerr *e = NLMSG_DATA(h);
            if (h->nlmsg_type == RTM_NEWLINK) {
                batch.link_flags = ((const struct ifinfomsg *)NLMSG_DATA(h))->ifi_flags;
                continue;
            }
            if (h->nlmsg_type != NLMSG_ERROR || h->nlmsg_seq < 1 || h->nlmsg_seq > last)
                fail(EPROTO, "%s: unexpected netlink answer of type %d", where, h->nlmsg_type);
            if (e->error)
                fail(-e->error, "%s: %s (message %u of %u)", where, batch.steps[h->nlmsg_seq - 1], h->nlmsg_seq, last);
            answered = h->nlmsg_seq;
        }
    }
    batch.length = 0;
    batch.count = 0;
}

/* ---- the verbs; each adds one message to the batch ---- */

/* ip link set INDEX up */
static void link_up(int index)
{
    struct ifinfomsg i = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    message("link set up", RTM_NEWLINK, 0, &i, sizeof i);
}

/* ip link show INDEX, until it says LOWER_UP and can send (sends the batch at once)
 * The end of a veth pair that came up first drops all it is given until the kernel's link watch has run, soon but in
 * the background; the first ARP request or SYN then is lost and costs a second. Asking makes Linux 6.8 and later run
 * the watch right now; an earlier kernel is asked until it has. */
static void link_await(const struct netns *ns, int index, const char *where)
{
    struct ifinfomsg i = {.ifi_index = index};
    double patience = now_ms() + 5000;
    do {
        message("link show", RTM_GETLINK, 0, &i, sizeof i);
        attribute_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        send_batch(ns, where);
        if (now_ms() > patience)
            fail(ETIMEDOUT, "%s: link %d to run", where, index);
    } while (!(batch.link_flags & IFF_RUNNING));
}

/* ip link add NAME index INDEX up type bridge */
static void bridge_add(int index, const char *name)
{
    struct ifinfomsg i = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    message("link add type bridge", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &i, sizeof i);
    attribute_text(IFLA_IFNAME, name);
    struct nlattr *info = nest(IFLA_LINKINFO);
    attribute(IFLA_INFO_KIND, "bridge", 6);
    end_nest(info);
}

/* ip link add veth{INDEX} index INDEX [master MASTER] up numtxqueues 1 numrxqueues 1 type veth
 *    peer name eth0 index FIRST netns PEER numtxqueues 1 numrxqueues 1
 * The peer cannot be born up (ENOTCONN); its own namespace's batch sets it up. */
static void veth_add(int index, int master, const struct netns *peer)
{
    struct ifinfomsg i = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct ifinfomsg other = {.ifi_index = FIRST};
    char name[IFNAMSIZ];
    snprintf(name, sizeof name, "veth%d", index);

    message("link add type veth", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &i, sizeof i);
    attribute_text(IFLA_IFNAME, name);
    attribute_u32(IFLA_NUM_TX_QUEUES, 1);
    attribute_u32(IFLA_NUM_RX_QUEUES, 1);
    if (master)
        attribute_u32(IFLA_MASTER, (uint32_t)master);
    struct nlattr *info = nest(IFLA_LINKINFO);
    attribute(IFLA_INFO_KIND, "veth", 4);
    struct nlattr *data = nest(IFLA_INFO_DATA);
    struct nlattr *end = nest(VETH_INFO_PEER);
    append(&other, sizeof other);
    attribute_text(IFLA_IFNAME, "eth0");
    attribute_u32(IFLA_NUM_TX_QUEUES, 1);
    attribute_u32(IFLA_NUM_RX_QUEUES, 1);
    attribute_u32(IFLA_NET_NS_FD, (uint32_t)peer->handle);
    end_nest(end);
    end_nest(data);
    end_nest(info);
}

/* ip address add ADDRESS/PREFIX dev INDEX [noprefixroute] */
static void address_add(int index, uint32_t address, uint8_t prefix, uint32_t flags)
{
    struct ifaddrmsg a = {.ifa_family = AF_INET, .ifa_prefixlen = prefix, .ifa_index = (uint32_t)index};
    message("address add", RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &a, sizeof a);
    attribute_ip(IFA_LOCAL, address);
    attribute_ip(IFA_ADDRESS, address);
    if (flags)
        attribute_u32(IFA_FLAGS, flags);
}

/* ip route add [unreachable] TO/PREFIX [via VIA] [dev INDEX] [src SRC]; the scope follows: "link" without a gateway */
static void route_add(const char *step, uint8_t type, uint32_t to, uint8_t prefix, uint32_t via, int index,
                      uint32_t src)
{
    struct rtmsg r = {
        .rtm_family = AF_INET, .rtm_dst_len = prefix, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_BOOT,
        .rtm_scope = via || type != RTN_UNICAST ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK, .rtm_type = type};
    message(step, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &r, sizeof r);
    if (prefix)
        attribute_ip(RTA_DST, to);
    if (via)
        attribute_ip(RTA_GATEWAY, via);
    if (index)
        attribute_u32(RTA_OIF, (uint32_t)index);
    if (src)
        attribute_ip(RTA_PREFSRC, src);
}

/* ---- namespaces ---- */

static int handle_of_current(void)
{
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail(errno, "open /proc/thread-self/ns/net");
    return fd;
}

/* nsenter --net=HANDLE */
static void enter(int handle)
{
    if (setns(handle, CLONE_NEWNET))
        fail(errno, "setns");
}

/* ip netns add; ip netns exec sysctl -w ... (without a name, and /proc/sys/net is that of whoever opens it) */
static struct netns netns_new(int forwards)
{
    struct netns ns;
    int on = 1;
    if (unshare(CLONE_NEWNET))
        fail(errno, "unshare(CLONE_NEWNET)");
    ns.handle = handle_of_current();
    ns.netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (ns.netlink < 0)
        fail(errno, "netlink socket");
    if (setsockopt(ns.netlink, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on))
        fail(errno, "netlink socket option NETLINK_CAP_ACK");
    write_file("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1");
    if (forwards) {
        write_file("/proc/sys/net/ipv4/ip_forward", "1");
        write_file("/proc/sys/net/ipv4/conf/all/rp_filter", "0");
        write_file("/proc/sys/net/ipv4/conf/default/rp_filter", "0");
    }
    return ns;
}

/* ip netns delete: the namespace, and all in it, dies with its last descriptor */
static void netns_release(const struct netns *ns, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        close(ns[i].netlink);
        close(ns[i].handle);
    }
}

/* unshare --user --mount --net, every id mapped to itself */
static void enter_sandbox(void)
{
    char map[64];
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET))
        fail(errno, "unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET)");
    write_file("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "%u %u 1", uid, uid);
    write_file("/proc/self/uid_map", map);
    snprintf(map, sizeof map, "%u %u 1", gid, gid);
    write_file("/proc/self/gid_map", map);
    home = handle_of_current();
}

/* ---- one cluster: root, then each node followed by its pods ---- */

static size_t cluster_size(void) { return 1 + (size_t)node_count + (size_t)pod_count; }

static struct netns *node_of(struct netns *root, int k)
{
    int more = pod_count % node_count;
    return root + 1 + k * (1 + pod_count / node_count) + (k < more ? k : more);
}

/* The end of pod p of node n that the node holds; and, with the link there, the pod's own. */
static void pod_port(int n, int p, const struct netns *pod)
{
    veth_add(FIRST + p, 0, pod);
    address_add(FIRST + p, GATEWAY(n), 32, 0);
    route_add("route add to a pod", RTN_UNICAST, POD(n, p), 32, 0, FIRST + p, 0);
}

static void pod_build(const struct netns *node, int n, int p, const struct netns *pod)
{
    char where[48];
    link_up(LO);
    link_up(FIRST);
    address_add(FIRST, POD(n, p), 24, IFA_F_NOPREFIXROUTE);
    route_add("route add to the gateway", RTN_UNICAST, GATEWAY(n), 32, 0, FIRST, POD(n, p));
    route_add("route add to the range", RTN_UNICAST, RANGE(n), 24, GATEWAY(n), FIRST, POD(n, p));
    route_add("route add default", RTN_UNICAST, 0, 0, GATEWAY(n), FIRST, 0);
    snprintf(where, sizeof where, "pod %d on node %d", p, n);
    send_batch(pod, where);
    link_await(node, FIRST + p, where);
}

static void cluster_build(struct netns *root)
{
    char where[48];
    int nodes = node_count;

    root[0] = netns_new(1);
    for (int k = 0; k < nodes; k++)
        for (int i = 0; i <= pods_on(k); i++)
            node_of(root, k)[i] = netns_new(i == 0);
    enter(home);

    link_up(LO);
    bridge_add(FIRST, "br0");
    address_add(FIRST, BRIDGE, 16, 0);
    for (int n = NUMBER; n < NUMBER + nodes; n++) {
        veth_add(FIRST + n, FIRST, node_of(root, n - NUMBER));
        route_add("route add to a node's range", RTN_UNICAST, RANGE(n), 24, NODE(n), FIRST, 0);
    }
    send_batch(root, "root");

    for (int n = NUMBER; n < NUMBER + nodes; n++) {
        const struct netns *node = node_of(root, n - NUMBER);
        int pods = pods_on(n - NUMBER);
        link_up(LO);
        link_up(FIRST);
        address_add(FIRST, NODE(n), 16, 0);
        route_add("route add default", RTN_UNICAST, 0, 0, BRIDGE, FIRST, 0);
        route_add("route add unreachable", RTN_UNREACHABLE, RANGE(n), 24, 0, 0, 0);
        for (int m = NUMBER; m < NUMBER + nodes; m++)
            if (m != n)
                route_add("route add to another node's range", RTN_UNICAST, RANGE(m), 24, NODE(m), FIRST, 0);
        for (int p = NUMBER; p < NUMBER + pods; p++)
            pod_port(n, p, &node[1 + p - NUMBER]);
        snprintf(where, sizeof where, "node %d", n);
        send_batch(node, where);

        for (int p = NUMBER; p < NUMBER + pods; p++)
            pod_build(node, n, p, &node[1 + p - NUMBER]);
        link_await(root, FIRST + n, "root");
    }
    link_await(root, FIRST, "root");
}

/* ---- --adding: one more pod, and one less ---- */

/* ip link set INDEX down; ip route delete TO/32 dev INDEX: the link itself ends with the pod's namespace */
static void pod_port_remove(int n, int p)
{
    struct ifinfomsg down = {.ifi_index = FIRST + p, .ifi_change = IFF_UP};
    struct rtmsg r = {.rtm_family = AF_INET, .rtm_dst_len = 32, .rtm_table = RT_TABLE_MAIN, .rtm_scope = RT_SCOPE_NOWHERE};
    message("route delete to a pod", RTM_DELROUTE, 0, &r, sizeof r);
    attribute_ip(RTA_DST, POD(n, p));
    attribute_u32(RTA_OIF, (uint32_t)(FIRST + p));
    message("link set down", RTM_NEWLINK, 0, &down, sizeof down);
}

static void pods_come_and_go(struct netns *root, int count, double *added, double *removed)
{
    for (int i = 0; i < count; i++) {
        int k = i % node_count, n = NUMBER + k, p = NUMBER + pods_on(k) + i / node_count;
        struct netns *node = node_of(root, k);
        double start = now_ms();
        struct netns pod = netns_new(0);
        enter(home);
        pod_port(n, p, &pod);
        send_batch(node, "node");
        pod_build(node, n, p, &pod);
        added[i] = now_ms() - start;
        pod_port_remove(n, p);
        send_batch(node, "node");
        netns_release(&pod, 1);
        removed[i] = now_ms() - start - added[i];
    }
}

/* ---- --steps: into a namespace and back ---- */

static void steps(const struct netns *pod, int count, double *microseconds)
{
    for (int i = 0; i < count; i++) {
        double start = now_ms();
        for (int j = 0; j < 1000; j++) {
            enter(pod->handle);
            enter(home);
        }
        microseconds[i] = now_ms() - start;   /* ms for a thousand are us for one */
    }
}

/* ---- --check: does it carry traffic? ---- */

static int socket_in(const struct netns *ns)
{
    struct timeval patience = {.tv_sec = 5};   /* for connect and accept too */
    enter(ns->handle);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    enter(home);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience))
        fail(errno, "check: socket");
    return fd;
}

/* One byte there and back between the first pod and the last one: on another node, if there is one. */
static void cluster_check(struct netns *root)
{
    int last = node_count - 1;   /* with fewer pods than nodes, the last that has one */
    while (!pods_on(last))
        last--;
    int number = NUMBER + pods_on(last) - 1;
    struct sockaddr_in from, to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    socklen_t length = sizeof from;
    char byte = 'x';
    to.sin_addr.s_addr = htonl(POD(NUMBER + last, number));
    int client = socket_in(root + 2), server = socket_in(&node_of(root, last)[pods_on(last)]);
    double start = now_ms();

    if (bind(server, (struct sockaddr *)&to, sizeof to) || listen(server, 1))
        fail(errno, "check: listen");
    if (connect(client, (struct sockaddr *)&to, sizeof to))
        fail(errno, "check: connect");
    int served = accept(server, (struct sockaddr *)&from, &length);
    if (served < 0 || from.sin_addr.s_addr != htonl(POD(NUMBER, NUMBER)))
        fail(errno, "check: accept from the client's own address");
    if (send(client, "!", 1, 0) != 1 || recv(served, &byte, 1, 0) != 1 || send(served, &byte, 1, 0) != 1 ||
        recv(client, &byte, 1, 0) != 1 || byte != '!')
        fail(errno, "check: echo");
    fprintf(stderr, "check: pod to pod and back in %.3f ms\n", now_ms() - start);
    close(served);
    close(client);
    close(server);
}

/* ---- the command ---- */

static void usage(void)
{
    fputs("usage: floor [--clusters K] [--nodes N] [--pods M | --spread P] [--release now|end|batch:R] [--pause MS]\n"
          "             [--adding E] [--steps S] [--check (two pods or more)]\n", stderr);
    exit(2);
}

static int number(const char *option, const char *text, long least, long most)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*end || value < least || value > most) {
        fprintf(stderr, "floor: %s wants a number from %ld to %ld\n", option, least, most);
        exit(2);
    }
    return (int)value;
}

static void print_series(const char *name, const double *values, int count, const char *after)
{
    printf("\"%s\": [", name);
    for (int i = 0; i < count; i++)
        printf("%s%.3f", i ? ", " : "", values[i]);
    printf("]%s", after);
}

int main(int argc, char **argv)
{
    int clusters = 100, pods = 3, spread = -1, check = 0, pause_ms = 0, adding = 0, stepping = 0;
    const char *release = "now";
    size_t most_waiting = 1;   /* "now": a cluster never waits */

    const struct option options[] = {
        {"clusters", required_argument, NULL, 'k'}, {"nodes", required_argument, NULL, 'n'},
        {"pods", required_argument, NULL, 'm'}, {"spread", required_argument, NULL, 's'},
        {"release", required_argument, NULL, 'r'}, {"pause", required_argument, NULL, 'p'},
        {"adding", required_argument, NULL, 'a'}, {"steps", required_argument, NULL, 't'},
        {"check", no_argument, NULL, 'c'}, {0}};

    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'k')
            clusters = number("--clusters", optarg, 1, 100000);
        else if (option == 'n')
            node_count = number("--nodes", optarg, 1, MOST);
        else if (option == 'm')
            pods = number("--pods", optarg, 1, MOST);
        else if (option == 's')
            spread = number("--spread", optarg, 0, MOST * MOST);
        else if (option == 'p')
            pause_ms = number("--pause", optarg, 0, 10000);
        else if (option == 'a')
            adding = number("--adding", optarg, 1, 100000);
        else if (option == 't')
            stepping = number("--steps", optarg, 1, 100000);
        else if (option == 'c')
            check = 1;
        else if (option == 'r' && !strcmp(release = optarg, "now"))
            most_waiting = 1;
        else if (option == 'r' && !strcmp(optarg, "end"))
            most_waiting = SIZE_MAX;
        else if (option == 'r' && !strncmp(optarg, "batch:", 6))
            most_waiting = (size_t)number("--release batch:", optarg + 6, 1, 1000000);
        else
            usage();
    }
    pod_count = spread < 0 ? node_count * pods : spread;
    if (optind != argc || (check && pod_count < 2) || (stepping && pod_count < 1) || pods_on(0) > MOST ||
        pods_on(0) + (adding + node_count - 1) / node_count > MOST)
        usage();

    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files))
        fail(errno, "getrlimit");
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files))
        fail(errno, "setrlimit");
    enter_sandbox();

    size_t size = cluster_size(), waiting = 0;
    struct netns *all = calloc((size_t)clusters * size, sizeof *all);
    double *build = calloc((size_t)clusters, sizeof *build), *total = calloc((size_t)clusters, sizeof *total);
    double *added = calloc((size_t)adding + 1, sizeof *added), *removed = calloc((size_t)adding + 1, sizeof *removed);
    double *stepped = calloc((size_t)stepping + 1, sizeof *stepped);
    if (!all || !build || !total || !added || !removed || !stepped)
        fail(errno, "calloc");

    for (int k = 0; k < clusters; k++) {
        if (pause_ms && k)
            usleep((useconds_t)pause_ms * 1000);
        double start = now_ms(), aside = 0;
        cluster_build(all + waiting);
        build[k] = now_ms() - start;
        if (check && k == 0)
            cluster_check(all);
        if (k == clusters - 1) {
            pods_come_and_go(all + waiting, adding, added, removed);
            if (stepping)
                steps(all + waiting + 2, stepping, stepped);
        }
        aside = now_ms() - start - build[k];
        waiting += size;
        if (waiting >= most_waiting) {
            netns_release(all, waiting);
            waiting = 0;
        }
        total[k] = now_ms() - start - aside;
    }

    printf("{\"clusters\": %d, \"nodes\": %d, \"pods\": %d, \"release\": \"%s\", ", clusters, node_count, pod_count, release);
    print_series("build_ms", build, clusters, ", ");
    print_series("add_ms", added, adding, ", ");
    print_series("remove_ms", removed, adding, ", ");
    print_series("step_us", stepped, stepping, ", ");
    print_series("total_ms", total, clusters, "}\n");
    if (fflush(stdout) || ferror(stdout))
        fail(errno, "write the result");
    return 0;   /* what still waits dies with the process */
}
