/* Host names of the allowlist and of the members' addresses, looked up in the loop. A name that is
 * not known yet opens nothing. Api process. */
#pragma once
#include <stdint.h>
#include <jansson.h>

#include "api/auth.h"
#include "common/ext/dns.h"

#define NAMES_MAX   (SETTINGS_NAMES + LIMIT_MEMBERS)
#define NAMES_ADDRS 4 /* of one name */

struct name_entry {
	struct names *names;
	char host[256]; /* "" = free */
	struct net addrs[NAMES_ADDRS];
	unsigned addr_count;
	int64_t asked_at_ms;
	bool asking;
};

struct names {
	struct dns *dns; /* made with the first name: most installations have addresses only */
	struct loop *loop;
	struct name_entry entries[NAMES_MAX];
	struct net allow[SETTINGS_NAMES * NAMES_ADDRS];
	struct net members[LIMIT_MEMBERS * NAMES_ADDRS];
};

void names_init(struct names *n, struct loop *loop);
void names_done(struct names *n);
/* Ask (again) for the names of the allowlist; at each load of the settings. */
void names_reload(struct names *n, const struct api_settings *s);
/* Borrowed until the next call. */
struct auth_nets names_allowlist(struct names *n, const struct api_settings *s);
/* Addresses of the members' api_url, and of other groups'. Names that are not known are asked for.
 */
struct auth_nets names_members(struct names *n, const json_t *cluster);
