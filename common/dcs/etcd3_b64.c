/* Base64 as the gateway of etcd wants it: standard alphabet, padded. Reading stops at the first
 * character that is none of the alphabet: what comes from outside is bounded by its own length. */
#include <stdlib.h>
#include <string.h>

#include "common/core/buf.h"
#include "common/dcs/etcd3.h"

static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *etcd_b64(const void *bytes, size_t len)
{
	const unsigned char *p = bytes;
	char *out = malloc((len + 2) / 3 * 4 + 1);
	size_t n = 0;
	for (size_t i = 0; out != NULL && i < len; i += 3) {
		unsigned v = (unsigned)p[i] << 16 | (i + 1 < len ? (unsigned)p[i + 1] << 8 : 0) |
			     (i + 2 < len ? p[i + 2] : 0);
		out[n++] = b64[v >> 18];
		out[n++] = b64[v >> 12 & 63];
		out[n++] = i + 1 < len ? b64[v >> 6 & 63] : '=';
		out[n++] = i + 2 < len ? b64[v & 63] : '=';
	}
	if (out != NULL)
		out[n] = '\0';
	return out;
}

char *etcd_unb64(const char *text, size_t *out_len)
{
	size_t len = strlen(text), n = 0;
	char *out = malloc(len / 4 * 3 + 4);
	unsigned v = 0;
	int bits = 0;
	for (size_t i = 0; out != NULL && i < len && text[i] != '='; i++) {
		const char *at = strchr(b64, text[i]);
		if (at == NULL)
			break;
		v = v << 6 | (unsigned)(at - b64);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out[n++] = (char)(v >> bits & 0xff);
		}
	}
	if (out != NULL)
		out[n] = '\0';
	*out_len = n;
	return out;
}

json_t *etcd_b64_json(const char *text)
{
	AUTO_FREE char *s = etcd_b64(text, strlen(text));
	return json_string(s);
}
