/* address.h - which network addresses a program that fetches pictures for others may talk to. */
#ifndef NB_ADDRESS_H
#define NB_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

/* False for everything that is not a globally reachable unicast address: loopback, private, link-local (cloud metadata),
 * shared, multicast, documentation and reserved ranges, and IPv6 forms that carry such an IPv4 address. */
bool nb_address_is_public(const struct sockaddr *address);

#endif
