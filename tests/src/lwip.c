/* lwIP on the tap that PRECONFIGURED_TAPIF names:
   ./lwip ADDRESS GATEWAY TARGET N
   connects N times to port 25 of TARGET, prints for each how many milliseconds
   the connection took and the first line that was said, and says QUIT. For IPv6
   the target has to be on the link: GATEWAY is then only "-". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "lwip/opt.h"
#include "lwip/netif.h"
#include "lwip/tcpip.h"
#include "lwip/api.h"
#include "lwip/ip6_addr.h"
#include "netif/tapif.h"

static struct netif netif;
static ip_addr_t own, gateway, target;
static sys_sem_t ready;

static void begin(void *unused)
{
    (void)unused;
    ip4_addr_t any, mask;
    ip4_addr_set_any(&any);
    IP4_ADDR(&mask, 255, 255, 255, 0);
    if (IP_IS_V4(&own))
        netif_add(&netif, ip_2_ip4(&own), &mask, ip_2_ip4(&gateway), NULL, tapif_init, tcpip_input);
    else
        netif_add(&netif, &any, &any, &any, NULL, tapif_init, tcpip_input);
    netif_set_default(&netif);
    netif_set_link_up(&netif);
    netif_set_up(&netif);
    if (IP_IS_V6(&own)) {
        netif_create_ip6_linklocal_address(&netif, 1);
        netif_ip6_addr_set_state(&netif, 0, IP6_ADDR_PREFERRED);
        netif_ip6_addr_set(&netif, 1, ip_2_ip6(&own));
        netif_ip6_addr_set_state(&netif, 1, IP6_ADDR_PREFERRED);
    }
    sys_sem_signal(&ready);
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 5 || !ipaddr_aton(argv[1], &own) || !ipaddr_aton(argv[3], &target))
        return 2;
    if (IP_IS_V4(&own) && !ipaddr_aton(argv[2], &gateway))
        return 2;
    sys_sem_new(&ready, 0);
    tcpip_init(NULL, NULL);
    tcpip_callback(begin, NULL);
    sys_sem_wait(&ready);
    for (int n = atoi(argv[4]); n > 0; n--) {
        struct netconn *c = netconn_new(IP_IS_V6(&target) ? NETCONN_TCP_IPV6 : NETCONN_TCP);
        double begun = now_ms();
        err_t error = netconn_connect(c, &target, 25);
        double ms = now_ms() - begun;
        struct netbuf *buffer = NULL;
        if (error == ERR_OK)
            error = netconn_recv(c, &buffer);
        if (error == ERR_OK) {
            char *data;
            u16_t length;
            netbuf_data(buffer, (void **)&data, &length);
            printf("established after %.1f ms: %.*s", ms, (int)length, data);
            netbuf_delete(buffer);
            netconn_write(c, "QUIT\r\n", 6, NETCONN_COPY);
            netconn_close(c);
        } else
            printf("failed after %.1f ms: %d\n", now_ms() - begun, error);
        netconn_delete(c);
    }
    printf("done\n");
    /* lwIP's threads do not end by themselves. */
    _Exit(0);
}
