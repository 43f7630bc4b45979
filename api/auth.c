/* Who may make an unsafe call. See auth.h. */
#include "api/auth.h"

#include <netinet/in.h>
#include <string.h>

#include "common/core/str.h"

bool auth_addr(const struct sockaddr *sa, uint8_t out[static 16])
{
	memset(out, 0, 16);
	if (sa != NULL && sa->sa_family == AF_INET) {
		out[10] = out[11] = 0xff;
		memcpy(out + 12, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
		return true;
	}
	if (sa != NULL && sa->sa_family == AF_INET6) {
		memcpy(out, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
		return true;
	}
	return false;
}

static bool listed(struct auth_nets n, const uint8_t addr[static 16])
{
	for (unsigned i = 0; i < n.count; i++) {
		if (net_holds(&n.nets[i], addr))
			return true;
	}
	return false;
}

/* The time depends on the length of what was sent, never on where it differs. */
static bool same_secret(const char *sent, const char *want)
{
	size_t sent_len = strlen(sent), want_len = strlen(want);
	unsigned diff = sent_len != want_len;
	for (size_t i = 0; i < sent_len; i++)
		diff |= (unsigned)(unsigned char)sent[i] ^
			(unsigned)(unsigned char)want[want_len > 0 ? i % want_len : 0];
	return diff == 0;
}

struct auth_answer auth_check(const struct api_settings *s, const struct auth_request *r,
	struct auth_nets names, struct auth_nets members)
{
	static const struct auth_answer denied = { 403, "Access is denied", false },
					allowed = { 0 };
	/* The local socket knows the caller better than any password does. */
	if (r->local)
		return r->local_trusted ? allowed : denied;
	bool by_members = s->include_members && r->members_count;
	struct auth_nets own = { s->nets, s->net_count };
	if ((s->allowlist_given || by_members) && !listed(own, r->addr) &&
		!listed(names, r->addr) && !(by_members && listed(members, r->addr)))
		return denied;
	if (r->tls && s->verify_client != VERIFY_NONE && !r->certificate)
		return (struct auth_answer){ 403, "client certificate required", false };
	if (s->basic_token[0] == '\0')
		return (struct auth_answer){ 0 };
	if (r->authorization == NULL || r->authorization[0] == '\0')
		return (struct auth_answer){ 401, "no auth header received", true };
	if (!str_starts(r->authorization, "Basic ") ||
		!same_secret(r->authorization + 6, s->basic_token))
		return (struct auth_answer){ 401, "not authenticated", true };
	return (struct auth_answer){ 0 };
}
