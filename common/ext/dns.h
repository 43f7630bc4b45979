/* Names to addresses in the loop, by c-ares: a silent name server costs nothing but the answer
 * (DESIGN 4). The last good address of a name is kept and serves while new look-ups fail. Literal
 * addresses and the hosts file need no server. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/buf.h"
#include "common/core/err.h"
#include "common/core/loop.h"

#define DNS_ADDRS_MAX 8
struct dns;
struct dns_answer {
	unsigned count;		       /* 0 = none, and none was known before */
	char addrs[DNS_ADDRS_MAX][64]; /* numeric, IPv6 without brackets */
	bool stale;		       /* from an earlier look-up */
};
typedef void (*dns_fn)(const struct dns_answer *a, void *arg);
struct dns_srv {
	unsigned count;
	struct {
		char host[256];
		uint16_t port;
	} rows[32];
};
typedef void (*dns_srv_fn)(const struct dns_srv *a, void *arg);

MUST_USE enum err_code dns_new(struct dns **out, struct loop *loop, struct err *err);
/* Other servers than the system's: "address[:port],...". For tests. */
MUST_USE enum err_code dns_set_servers(struct dns *d, const char *list, struct err *err);
void dns_free(struct dns *d); /* callbacks under way get an empty answer */
bool dns_is_address(const char *name);
/* fn is called once, from the loop. */
void dns_lookup(struct dns *d, const char *name, dns_fn fn, void *arg);
/* The addresses of this name do not answer: look it up again for the next caller. */
void dns_doubt(struct dns *d, const char *name);
/* What is known, for a successor: a line for each name, "name address ...". The generation changes
 * with it; 0 = nothing known yet. */
uint64_t dns_known_generation(const struct dns *d);
void dns_known_write(const struct dns *d, struct buf *out);
/* What a predecessor knew: serves until a look-up says better, look-ups under way included. Bad
 * lines are skipped. */
void dns_known_read(struct dns *d, const char *text);
void dns_lookup_srv(struct dns *d, const char *name, dns_srv_fn fn, void *arg);
