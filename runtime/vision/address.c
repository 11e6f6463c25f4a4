/* address.c - the table of special-purpose addresses (RFC 6890 and its registries).
 *
 * Judged on the binary address that is about to be connected to, after name resolution.  So no spelling of a host (octal,
 * decimal, a name that resolves to 127.0.0.1, a second answer of a rebinding server) gets around it.
 */
#include "runtime/vision/address.h"

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

#include "kernels/base.h"

static bool v4_is_public(uint32_t a) /* host byte order */
{
    static const struct {
        uint32_t net;
        int      bits;
    } special[] = {
        { 0x00000000, 8 },  /* this network */
        { 0x0a000000, 8 },  /* private */
        { 0x64400000, 10 }, /* shared by carriers */
        { 0x7f000000, 8 },  /* loopback */
        { 0xa9fe0000, 16 }, /* link-local */
        { 0xac100000, 12 }, /* private */
        { 0xc0000000, 24 }, /* protocol assignments */
        { 0xc0000200, 24 }, /* documentation */
        { 0xc0586300, 24 }, /* 6to4 relays */
        { 0xc0a80000, 16 }, /* private */
        { 0xc6120000, 15 }, /* benchmarks */
        { 0xc6336400, 24 }, /* documentation */
        { 0xcb007100, 24 }, /* documentation */
        { 0xe0000000, 3 },  /* multicast, reserved, broadcast */
    };
    for (size_t i = 0; i < NB_COUNT(special); i++)
        if ((a ^ special[i].net) >> (32 - special[i].bits) == 0) return false;
    return true;
}

static uint32_t be32(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

static bool v6_is_public(const uint8_t a[16])
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff }; /* ::ffff:a.b.c.d */
    static const uint8_t nat64[12] = { 0x00, 0x64, 0xff, 0x9b };    /* 64:ff9b::a.b.c.d */
    if (!memcmp(a, mapped, 12) || !memcmp(a, nat64, 12)) return v4_is_public(be32(a + 12));
    if (be32(a) >> 16 == 0x2002) return v4_is_public(be32(a + 2)); /* 6to4 */
    if (be32(a) >> 9 == 0x20010000u >> 9) return false;            /* 2001:0::/23: Teredo, benchmarks, ORCHID */
    if (be32(a) == 0x20010db8) return false;                       /* documentation */
    if (be32(a) >> 12 == 0x3fff0000u >> 12) return false;          /* documentation */
    return a[0] >> 5 == 1;                                         /* 2000::/3 is all that is handed out */
}

bool nb_address_is_public(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof v4);
        return v4_is_public(ntohl(v4.sin_addr.s_addr));
    }
    if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, address, sizeof v6);
        return v6_is_public(v6.sin6_addr.s6_addr);
    }
    return false; /* Unix sockets and whatever else */
}
