/* Who may make an unsafe call (rest 11.1). Pure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "api/settings.h"

/* What is known of the caller. */
struct auth_request {
	bool local;		   /* the Unix socket */
	bool local_trusted;	   /* root or our own user, by SO_PEERCRED */
	bool tls, certificate;	   /* a client certificate was presented (and verified) */
	uint8_t addr[16];	   /* IPv4 mapped */
	bool members_count;	   /* the members' addresses count: all but POST /failsafe */
	const char *authorization; /* header, NULL = none */
};
/* Addresses of names: those of the allowlist, and of the members' api_url. */
struct auth_nets {
	const struct net *nets;
	unsigned count;
};
struct auth_answer {
	unsigned status; /* 0 = may */
	const char *text;
	bool challenge; /* WWW-Authenticate */
};

struct auth_answer auth_check(const struct api_settings *s, const struct auth_request *r,
	struct auth_nets names, struct auth_nets members);
/* False: neither IPv4 nor IPv6. */
bool auth_addr(const struct sockaddr *sa, uint8_t out[static 16]);
